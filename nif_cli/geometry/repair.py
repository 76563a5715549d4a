"""Making a volume of a mesh that encloses none as it stands: doubled faces, holes, parts that face the wrong
way."""

from __future__ import annotations

import mcubes
import numpy as np
import trimesh
from jaxtyping import Int
from scipy import ndimage

from nif_cli import NifError
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.orientation import turned_outwards

BLOCK = 4  # grid points along a side of what is decided at once far from the surface


def oriented(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Each face once, neighbours facing the same way, closed patches facing outwards.

    ShapeNet ships every face in both directions: its winding number is 0 everywhere until one of each pair is
    dropped.
    """
    faces = np.asarray(mesh.faces, np.int64)
    _, first = np.unique(np.sort(faces, 1), axis=0, return_index=True)
    turned, _ = turned_outwards(np.asarray(mesh.vertices, np.float64), faces[np.sort(first)])
    return trimesh.Trimesh(mesh.vertices, turned, process=False)


def filled(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """`oriented`, and every hole closed by a fan around the middle of its rim."""
    mesh = oriented(mesh)
    vertices, faces = [np.asarray(mesh.vertices)], [np.asarray(mesh.faces)]
    for loop in boundary_loops(mesh.faces):
        middle = sum(len(v) for v in vertices)
        vertices.append(mesh.vertices[loop].mean(0, keepdims=True))
        faces.append(np.column_stack((np.roll(loop, -1), loop, np.full(len(loop), middle))))
    return oriented(trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False))


def boundary_loops(faces: Int[np.ndarray, "F 3"]) -> list[Int[np.ndarray, "L"]]:
    """The rims of the holes: vertices in the order in which the faces along them run."""
    edges = np.asarray(faces)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    _, index, uses = np.unique(np.sort(edges, 1), axis=0, return_inverse=True, return_counts=True)
    following: dict[int, list[int]] = {}
    for a, b in edges[uses[index.reshape(-1)] == 1].tolist():
        following.setdefault(a, []).append(b)
    loops = []
    while following:
        start = next(iter(following))
        path, seen = [start], {start: 0}
        while path:
            onward = following.get(path[-1])
            if not onward:  # not a rim: faces that disagree about their direction meet here
                following.pop(path[-1], None)
                seen.pop(path.pop())
                continue
            vertex = onward.pop()
            if not onward:
                del following[path[-1]]
            if vertex in seen:  # a loop is closed; what led to it goes on
                loop = path[seen[vertex] :]
                if len(loop) > 2:
                    loops.append(np.array(loop))
                for gone in loop[1:]:
                    del seen[gone]
                path = path[: seen[vertex] + 1]
                if vertex not in following:
                    seen.pop(path.pop())
            else:
                seen[vertex] = len(path)
                path.append(vertex)
    return loops


def solid(mesh: trimesh.Trimesh, resolution: int = 256) -> trimesh.Trimesh:
    """A closed solid, extracted again from the level set of distance and winding number, with `resolution`
    cells along the longest side.

    Inside is where the winding number of the oriented mesh exceeds 1/2, what lies within 0.75 cells of the
    surface (so that sheets survive: everything else grows by as much), and every cavity that the outside does
    not reach. Raises NifError when nothing is left.
    """
    if resolution < 16:
        raise NifError(f"solid_resolution={resolution}: at least 16 cells (128 or 256 is usual)")
    mesh = oriented(mesh)
    low, high = mesh.bounds
    cell = float((high - low).max()) / resolution
    low = low - 3 * cell
    blocks = np.ceil(((high - low) / cell + 4) / BLOCK).astype(int)
    query = MeshDistance(mesh.vertices, mesh.faces)

    coarse = np.stack(np.meshgrid(*[np.arange(n) for n in blocks], indexing="ij"), -1).reshape(-1, 3)
    centres = low + (coarse * BLOCK + (BLOCK - 1) / 2) * cell
    distance = query.distance(centres).reshape(blocks)
    # -1: inside an open part that is inside out
    inside = (np.abs(query.winding_number(centres)) > 0.5).reshape(blocks)
    # exact where the surface may pass, and where the sign changes without one: the mouth of a hole
    reach = (0.87 * (BLOCK - 1) + 2) * cell
    box = np.ones((3, 3, 3), bool)
    mouth = ndimage.binary_dilation(inside, box) & ~np.asarray(
        ndimage.binary_erosion(inside, box, border_value=1), bool
    )
    exact = np.argwhere((distance < reach) | mouth)
    offsets = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    index = (exact[:, None] * BLOCK + offsets).reshape(-1, 3)
    values = np.where(inside, distance, -distance).astype(np.float32)
    for axis in range(3):
        values = values.repeat(BLOCK, axis)
    points = low + index * cell
    near = query.distance(points)
    values[tuple(index.T)] = np.where(np.abs(query.winding_number(points)) > 0.5, near, -near)
    values += 0.75 * cell
    holes = np.asarray(ndimage.binary_fill_holes(values > 0)) & (values <= 0)
    values[holes] = cell
    values[[0, -1]], values[:, [0, -1]], values[:, :, [0, -1]] = -cell, -cell, -cell
    vertices, faces = mcubes.marching_cubes(values, 0.0)
    if len(faces) == 0:
        raise NifError("no solid is left after repair=solid; raise solid_resolution")
    return trimesh.Trimesh(low + vertices * cell, np.asarray(faces, np.int64), process=False)
