"""Colours of meshes, whatever they are kept in, are those at the sampled points."""

import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from nif_cli import NifError
from nif_cli.data.shapes.textured import coloured_parts, sample_colors


def square(**visual) -> trimesh.Trimesh:
    vertices = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    return trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], process=False, **visual)


def drawn(path) -> tuple[np.ndarray, np.ndarray]:
    points, normals, colors = sample_colors(coloured_parts(path), 4000, np.random.default_rng(0))
    assert points.shape == normals.shape == colors.shape
    assert np.allclose(np.abs(normals), [0, 0, 1])
    return points, colors


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_vertex_colours_are_interpolated(tmp_path, suffix):
    square(vertex_colors=[[0, 0, 0], [255, 0, 0], [255, 255, 0], [0, 255, 0]]).export(
        tmp_path / f"a.{suffix}"
    )
    points, colors = drawn(tmp_path / f"a.{suffix}")
    assert np.allclose(colors[:, :2], points[:, :2], atol=0.01)


def test_face_colours(tmp_path):
    square(face_colors=[[255, 0, 0], [0, 0, 255]]).export(tmp_path / "a.ply")
    points, colors = drawn(tmp_path / "a.ply")
    assert np.array_equal(colors[:, 0] > 0.5, points[:, 0] > points[:, 1])


@pytest.mark.parametrize("folder", ["models", "images"])
def test_textures_repeat_and_stand_upright(tmp_path, folder):
    """Red to the right, green upwards; also from the folder beside, as ShapeNet keeps them."""
    y, x = np.mgrid[:64, :64]
    (tmp_path / "models").mkdir()
    (tmp_path / "images").mkdir()
    Image.fromarray(np.stack([x * 4, 255 - y * 4, x * 0], -1).astype(np.uint8)).save(
        tmp_path / folder / "t.png"
    )
    (tmp_path / "models/a.mtl").write_text(
        f"newmtl m\nKd 1 1 1\nmap_Kd {'../images/' * (folder == 'images')}t.png\n"
    )
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 2 0\nvt 3 0\nvt 3 1\nvt 2 1\n"
    (tmp_path / "models/a.obj").write_text(f"mtllib a.mtl\n{corners}usemtl m\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n")
    points, colors = drawn(tmp_path / "models/a.obj")
    inner = ((points[:, :2] > 0.02) & (points[:, :2] < 0.98)).all(1)
    assert np.allclose(colors[inner][:, :2], points[inner][:, :2], atol=0.02)


def test_images_elsewhere_are_not_read(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    (tmp_path / "a/b/c/m.mtl").write_text("newmtl m\nKd 0 1 0\nmap_Kd ../../../secret.png\n")
    (tmp_path / "a/b/c/m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n"
    )
    with pytest.warns(UserWarning, match="leads out of the mesh's folder"):
        _, colors = drawn(tmp_path / "a/b/c/m.obj")
    assert np.allclose(colors, [0, 1, 0], atol=0.01)


def test_a_mesh_without_colours_says_so(tmp_path):
    square().export(tmp_path / "a.ply")
    with pytest.raises(NifError, match=r"a\.ply: it has no colours"):
        coloured_parts(tmp_path / "a.ply")


def test_a_textured_face_hides_the_plain_one_on_its_back(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "t.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd t.png\nnewmtl back\nKd 1 1 1\n")
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\n"
    (tmp_path / "a.obj").write_text(
        f"mtllib a.mtl\n{corners}usemtl m\nf 1/1 2/2 3/3\nusemtl back\nf 3/3 2/2 1/1\n"
    )
    _, colors = drawn(tmp_path / "a.obj")
    assert np.allclose(colors, [1, 0, 0], atol=0.01)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("texture", ["eps", "fifo", "outside"])
def test_textures_are_images_beside_the_mesh(tmp_path, monkeypatch, texture):
    """No program is started for one, no pipe waited for, and nothing read from elsewhere."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    folder = tmp_path / "far" / "models"
    folder.mkdir(parents=True)
    name = "x.png" if texture != "outside" else "../../secret.png"
    (folder / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
    )
    (folder / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    if texture == "eps":
        (folder / name).write_bytes(EPS)
    elif texture == "fifo":
        os.mkfifo(folder / name)
    else:
        Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "secret.png")
    with pytest.warns(UserWarning, match=r"a\.obj: 1 of its material files or textures left out"):
        parts = coloured_parts(folder / "a.obj")
    colors = sample_colors(parts, 10, np.random.default_rng(0))[2]
    assert not (colors == [1, 0, 0]).all(1).any()


@pytest.mark.parametrize(
    "what", ["eps", "text", "missing", "fifo", "outside", "bomb", "material fifo", "material outside"]
)
def test_a_texture_or_material_left_out_is_said(tmp_path, what):
    """trimesh goes on without it, and the colours are others than the file's."""
    folder = tmp_path / "far" / "models"
    folder.mkdir(parents=True)
    library = "../../a.mtl" if what == "material outside" else "a.mtl"
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
    (folder / "a.obj").write_text(f"mtllib {library}\n{corners}usemtl m\nf 1/1 2/2 3/3\n")
    texture = "../../x.png" if what == "outside" else "x.png"
    if what == "material fifo":
        os.mkfifo(folder / "a.mtl")
    else:
        (folder / library).write_text(f"newmtl m\nmap_Kd {texture}\n")
    if what in ("eps", "text"):
        (folder / texture).write_bytes(EPS if what == "eps" else b"hello")
    elif what == "fifo":
        os.mkfifo(folder / texture)
    elif what == "bomb":
        Image.new("1", (9000, 9000)).save(folder / texture)
    elif what == "outside":
        Image.new("RGB", (2, 2)).save(folder / texture)
    lost = library if what.startswith("material") else texture
    with pytest.warns(
        UserWarning, match=rf"a\.obj: 1 of its material files or textures left out \(.*{Path(lost).name}"
    ):
        coloured_parts(folder / "a.obj")


@pytest.mark.parametrize("files", [1, 100])
def test_textures_are_counted_together(tmp_path, files):
    """Many materials may share an image; many images are not unpacked without an end."""
    for n in range(files):
        Image.new("1", (3400, 3400)).save(tmp_path / f"{n}.png")
    (tmp_path / "a.mtl").write_text("".join(f"newmtl m{i}\nmap_Kd {i % files}.png\n" for i in range(100)))
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m99\nf 1/1 2/2 3/3\n"
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        coloured_parts(tmp_path / "a.obj")
    assert any("in all" in str(w.message) for w in said) == (files > 1)


# an L whose fan from any corner but two leaves it; its colours are its positions
L = np.array([[0, 0], [1, 0], [1, 0.4], [0.4, 0.4], [0.4, 1], [0, 1]])


def l_shape(kind: str, folder: Path, first: int) -> Path:
    """The L as one polygon, beside it a square, coloured by place, in a file of this kind."""
    corners = np.roll(np.arange(6), -first).tolist()
    plane = np.concatenate((L, [[0.7, 0.7], [0.9, 0.7], [0.9, 0.9], [0.7, 0.9]]))
    faces = [corners, [6, 7, 8, 9]]
    path = folder / f"it.{kind[:3]}"
    if kind.startswith("obj"):
        y, x = np.mgrid[:64, :64]
        Image.fromarray(np.stack([x * 4, 255 - y * 4, x * 0], -1).astype(np.uint8)).save(folder / "t.png")
        (folder / "a.mtl").write_bytes("# Größe\nnewmtl m\nKd 1 1 1\nmap_Kd t.png\n".encode("latin-1"))
        text = "# Größe\nmtllib a.mtl\n" + "".join(f"v {x} {y} 0\n" for x, y in plane)
        text += "".join(f"vt {x} {y}\n" for x, y in plane[::-1]) + "usemtl m\n"
        if kind == "obj_relative":
            word = [f"{i - 10}/{-1 - i}" for i in range(10)]
        else:
            word = [f"{i + 1}/{10 - i}" for i in range(10)]
        text += "".join("f " + " ".join(word[i] for i in f) + "\n" for f in faces)
        path.write_bytes(text.encode("latin-1" if kind == "obj_latin" else "utf-8"))
        return path
    colors = (plane * 255).round().astype(int)
    head = "element vertex 10\nproperty float x\nproperty float y\nproperty float z\n"
    head += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    head += "element face 2\nproperty list uchar int vertex_indices\n"
    if kind == "ply":
        rows = "".join(f"{x} {y} 0 {r} {g} 0\n" for (x, y), (r, g) in zip(plane, colors, strict=True))
        rows += "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in faces)
        path.write_text(f"ply\nformat ascii 1.0\n{head}end_header\n{rows}")
    else:
        order = "<" if kind == "ply_little" else ">"
        data = b"".join(
            np.array([x, y, 0], f"{order}f4").tobytes() + bytes([r, g, 0])
            for (x, y), (r, g) in zip(plane, colors, strict=True)
        )
        data += b"".join(bytes([len(f)]) + np.array(f, f"{order}i4").tobytes() for f in faces)
        name = {"<": "little", ">": "big"}[order]
        path.write_bytes(f"ply\nformat binary_{name}_endian 1.0\n{head}end_header\n".encode() + data)
    return path


@pytest.mark.parametrize("first", [0, 2, 4])
@pytest.mark.parametrize("kind", ["obj", "obj_latin", "obj_relative", "ply", "ply_little", "ply_big"])
def test_concave_polygons_are_coloured_inside_themselves(kind, first, tmp_path):
    points, colors = drawn(l_shape(kind, tmp_path, first))
    square = (points[:, :2] > 0.6).all(1)
    assert (square | (points[:, 0] < 0.4 + 1e-6) | (points[:, 1] < 0.4 + 1e-6)).all()
    assert square.mean() == pytest.approx(0.04 / (0.64 + 0.04), abs=0.02)
    inner = (points[:, :2] > 0.02).all(1) & (points[:, :2] < 0.98).all(1)
    assert np.allclose(colors[inner][:, :2], points[inner][:, :2], atol=0.02)


def test_a_polygon_has_one_colour_in_all_its_triangles(tmp_path):
    head = "ply\nformat ascii 1.0\nelement vertex 10\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element face 2\nproperty list uchar int vertex_indices\nproperty uchar red\n"
    head += "property uchar green\nproperty uchar blue\nend_header\n"
    rows = "".join(f"{x} {y} 0\n" for x, y in [*L, *(L[:4] * 0.2 + 0.6)])
    (tmp_path / "it.ply").write_text(f"{head}{rows}6 2 3 4 5 0 1 255 0 0\n4 6 7 8 9 0 0 255\n")
    points, colors = drawn(tmp_path / "it.ply")
    assert np.array_equal(colors[:, 2] > 0.5, (points[:, :2] > 0.5).all(1))


@pytest.mark.parametrize("face", ["1/9 2/2 3/3", "1/0 2/2 3/3", "1/-9 2/2 3/3", "1/1/4 2/2/2 3/3/3"])
def test_a_texture_coordinate_that_is_not_there_is_refused(face, tmp_path):
    """trimesh leaves away all of them."""
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf " + face + "\n")
    with pytest.raises(NifError, match=r"a\.obj: .*(texture coordinate|normal)"):
        coloured_parts(tmp_path / "a.obj")
