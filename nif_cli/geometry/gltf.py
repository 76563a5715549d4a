"""The triangles of a glTF 2.0 scene (Khronos 2021), .gltf or .glb: nodes, instances, strips and fans.
Materials, skins and animations are not looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.files import available_memory
from nif_cli.geometry.gltf_file import PACKED, GltfFile
from nif_cli.geometry.ply import strip_triangles
from nif_cli.geometry.polygons import Polygons
from nif_cli.untrusted import numbers, whole


def read_gltf(path: Path) -> Polygons:
    """All triangles of the default scene (of all roots where there is none), placed by their nodes in
    float64."""
    file = GltfFile(path)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    total, left_out = 0, 0
    for number, placed in _nodes(file):
        for k, primitive in enumerate(
            file.list(file.get("meshes", number), "primitives", f"meshes[{number}]")
        ):
            where = f"meshes[{number}].primitives[{k}]"
            mode = whole(primitive.get("mode", 4), f"{path}: {where}.mode", 0, 6)
            if mode < 4:
                left_out += 1
                continue
            vertices, faces = _triangles(file, primitive, mode, where)
            total += vertices.nbytes + faces.nbytes
            if 4 * total > available_memory():
                raise NifError(
                    f"{path}: its nodes repeat meshes to more than {total / 2**30:.1f} GiB, which does not "
                    "fit in memory"
                )
            if len(faces):
                with np.errstate(all="ignore"):
                    vertices = vertices @ placed[:3, :3].T + placed[:3, 3]
                parts.append((vertices, faces if np.linalg.det(placed[:3, :3]) >= 0 else faces[:, ::-1]))
    if not parts:
        what = "points or lines and no triangles" if left_out else "no triangles in its scene"
        raise NifError(f"{path}: it holds {what}")
    starts = np.cumsum([0] + [len(v) for v, _ in parts[:-1]])
    faces = np.concatenate([f + start for (_, f), start in zip(parts, starts, strict=True)])
    notes = [f"{left_out} of its primitives are points or lines: left out"] if left_out else []
    return Polygons(
        np.concatenate([v for v, _ in parts]), faces.reshape(-1), np.full(len(faces), 3), notes=notes
    )


def _nodes(file: GltfFile) -> list[tuple[int, np.ndarray]]:
    """(mesh, its placement [4, 4]) of every node of the scene that has one."""
    nodes = file.list(file.tree, "nodes", "")
    if file.list(file.tree, "scenes", ""):
        roots = file.list(file.get("scenes", file.tree.get("scene", 0)), "nodes", "scenes", dict_only=False)
    else:
        children = {
            c for n in nodes for c in file.list(n, "children", "nodes", dict_only=False) if isinstance(c, int)
        }
        roots = [i for i in range(len(nodes)) if i not in children]
    found, seen = [], set()
    waiting = [(root, np.eye(4)) for root in reversed(roots)]
    while waiting:
        index, above = waiting.pop()
        node = file.get("nodes", index)
        if index in seen:
            raise NifError(f"{file.path}: nodes[{index}] has two parents, or is its own")
        seen.add(index)
        placed = above @ _placement(node, f"{file.path}: nodes[{index}]")
        if "mesh" in node:
            found.append((whole(node["mesh"], f"{file.path}: nodes[{index}].mesh"), placed))
        waiting += [
            (c, placed) for c in reversed(file.list(node, "children", f"nodes[{index}]", dict_only=False))
        ]
    return found


def _placement(node: dict, where: str) -> Float[np.ndarray, "4 4"]:
    if "matrix" in node:
        return numbers(node["matrix"], f"{where}.matrix", (16,)).reshape(4, 4).T
    x, y, z, w = numbers(node.get("rotation", [0, 0, 0, 1]), f"{where}.rotation", (4,))
    norm = np.sqrt(x * x + y * y + z * z + w * w)
    if not norm > 0:
        raise NifError(f"{where}.rotation is zero; it must be a unit quaternion")
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    placed = np.eye(4)
    placed[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    placed[:3, :3] *= numbers(node.get("scale", [1, 1, 1]), f"{where}.scale", (3,))
    placed[:3, 3] = numbers(node.get("translation", [0, 0, 0]), f"{where}.translation", (3,))
    return placed


def _triangles(file: GltfFile, primitive: dict, mode: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and faces [T, 3] of one primitive of mode 4 (triangles), 5 (strip) or 6 (fan)."""
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    packed = [PACKED[n] for n in primitive.get("extensions") or {} if n in PACKED]
    if packed and "bufferView" not in file.get("accessors", attributes["POSITION"]):
        raise NifError(
            f"{file.path}: compressed with {packed[0]}, which is not read; export it without compression"
        )
    vertices = file.accessor(attributes["POSITION"], "VEC3")
    if "indices" in primitive:
        index = file.accessor(primitive["indices"], "SCALAR").reshape(-1).astype(np.int64)
    else:
        index = np.arange(len(vertices))
    if len(index) and index.max() >= len(vertices):
        face = int((index >= len(vertices)).argmax()) // 3 + 1
        raise NifError(
            f"{file.path}: {where}: face {face} names vertex {index.max()}, and there are "
            f"{len(vertices)} (0 to {len(vertices) - 1})"
        )
    if mode > 4:
        return vertices, strip_triangles(index, mode == 6)
    if len(index) % 3:
        raise NifError(f"{file.path}: {where}: {len(index)} corners are no whole number of triangles")
    return vertices, index.reshape(-1, 3)
