"""What is done to an extracted mesh: its largest part, fewer faces, vertices exactly on the surface, the
field's normals."""

from __future__ import annotations

import igl
import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nif_cli.field import Field, Signal, evaluate, gradient, value_and_gradient


def largest_part(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, int]:
    """The connected part with the largest area, and how many parts there were."""
    n, (a, b, c) = len(mesh.vertices), np.asarray(mesh.faces).T
    edges = coo_array(
        (np.ones(2 * len(a), bool), (np.concatenate((a, b)), np.concatenate((b, c)))), shape=(n, n)
    )
    label = connected_components(edges, directed=False)[1][a]
    area = np.bincount(label, np.asarray(mesh.area_faces))
    kept = np.asarray(mesh.faces)[label == area.argmax()]
    used, faces = np.unique(kept, return_inverse=True)
    return trimesh.Trimesh(mesh.vertices[used], faces.reshape(-1, 3), process=False), int((area > 0).sum())


def simplified(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """At most about `faces` triangles, by collapsing edges in the order of quadric errors (Garland and
    Heckbert 1997); a closed mesh stays closed, parts stay parts."""
    if len(mesh.faces) <= faces:
        return mesh
    vertices = np.asfortranarray(mesh.vertices, np.float64)
    made = igl.qslim(vertices, np.asfortranarray(mesh.faces, np.int32), faces)
    return trimesh.Trimesh(made[0], made[1], process=False)


def refined(
    field: Field,
    vertices: Float[np.ndarray, "V 3"],
    steps: int,
    reach: float,
    *,
    level: float | None = None,
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "V 3"]:
    """Vertices pulled onto the level set by Newton steps along the gradient; a step is taken where it brings
    the value closer to the level, and leads no vertex farther than `reach` from where it was. Vertices on the
    bounds stay there: what closes the surface is no part of the level set."""
    level = field.level if level is None else level
    start = torch.from_numpy(np.asarray(vertices, np.float32)).to(device)
    low, high = field.bounds.to(start)
    free = ((start > low + 1e-5 * (high - low)) & (start < high - 1e-5 * (high - low))).all(1, keepdim=True)
    points = start
    for _ in range(steps):
        value, slope = value_and_gradient(field, points)
        step = ((level - value) / slope.square().sum(1).clamp(min=1e-12))[:, None] * slope
        moved = points + step - start
        moved = start + moved * (reach / moved.norm(dim=1, keepdim=True).clamp(min=reach))
        # networks are no distances: where a Newton step leads away from the surface, the vertex stays
        better = (evaluate(field, moved) - level).abs() < (value - level).abs()
        points = torch.where(better[:, None] & free, moved, points)
    still = (points == start).all(1, keepdim=True).cpu().numpy()
    return np.where(still, vertices, points.double().cpu().numpy())


def field_normals(
    field: Field, vertices: Float[np.ndarray, "V 3"], device: torch.device | str = "cpu"
) -> Float[np.ndarray, "V 3"]:
    """Unit normals at vertices in normalised space, outwards: against the gradient (larger is more
    inside)."""
    slope = gradient(field, torch.from_numpy(np.asarray(vertices, np.float32)).to(device))
    return -torch.nn.functional.normalize(slope.double(), dim=1).cpu().numpy()


def vertex_colors(
    signal: Signal, vertices: Float[np.ndarray, "V 3"], device: torch.device | str = "cpu"
) -> UInt8[np.ndarray, "V 3"]:
    """sRGB of a coloured surface at vertices in normalised space, as bytes."""
    points = torch.from_numpy(np.asarray(vertices, np.float32)).to(device)
    with torch.no_grad():
        colors = [signal.color(part).clamp(0, 1) * 255 + 0.5 for part in points.split(2**16)]
    return torch.cat(colors).to(torch.uint8).cpu().numpy()
