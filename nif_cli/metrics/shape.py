"""How close two shapes are."""

from __future__ import annotations

import numpy as np
import trimesh
from jaxtyping import Bool

from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.mesh import unit_ball
from nif_cli.geometry.sampling import sample_surface


def two_way_distance(mesh: trimesh.Trimesh, reference: trimesh.Trimesh, samples: int = 100_000, seed: int = 0) -> float:
    """The mean of both mean distances: from `samples` area-weighted points on each mesh, exactly, to the other's triangles;
    in the reference's unit ball (its farthest vertex at 1/1.03). Both meshes in the same units. inf if either is empty."""
    if not len(mesh.faces) or not len(reference.faces):
        return float("inf")
    transform = unit_ball(np.asarray(reference.vertices))
    rng = np.random.default_rng(seed)
    a, b = (trimesh.Trimesh(transform.to_normalised(m.vertices), m.faces, process=False) for m in (mesh, reference))
    there = MeshDistance(b.vertices, b.faces).distance(sample_surface(a, samples, rng)[0]).mean()
    back = MeshDistance(a.vertices, a.faces).distance(sample_surface(b, samples, rng)[0]).mean()
    return float(there + back) / 2


def iou(a: Bool[np.ndarray, "N"], b: Bool[np.ndarray, "N"]) -> float:
    """Volume intersection over union of two occupancies at the same, uniform points; 1 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
