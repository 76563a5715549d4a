"""Areas, volumes and boxes of generated files of every format agree with an independent reader to 1e-6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import trimesh
from other_readers import figures, polygons_of_others
from trimesh.exchange.gltf import export_gltf

from nif_cli.geometry.mesh import load_mesh, signed_volume

Loops = list[list[int]]
SKEW = np.array([[1.1, 0.3, 0.0], [-0.2, 0.9, 0.1], [0.4, 0.0, 1.3]])  # what is flat stays so


def ring(around: int, along: int) -> tuple[np.ndarray, Loops]:
    """A torus of flat quadrangles."""
    u, v = (np.arange(n) * 2 * np.pi / n for n in (around, along))
    out = 1 + 0.3 * np.cos(v)
    at = np.stack(
        (np.outer(np.cos(u), out), np.outer(np.sin(u), out), np.outer(np.ones(around), 0.3 * np.sin(v))), -1
    )
    a, b = np.meshgrid(np.arange(around), np.arange(along), indexing="ij")
    a, b, c, d = a, b, (a + 1) % around, (b + 1) % along
    return at.reshape(-1, 3), np.stack(
        (a * along + b, c * along + b, c * along + d, a * along + d), -1
    ).reshape(-1, 4).tolist()


def star(n: int, first: int) -> tuple[np.ndarray, Loops]:
    """A prism over a star of n corners, every second one a dent; the fan of a face leaves it."""
    angle, radius = np.arange(n) * 2 * np.pi / n, np.where(np.arange(n) % 2, 0.35, 1.0)
    rim = np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)
    table = np.concatenate((np.c_[rim, np.zeros(n)], np.c_[rim, np.ones(n)]))
    top = [n + (first + i) % n for i in range(n)]
    return table, [
        [(first - i) % n for i in range(n)],
        top,
        *([i, (i + 1) % n, n + (i + 1) % n, n + i] for i in range(n)),
    ]


def joined(*parts: tuple[np.ndarray, Loops]) -> tuple[np.ndarray, Loops]:
    table, loops = np.empty((0, 3)), []
    for k, (vertices, faces) in enumerate(parts):
        loops += [[i + len(table) for i in face] for face in faces]
        table = np.concatenate((table, vertices + np.array([4.0 * k, k, -k])))
    return table @ SKEW.T, loops


def ball() -> tuple[np.ndarray, Loops]:
    mesh = trimesh.creation.icosphere(2, 0.7)
    return np.asarray(mesh.vertices), mesh.faces.tolist()


KINDS = {
    "triangles": joined(ball()),
    "quads": joined(ring(17, 9)),
    "mixed": joined(ball(), ring(7, 5)),
    "concave": joined(star(8, 3), ring(7, 5), star(11 * 2, 1), ball()),
}


def as_ply(path: Path, table: np.ndarray, loops: Loops, form: str, real: str = "double") -> None:
    order = {"little": "<", "big": ">"}.get(form, "")
    name = f"binary_{form}_endian" if order else "ascii"
    head = f"ply\nformat {name} 1.0\nelement vertex {len(table)}\n"
    head += "".join(f"property {real} {axis}\n" for axis in "xyz")
    head += f"element face {len(loops)}\nproperty list uchar int vertex_indices\nend_header\n"
    if order:
        data = table.astype(f"{order}f{8 if real == 'double' else 4}").tobytes()
        data += b"".join(bytes([len(f)]) + np.array(f, f"{order}i4").tobytes() for f in loops)
    else:
        rows = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in table.tolist())
        data = (rows + "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in loops)).encode()
    path.write_bytes(head.encode() + data)


def as_obj(path: Path, table: np.ndarray, loops: Loops) -> None:
    rows = "".join(f"v {x!r} {y!r} {z!r}\n" for x, y, z in table.tolist())
    path.write_text(rows + "".join("f " + " ".join(str(i + 1) for i in f) + "\n" for f in loops))


def as_off(path: Path, table: np.ndarray, loops: Loops) -> None:
    rows = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in table.tolist())
    faces = "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in loops)
    path.write_text(f"OFF\n{len(table)} {len(loops)} 0\n{rows}{faces}")


def disagreement(path: Path, other: list[np.ndarray]) -> float:
    """The largest difference of area, volume and box, as parts of what they are (the box: of the size)."""
    found, (area, volume, box) = load_mesh(path), figures(other)
    size = float((box[1] - box[0]).max())
    apart = (
        found.area / area - 1,
        signed_volume(found) / volume - 1,
        *((found.bounds - box) / size).reshape(-1),
    )
    return float(np.abs(apart).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["ascii", "little", "big", "little float", "big float", "obj", "off"])
@pytest.mark.parametrize("away", [0.0, 5e5])
def test_a_written_file_has_the_figures_that_another_reader_finds(kind, form, away, tmp_path):
    """meshio reads no OFF of polygons: there what was written is compared with."""
    table, loops = KINDS[kind]
    table = table + np.array([away, -away / 3, away / 9])
    path = tmp_path / f"it.{form if form in ('obj', 'off') else 'ply'}"
    if form in ("obj", "off"):
        (as_obj if form == "obj" else as_off)(path, table, loops)
    else:
        as_ply(path, table, loops, form.split()[0], "float" if "float" in form else "double")
    if form == "off" and kind != "triangles":
        other = [table[loop] for loop in loops]
    else:
        other = polygons_of_others(path)
    assert sorted(map(len, other)) == sorted(map(len, loops))
    if away and "float" in form:  # the positions are rounded, and faces no longer flat
        assert any("single precision" in note for note in load_mesh(path).metadata["notes"])
        return
    apart = disagreement(path, other)
    print(f"{form} {kind} {away:g}: {apart:.1e}")
    assert apart < 1e-6


@pytest.mark.parametrize("form", ["ply ascii", "ply binary", "stl ascii", "stl binary", "obj", "off"])
def test_a_file_that_meshio_writes_has_the_figures_that_meshio_finds(form, tmp_path):
    table, loops = KINDS["triangles"]
    path = tmp_path / f"it.{form[:3]}"
    options: dict[str, Any] = {"binary": "binary" in form} if " " in form else {}
    meshio.Mesh(table, [("triangle", np.array(loops))]).write(path, **options)
    apart = disagreement(path, polygons_of_others(path))
    print(f"{form}: {apart:.1e}")
    assert apart < 1e-6


@pytest.mark.parametrize("form", ["glb", "gltf"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_scene_of_turned_and_scaled_nodes_has_the_figures_that_trimesh_finds(form, mirrored, tmp_path):
    table, loops = KINDS["triangles"]
    scene, part = trimesh.Scene(), trimesh.Trimesh(table, loops, process=False)
    for k in range(3):
        placed = trimesh.transformations.random_rotation_matrix(np.array([0.2, 0.5, 0.1 + 0.3 * k]))
        placed[:3, :3] *= (1 + k) * (-1 if mirrored and k == 1 else 1)
        placed[:3, 3] = [20 * k, -k, 3]
        scene.add_geometry(part, transform=placed)
    if form == "glb":
        scene.export(tmp_path / "it.glb")
    else:
        for name, data in export_gltf(scene).items():
            (tmp_path / name.replace("model", "it")).write_bytes(data)
    apart = disagreement(tmp_path / f"it.{form}", polygons_of_others(tmp_path / f"it.{form}"))
    print(f"{form}: {apart:.1e}")
    assert apart < 1e-6
