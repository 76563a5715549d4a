"""Faces of any number of corners, as files have them, and the triangles that cover them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import manifold3d
import numpy as np
from jaxtyping import Float, Int

from nif_cli import NifError

MOST_CORNERS = 10_000  # of a polygon that is not convex: clipping ears takes the square of it, 1.5 s here
MOST_WORK = 2e9  # the squares of such polygons' corners, added up: half a minute
FLAT = 1e-3  # of a polygon's size: what lies further from its best plane is said


@dataclass
class Polygons:
    """What a file holds: vertices, the corners of all faces in a row, and how many each face has. `single`:
    positions are float32. `places` says where in the file a face stands, for messages; `notes` what is to be
    said of the reading."""

    vertices: Float[np.ndarray, "V 3"]
    corners: Int[np.ndarray, "C"]
    sizes: Int[np.ndarray, "F"]
    single: bool = False
    places: list[int] | None = None
    notes: list[str] = field(default_factory=list)


def triangles(given: Polygons, path: Path) -> Int[np.ndarray, "T 3"]:
    """The faces as triangles, each polygon covered by triangles inside itself, wound as it is. Convex ones
    are fans, others are clipped in their best plane; every corner is kept, so that neighbours still meet edge
    to edge. NifError for corners that are no vertices of the file. Polygons that are not flat are said in
    `notes`."""
    sizes, corners = np.asarray(given.sizes, np.int64), np.asarray(given.corners, np.int64)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])) if len(sizes) else np.zeros(0, np.int64)
    count = len(given.vertices)
    wrong = np.flatnonzero((corners < 0) | (corners >= count))
    if len(wrong):
        face = int(np.searchsorted(starts, wrong[0], side="right")) - 1
        place = f" (line {given.places[face]})" if given.places else ""
        more = f"; {len(wrong):,} such corners in all" if len(wrong) > 1 else ""
        raise NifError(
            f"{path}: face {face + 1}{place} names vertex {corners[wrong[0]]}, and there are {count} (0 to "
            f"{count - 1}){more}"
        )
    parts, order = [], []
    bent, crossed = 0, 0
    for n in np.unique(sizes[sizes >= 3]).tolist():
        which = np.flatnonzero(sizes == n)
        loops = corners[starts[which][:, None] + np.arange(n)]
        if n == 3:
            made = loops[:, None]
        else:
            made, uneven, selfcrossing = _cover(given.vertices, loops, path)
            bent += uneven
            crossed += selfcrossing
        parts.append(made.reshape(-1, 3))
        order.append(np.repeat(which, n - 2))
    if bent:
        given.notes.append(f"{bent:,} polygons are not flat: triangulated in their best planes")
    if crossed:
        given.notes.append(f"{crossed:,} polygons cross themselves: their triangles overlap")
    if not parts:
        return np.empty((0, 3), np.int64)
    return np.concatenate(parts)[np.argsort(np.concatenate(order), kind="stable")]


def _cover(
    vertices: np.ndarray, loops: Int[np.ndarray, "P N"], path: Path
) -> tuple[Int[np.ndarray, "P T 3"], int, int]:
    """Triangles of polygons of N corners each, how many polygons are not flat, and how many cross
    themselves."""
    n = loops.shape[1]
    fan = np.stack([np.zeros(n - 2, np.int64), np.arange(1, n - 1), np.arange(2, n)], 1)  # [N - 2, 3]
    made = np.empty((len(loops), n - 2, 3), np.int64)
    bent = crossed = 0
    work = 0.0
    step = max(1, 2**20 // n)
    for first in range(0, len(loops), step):  # a block at a time: [P, N, 3] of a large file would not fit
        block = loops[first : first + step]
        with np.errstate(all="ignore"):
            points = vertices[block] - vertices[block[:, :1]]  # from a corner: exact far from the origin
            crosses = np.cross(points[:, 1:-1], points[:, 2:])
            normal = crosses.sum(1)
            length = np.linalg.norm(normal, axis=1, keepdims=True)
            normal = normal / np.maximum(length, 1e-300)
            convex = ((crosses * normal[:, None]).sum(-1) > 1e-9 * length).all(1)
            size = np.abs(points).max((1, 2))
            away = np.abs(((points - points.mean(1, keepdims=True)) * normal[:, None]).sum(-1)).max(1)
        bent += int((away > FLAT * size).sum()) if n > 4 else int(((away > FLAT * size) & ~convex).sum())
        made[first : first + step] = block[:, fan]
        for row in np.flatnonzero(~convex & np.isfinite(length[:, 0]) & (length[:, 0] > 0)).tolist():
            work += n**2
            if n > MOST_CORNERS or work > MOST_WORK:
                raise NifError(
                    f"{path}: polygons of {n:,} corners that are not convex: more than can be cut into "
                    f"triangles here (at most {MOST_CORNERS:,} corners each); triangulate the mesh first"
                )
            x = np.eye(3)[np.abs(normal[row]).argmin()]
            x = np.cross(x, normal[row])
            x /= np.linalg.norm(x)
            flat = points[row] @ np.stack((x, np.cross(normal[row], x)), 1) / size[row]
            cut = np.asarray(manifold3d.triangulate([np.ascontiguousarray(flat)]), np.int64)
            if len(cut) != n - 2:
                continue  # it stays a fan
            a, b, c = flat[cut].transpose(1, 0, 2)
            doubled = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
            crossed += bool(np.abs(doubled).sum() > (1 + 1e-6) * length[row, 0] / size[row] ** 2)
            made[first + row] = block[row][cut]
    return made, bent, crossed
