"""Laws of mesh readers: what is read does not depend on how a file spells it; other writers and readers
agree; what is broken is refused with its place."""

import base64
import json

import numpy as np
import pytest
import trimesh
from trimesh.exchange.export import export_mesh

from nif_cli import NifError
from nif_cli.geometry.mesh import inspect_mesh, load_mesh


@pytest.fixture
def solid() -> trimesh.Trimesh:
    """Not convex, without symmetry, of two parts."""
    rng = np.random.default_rng(0)
    knot = trimesh.creation.torus(1.0, 0.3, 16, 8)
    knot.vertices = knot.vertices * (1 + 0.2 * rng.random((len(knot.vertices), 1))) @ np.diag([1.0, 0.8, 1.3])
    apart = trimesh.creation.icosphere(1, 0.4).apply_translation([3, 1, -2])
    both = trimesh.util.concatenate([knot, apart])
    assert isinstance(both, trimesh.Trimesh)
    return both


def agrees(found: trimesh.Trimesh, meant: trimesh.Trimesh) -> None:
    size = np.ptp(meant.vertices, axis=0).max()
    report = inspect_mesh(found)
    assert report.watertight
    assert not report.notes
    assert report.area == pytest.approx(meant.area, rel=1e-6)
    assert report.volume == pytest.approx(meant.volume, rel=1e-6)
    assert np.abs(np.asarray(found.bounds) - meant.bounds).max() < 1e-6 * size


@pytest.mark.parametrize("format", ["ply", "obj", "off", "stl", "stl_ascii", "glb", "ply_ascii"])
def test_what_another_program_writes_is_read_as_it_was_meant(format, solid, tmp_path):
    path = tmp_path / f"it.{format.partition('_')[0]}"
    options = (
        {"encoding": "ascii"} if format == "ply_ascii" else {"digits": 17} if format in ("obj", "off") else {}
    )
    kind = "ply" if format == "ply_ascii" else format
    solid.export(path, file_type=kind, **options)
    agrees(load_mesh(path), solid)
    agrees(trimesh.load_mesh(path), solid)  # the independent reader


def obj(mesh: trimesh.Trimesh, end: str = "\n", gap: str = " ") -> str:
    lines = [gap.join(("v", *(repr(float(x)) for x in v))) for v in mesh.vertices]
    return end.join([*lines, *(gap.join(("f", *(str(i + 1) for i in f))) for f in mesh.faces), ""])


def by_blocks(mesh: trimesh.Trimesh) -> str:
    text = ""
    for part in mesh.split():
        n = len(part.vertices)
        text += "".join("v {} {} {}\n".format(*map(repr, map(float, v))) for v in part.vertices)
        text += "".join("f {} {} {}\n".format(*(i - n for i in f)) for f in part.faces.tolist())
    return text


@pytest.mark.parametrize(
    "spell",
    [
        lambda m: obj(m).encode(),
        lambda m: obj(m, "\r\n").encode(),
        lambda m: obj(m, "\r").encode(),
        lambda m: obj(m, gap="\t").encode(),
        lambda m: obj(m, gap="  ").encode(),
        lambda m: obj(m, "  # an aside\n").encode(),
        lambda m: obj(m, "\n   ").encode(),
        lambda m: b"\xef\xbb\xbf" + obj(m).encode(),
        lambda m: obj(m).encode("utf-16"),
        lambda m: "# Größe\ng Stühle\n".encode("latin-1") + obj(m).encode(),
        lambda m: "o 椅子\n".encode("gbk") + obj(m).encode(),
        lambda m: obj(m).replace("\nf ", "\nf \\\n ").encode(),
        lambda m: by_blocks(m).encode(),
    ],
)
def test_obj_does_not_depend_on_how_it_is_spelled(spell, solid, tmp_path):
    (tmp_path / "it.obj").write_bytes(spell(solid))
    agrees(load_mesh(tmp_path / "it.obj"), solid)


def prism(n: int) -> tuple[np.ndarray, list[list[int]]]:
    """A prism over a star with dents: two polygons of n corners that are not convex, and n of four."""
    angle = np.arange(n) * 2 * np.pi / n
    radius = np.where(np.arange(n) % 2, 0.4, 1.0)
    rim = np.c_[radius * np.cos(angle), radius * np.sin(angle)]
    vertices = np.concatenate((np.c_[rim, np.zeros(n)], np.c_[rim, np.ones(n)]))
    sides = [[i, (i + 1) % n, n + (i + 1) % n, n + i] for i in range(n)]
    return vertices, [list(range(n))[::-1], list(range(n, 2 * n)), *sides]


@pytest.mark.parametrize("n", [4, 6, 10])
@pytest.mark.parametrize("format", ["obj", "off", "ply", "ply_int", "ply_binary"])
def test_a_prism_has_the_volume_of_its_base_in_each_format(n, format, tmp_path):
    vertices, faces = prism(n)
    x, y = vertices[:n, :2].T
    base = float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)  # shoelace
    path = tmp_path / f"it.{format[:3]}"
    rows = "".join("{!r} {!r} {!r}\n".format(*v) for v in vertices.tolist())
    loops = "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in faces)
    counts = "int" if format == "ply_int" else "uchar"
    head = "ply\nformat {}\nelement vertex {}\nproperty double x\nproperty double y\nproperty double z\n"
    head += "element face {}\nproperty list {} int vertex_indices\nend_header\n"
    if format == "obj":
        text = "".join(f"v {row}\n" for row in rows.splitlines())
        data = (text + "".join("f " + " ".join(str(i + 1) for i in f) + "\n" for f in faces)).encode()
    elif format == "off":
        data = f"OFF\n{len(vertices)} {len(faces)} 0\n{rows}{loops}".encode()
    elif format == "ply_binary":
        data = (
            head.format("binary_big_endian 1.0", len(vertices), len(faces), counts).encode()
            + vertices.astype(">f8").tobytes()
        )
        data += b"".join(bytes([len(f)]) + np.array(f, ">i4").tobytes() for f in faces)
    else:
        data = (head.format("ascii 1.0", len(vertices), len(faces), counts) + rows + loops).encode()
    path.write_bytes(data)
    report = inspect_mesh(load_mesh(path))
    assert report.watertight
    assert report.volume == pytest.approx(base, rel=1e-9)


@pytest.mark.parametrize("mode", [4, 5, 6])
def test_gltf_triangles_strips_and_fans_are_one_surface(mode, tmp_path):
    n = 12
    angle = np.arange(n) * 2 * np.pi / n
    rim = np.c_[np.cos(angle), np.sin(angle), np.zeros(n)]
    zigzag = [j for i in range(n // 2) for j in dict.fromkeys((i, n - 1 - i))]
    order = {4: [i for k in range(1, n - 1) for i in (0, k, k + 1)], 5: zigzag, 6: list(range(n))}[mode]
    data = rim.astype("<f4").tobytes() + np.array(order, "<u4").tobytes()
    views = [
        {"buffer": 0, "byteLength": 12 * n},
        {"buffer": 0, "byteOffset": 12 * n, "byteLength": 4 * len(order)},
    ]
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": n, "type": "VEC3"},
        {"bufferView": 1, "componentType": 5125, "count": len(order), "type": "SCALAR"},
    ]
    tree = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "scale": [2, 3, 1]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}]}],
        "buffers": [{"byteLength": len(data), "uri": "data:;base64," + base64.b64encode(data).decode()}],
        "bufferViews": views,
        "accessors": accessors,
    }
    (tmp_path / "it.gltf").write_text(json.dumps(tree))
    found = load_mesh(tmp_path / "it.gltf")
    assert len(found.faces) == n - 2
    assert found.area == pytest.approx(6 * n / 2 * np.sin(2 * np.pi / n), rel=1e-6)
    assert inspect_mesh(found).disagreeing_edges == 0


def test_strips_of_ply_are_the_triangles_that_they_run_through(tmp_path):
    rows = "".join(f"{i // 2} {i % 2} 0\n" for i in range(8))
    head = "ply\nformat ascii 1.0\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    (tmp_path / "it.ply").write_text(head + rows + "9 0 1 2 3 -1 4 5 6 7\n")
    found = load_mesh(tmp_path / "it.ply")
    assert found.area == pytest.approx(2)
    assert inspect_mesh(found).disagreeing_edges == 0


TETRAHEDRON = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
FACES = ["0 2 1", "0 1 3", "0 3 2", "1 2 3"]


def broken(suffix: str, face: str) -> str:
    faces = "".join(f"3 {f}\n" for f in [*FACES[:3], face])
    if suffix == "off":
        return f"OFF\n4 4 0\n{TETRAHEDRON}{faces}"
    if suffix == "ply":
        head = (
            "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
        )
        return (
            f"{head}element face 4\nproperty list uchar int vertex_indices\nend_header\n{TETRAHEDRON}{faces}"
        )
    one = [" ".join(str(int(i) + 1) for i in f.split()) for f in [*FACES[:3], face]]
    return "".join(f"v {v}\n" for v in TETRAHEDRON.splitlines()) + "".join(f"f {f}\n" for f in one)


@pytest.mark.parametrize(
    ("suffix", "face", "word"),
    [
        ("ply", "1 2 4", "names vertex 4, and there are 4"),
        ("ply", "1 2 -1", "names vertex -1"),
        ("off", "1 2 4", r"\(line 10\) names vertex 4"),
        ("off", "1 2 -1", "names vertex -1"),
        ("obj", "1 2 4", "line 8: a face names vertex 5"),
        ("obj", "1 2 -1", "line 8: a face names vertex 0"),
        ("obj", "1 2 -6", "line 8: a face names vertex -5"),
    ],
)
def test_a_face_of_a_vertex_that_is_not_there_is_refused_with_its_place(suffix, face, word, tmp_path):
    (tmp_path / f"it.{suffix}").write_text(broken(suffix, face))
    with pytest.raises(NifError, match=rf"it\.{suffix}: .*{word}"):
        load_mesh(tmp_path / f"it.{suffix}")


@pytest.mark.parametrize("format", ["ply", "stl", "off", "glb", "stl_ascii"])
def test_a_file_that_ends_too_early_is_refused_wherever_it_ends(format, solid, tmp_path):
    path = tmp_path / f"it.{format.partition('_')[0]}"
    whole = export_mesh(solid, None, file_type=format)
    whole = whole.encode() if isinstance(whole, str) else whole
    rng = np.random.default_rng(0)
    for at in [*rng.integers(5, len(whole) - 100, 20).tolist(), len(whole) - 50]:
        path.write_bytes(whole[:at])
        with pytest.raises(NifError, match=r"it\."):
            load_mesh(path)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e6])
def test_doubts_do_not_depend_on_the_unit(size, solid, tmp_path):
    solid.vertices = solid.vertices * size
    (tmp_path / "it.obj").write_text(obj(solid))
    assert inspect_mesh(load_mesh(tmp_path / "it.obj")).doubts == []
