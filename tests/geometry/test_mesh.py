"""Reading meshes: whatever people have becomes one merged triangle mesh, or one line that names the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from nif_cli import NifError
from nif_cli.geometry.mesh import READABLE, WRITABLE, clean, inspect_mesh, load_mesh, mesh_bytes, mesh_files
from nif_cli.geometry.transform import BALL_RADIUS, Transform, unit_ball

CUBE_OBJ = """
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1
f 4 3 2 1\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
"""


def test_transform_is_undone_by_its_inverse(rng):
    points = rng.normal(size=(50, 3)) * 1e3 + 1e4
    transform = unit_ball(points)
    assert np.allclose(transform.to_original(transform.to_normalised(points)), points, rtol=1e-12)
    assert Transform(**transform.as_dict()) == transform


def test_normalised_shapes_fill_the_ball(rng):
    """The farthest vertex has radius 1/1.03, the bounding box is centred."""
    points = rng.uniform(-3, 9, (100, 3))
    normalised = unit_ball(points).to_normalised(points)
    assert np.linalg.norm(normalised, axis=1).max() == pytest.approx(BALL_RADIUS)
    assert np.allclose(normalised.min(0), -normalised.max(0))


def test_polygons_become_triangles(tmp_path: Path):
    path = tmp_path / "cube.obj"
    path.write_text(CUBE_OBJ)
    mesh = load_mesh(path)
    assert mesh.faces.shape == (12, 3)
    assert mesh.volume == pytest.approx(1)
    assert inspect_mesh(mesh).watertight


def test_split_vertices_are_merged_by_position(tmp_path: Path):
    """A seam of texture coordinates or normals is no hole."""
    path = tmp_path / "split.obj"
    cube = trimesh.creation.box()
    lines = [f"v {x} {y} {z}" for x, y, z in cube.triangles.reshape(-1, 3)]
    lines += [f"vt {k / 36} {k % 5 / 5}" for k in range(36)]
    lines += [f"vn {x} {y} {z}" for x, y, z in np.repeat(cube.face_normals, 3, 0)]
    lines += [f"f {k}/{k}/{k} {k + 1}/{k + 1}/{k + 1} {k + 2}/{k + 2}/{k + 2}" for k in range(1, 36, 3)]
    path.write_text("\n".join(lines))
    mesh = load_mesh(path)
    assert len(mesh.vertices) == 8
    assert inspect_mesh(mesh).watertight


@pytest.mark.parametrize("size", [1e6, 1.0, 1e-6, 1e-9])
@pytest.mark.parametrize("format", ["ply", "obj", "stl", "off", "glb"])
def test_units_do_not_matter(tmp_path: Path, size, format):
    """A mesh in kilometres and one in microns are the same mesh (stl splits all its vertices)."""
    sphere = trimesh.creation.icosphere(2, size)
    path = tmp_path / f"m.{format}"
    options: dict[str, Any] = {"digits": 20} if format in ("obj", "off") else {}
    sphere.export(path, **options)
    mesh = load_mesh(path)
    assert (len(mesh.vertices), len(mesh.faces)) == (len(sphere.vertices), len(sphere.faces))
    report = inspect_mesh(mesh)
    assert report.watertight
    assert report.components == 1
    assert mesh.volume == pytest.approx(sphere.volume, rel=1e-4)


@pytest.mark.parametrize("format", WRITABLE)
def test_what_is_written_is_read_back(tmp_path: Path, format):
    sphere = trimesh.creation.icosphere(2, 3.0)
    path = tmp_path / f"m.{format}"
    path.write_bytes(mesh_bytes(sphere, format))
    back = load_mesh(path)
    assert back.is_watertight
    assert back.volume == pytest.approx(sphere.volume, rel=1e-5)
    assert np.allclose(back.bounds, sphere.bounds, atol=1e-5)


def test_scenes_become_one_mesh_where_its_nodes_are(tmp_path: Path):
    scene = trimesh.Scene()
    for x in (0, 5):
        scene.add_geometry(
            trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([x, 0, 0])
        )
    path = tmp_path / "two.glb"
    scene.export(path)
    mesh = load_mesh(path)
    assert inspect_mesh(mesh).components == 2
    assert np.ptp(mesh.vertices[:, 0]) == pytest.approx(6)


def test_degenerate_faces_are_dropped():
    box = trimesh.creation.box()
    faces = np.concatenate([box.faces, [[0, 0, 1], [2, 2, 2]]])
    mesh = clean(trimesh.Trimesh(box.vertices, faces, process=False), "x")
    assert len(mesh.faces) == 12
    assert inspect_mesh(mesh).watertight


def test_unreferenced_vertices_do_not_count():
    """A stray vertex, even NaN, neither spoils a mesh nor its size."""
    box = trimesh.creation.box()
    mesh = clean(trimesh.Trimesh([*box.vertices, [np.nan] * 3, [1e9] * 3], box.faces, process=False), "x")
    assert len(mesh.vertices) == 8


def test_reports_count_holes_and_forks():
    sphere = trimesh.creation.icosphere(1)
    closed, open_ = (
        inspect_mesh(sphere),
        inspect_mesh(trimesh.Trimesh(sphere.vertices, sphere.faces[1:], process=False)),
    )
    assert closed.watertight
    assert "watertight" in str(closed)
    assert (open_.boundary_edges, open_.watertight) == (3, False)
    assert "not watertight (3 boundary edges)" in str(open_)
    fork = trimesh.Trimesh(
        [[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, -1, 0]],
        [[0, 1, 2], [0, 1, 3], [0, 1, 4]],
        process=False,
    )
    assert inspect_mesh(fork).non_manifold_edges == 1
    assert not inspect_mesh(fork).watertight


def _points_only_ply(path: Path) -> None:
    trimesh.PointCloud(np.random.default_rng(0).normal(size=(20, 3))).export(path)


def _nan_ply(path: Path) -> None:
    mesh = trimesh.creation.icosphere(1)
    vertices = mesh.vertices.copy()
    vertices[5] = np.nan
    trimesh.Trimesh(vertices, mesh.faces, process=False).export(path)


BAD = {
    "empty.obj": (lambda p: p.write_text(""), ""),
    "empty.ply": (lambda p: p.write_bytes(b""), ""),
    "empty.stl": (lambda p: p.write_bytes(b""), ""),
    "empty.glb": (lambda p: p.write_bytes(b""), ""),
    "noise.ply": (lambda p: p.write_bytes(bytes(range(256)) * 20), ""),
    "noise.obj": (lambda p: p.write_bytes(bytes(range(256)) * 20), ""),
    "text.off": (lambda p: p.write_text("OFF\n3 1 0\n0 0 zero\n"), ""),
    "points.ply": (_points_only_ply, "points"),
    "points.obj": (lambda p: p.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n"), "points"),
    "nan.ply": (_nan_ply, "NaN"),
    "inf.obj": (lambda p: p.write_text("v 0 0 0\nv 1 0 0\nv 0 inf 0\nf 1 2 3\n"), ""),
    "line.obj": (lambda p: p.write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"), "degenerate"),
    "skewline.obj": (
        lambda p: p.write_text("v 0.1 0.1 0.1\nv 0.2 0.2 0.2\nv 0.7 0.7 0.7\nf 1 2 3\n"),
        "degenerate",
    ),
    "dot.obj": (lambda p: p.write_text("v 3 3 3\nv 3 3 3\nv 3 3 3\nf 1 2 3\n"), "degenerate"),
    "beyond.obj": (lambda p: p.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"), ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, name):
    path = tmp_path / name
    make, word = BAD[name]
    make(path)
    with pytest.raises(NifError) as error:
        load_mesh(path)
    message = str(error.value)
    assert name in message
    assert word in message
    assert len(message.splitlines()) <= 2


def test_a_broken_file_among_many_faces(tmp_path: Path):
    """A file cut in the middle is refused, not half read."""
    path = tmp_path / "cut.ply"
    trimesh.creation.icosphere(3).export(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NifError, match=r"cut\.ply"):
        load_mesh(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "huge.stl"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: nothing is on the disk
    with pytest.raises(NifError, match=r"huge\.stl.*memory"):
        load_mesh(path)


def test_files_of_a_folder_are_found_below_it(tmp_path: Path):
    for name in ("b.ply", "deep/a.OBJ", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [p.name for p in mesh_files(tmp_path)] == ["b.ply", "a.OBJ"]
    assert mesh_files(tmp_path / "b.ply") == [tmp_path / "b.ply"]


def test_paths_without_meshes_are_named(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no mesh")
    with pytest.raises(NifError, match=f"no meshes.*{READABLE[0]}"):
        mesh_files(tmp_path)
    with pytest.raises(NifError, match=r"notes\.txt.*'\.txt' is no mesh format"):
        mesh_files(tmp_path / "notes.txt")
    with pytest.raises(NifError, match=r"no such file.*nowhere\.obj"):
        mesh_files(tmp_path / "nowhere.obj")


def test_a_file_beyond_memory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.obj"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(NifError, match=r"huge\.obj.*memory"):
        load_mesh(path)
