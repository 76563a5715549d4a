"""Which way faces look: neighbours alike, closed parts outwards."""

from __future__ import annotations

from itertools import pairwise

import igl
import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST_PARTS = 2000  # parts that are asked which lies in which


def disagreeing_edges(faces: Int[np.ndarray, "F 3"]) -> int:
    """Edges of two faces that both run the same way along it: one of the two is turned."""
    edges = np.asarray(faces, np.int64)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    low, high = edges.min(1), edges.max(1)
    key = low * (int(edges.max(initial=0)) + 1) + high
    _, index, uses = np.unique(key, return_inverse=True, return_counts=True)
    balance = np.bincount(index.reshape(-1), np.where(edges[:, 0] == low, 1, -1), len(uses))
    return int(((uses == 2) & (balance != 0)).sum())


def turned_outwards(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Int[np.ndarray, "F 3"], list[str]]:
    """The faces, each in its place, turned so that neighbours agree and no region is enclosed the wrong way
    round, and what was done, in words (nothing: `faces` is what was given).

    A patch is what hangs together over edges of two faces. A closed patch in the open must enclose a positive
    volume, and one within others must not bring their winding number below zero; with a patch turn all that
    lie in it, so a cavity stays one. An open patch is turned if it encloses more space (winding number)
    inwards than outwards.
    """
    given = np.ascontiguousarray(faces, np.int64)
    patch, flipped = _patches(given)
    count = int(patch.max(initial=-1)) + 1
    if flipped.any():  # the side that most of a patch's area looks to is kept
        a, b, c = vertices[given].transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        flipped ^= (np.bincount(patch, np.where(flipped, -area, area), count) < 0)[patch]
    oriented = np.where(flipped[:, None], given[:, ::-1], given)
    disagreed = int((oriented != given).any(1).sum())
    wrong = _inside_out(vertices, oriented, patch, count)
    result = np.where(wrong[patch][:, None], oriented[:, ::-1], oriented)
    notes = []
    if disagreed:
        notes.append(f"{disagreed:,} faces disagreed with their neighbours: turned")
    if wrong.any():
        which = "inside out" if wrong.all() else f"{int(wrong.sum()):,} of {count:,} parts inside out"
        notes.append(f"{which}: turned")
    return (result, notes) if notes else (given, [])


def _patches(faces: Int[np.ndarray, "F 3"]) -> tuple[Int[np.ndarray, "F"], Bool[np.ndarray, "F"]]:
    """The patch of each face, and which faces are to be flipped for neighbours to agree (none of a patch that
    has only one side). Linear in the faces: igl's bfs_orient takes the square of those at one edge, 25 GB for
    30,000."""
    count = len(faces)
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    forward = edges[:, 0] < edges[:, 1]
    key = edges.min(1) * (int(edges.max(initial=0)) + 1) + edges.max(1)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    pair = first[np.diff(first, append=len(key)) == 2]
    one, other = order[pair], order[pair + 1]
    disagree = forward[one] == forward[other]
    one, other = one // 3, other // 3
    # every face twice, as it is and flipped: what hangs together may stand side by side
    rows = np.concatenate((one, one + count))
    columns = np.concatenate((other + count * disagree, other + count * ~disagree))
    _, side = connected_components(
        coo_array((np.ones(len(rows), bool), (rows, columns)), (2 * count, 2 * count)), directed=False
    )
    low = np.minimum(side[:count], side[count:])
    _, patch = np.unique(low, return_inverse=True)
    return patch.reshape(-1).astype(np.int64), side[:count] != low


def _inside_out(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], patch: Int[np.ndarray, "F"], count: int
) -> Bool[np.ndarray, "P"]:
    """Which patches are to be turned."""
    wrong = np.zeros(count, bool)
    if count > max(MOST_PARTS, len(faces) // 50) or not len(faces):
        return wrong  # a soup of faces
    centred = vertices - vertices[faces].mean((0, 1))
    order = np.argsort(patch, kind="stable")
    ends = np.searchsorted(patch[order], np.arange(count + 1))
    parts = [faces[order[a:b]] for a, b in pairwise(ends.tolist())]
    closed = np.array([_closed(part) for part in parts])
    low = np.array([centred[part].min((0, 1)) for part in parts])
    high = np.array([centred[part].max((0, 1)) for part in parts])
    volume = np.zeros(count)
    for i in np.flatnonzero(closed):
        # tetrahedra to the middle of the part's own box: to a far origin they cancel, and so do their digits
        a, b, c = (centred[parts[i]] - (low[i] + high[i]) / 2).transpose(1, 0, 2)
        volume[i] = (np.cross(a, b) * c).sum() / 6
    flat = np.abs(volume) <= 1e-9 * np.maximum(np.prod(high - low, axis=1), 1e-300)
    for i in np.flatnonzero(~closed)[:200]:
        if len(parts[i]) > 3:
            wrong[i] = _encloses_inwards(centred, parts[i], low[i], high[i])
    solid = np.flatnonzero(closed & ~flat)
    if not len(solid):
        return wrong
    if len(solid) > MOST_PARTS:
        return wrong if (volume[solid] > 0).any() else np.isin(np.arange(count), solid) | wrong
    by_size = solid[np.argsort(-np.abs(volume[solid]), kind="stable")]
    around: dict[int, list[int]] = {}  # the closed patches that each lies in
    for n, i in enumerate(by_size.tolist()):
        bigger = by_size[:n]
        holds = bigger[((low[bigger] <= low[i]) & (high[bigger] >= high[i])).all(1)]
        probes = centred[parts[i][:: max(1, len(parts[i]) // 7), 0]]
        around[i] = [
            j for j in holds.tolist() if np.median(np.abs(_winding(centred, parts[j], probes))) > 0.5
        ]
    for i in by_size.tolist():  # from the outermost inwards
        sign = np.where(volume > 0, 1, -1) * np.where(wrong, -1, 1)
        outer = sum(int(sign[j]) for j in around[i])
        if around[i]:  # turned with what it lies in, as a cavity of a solid that was inside out
            parent = around[i][-1]
            wrong[i] = wrong[parent]
            sign[i] = (1 if volume[i] > 0 else -1) * (-1 if wrong[i] else 1)
        if outer + int(sign[i]) < 0:
            wrong[i] = not wrong[i]
    return wrong


def _closed(faces: Int[np.ndarray, "F 3"]) -> bool:
    """Every edge runs as often one way as the other."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    size = int(edges.max()) + 1
    return bool((np.sort(edges @ [size, 1]) == np.sort(edges @ [1, size])).all())


def _winding(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    used, index = np.unique(faces, return_inverse=True)
    part = np.ascontiguousarray(vertices[used]), np.ascontiguousarray(index.reshape(-1, 3), np.int64)
    return np.asarray(igl.fast_winding_number(*part, np.ascontiguousarray(points))).reshape(-1)


def _encloses_inwards(vertices: np.ndarray, faces: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether an open patch surrounds more points of its box with its front than with its back."""
    points = low + (high - low) * np.random.default_rng(0).random((300, 3))
    winding = _winding(vertices, faces, points)
    return int((winding < -0.5).sum()) > 3 + 2 * int((winding > 0.5).sum())


def oriented_mesh(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, list[str]]:
    """`turned_outwards` of a mesh; the same object where nothing is to be done."""
    faces, notes = turned_outwards(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces))
    return (trimesh.Trimesh(mesh.vertices, faces, process=False) if notes else mesh), notes
