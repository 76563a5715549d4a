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


def test_pictures_elsewhere_are_not_read(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    (tmp_path / "a/b/c/m.mtl").write_text("newmtl m\nKd 0 1 0\nmap_Kd ../../../secret.png\n")
    (tmp_path / "a/b/c/m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n"
    )
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
def test_textures_are_pictures_beside_the_mesh(tmp_path, monkeypatch, texture):
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
    try:
        parts = coloured_parts(folder / "a.obj")
    except NifError:
        return
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
    """Many materials may share a picture; many pictures are not unpacked without an end."""
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
