"""Points in and around a surface: what a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from jaxtyping import Float, Int64


def sample_surface(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """`count` area-weighted points on the mesh, and the unit normals of their faces (float64)."""
    face, weights = sample_faces(mesh, count, rng)
    u, v = weights[:, 1:2], weights[:, 2:]
    a, b, c = mesh.triangles[face].transpose(1, 0, 2)
    edges = np.cross(b - a, c - a)
    normals = edges / np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-300)
    return a + u * (b - a) + v * (c - a), normals


def sample_faces(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "N"], Float[np.ndarray, "N 3"]]:
    """The faces of `count` area-weighted points on the mesh, and what each face's corners count there."""
    cumulative = np.cumsum(mesh.area_faces)
    face = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right").clip(
        max=len(cumulative) - 1
    )
    u, v = rng.random((2, count))
    flip = u + v > 1  # the square of (u, v) folded onto the triangle
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return face, np.stack((1 - u - v, u, v), -1)


def sample_around(
    surface: Float[np.ndarray, "M 3"],
    count: int,
    spread: Sequence[float],
    uniform: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "N 3"]:
    """Where distances are taken: `uniform` of the `count` points in the cube [-1, 1]^3, where meshes are
    extracted, the rest near `surface`, in equal parts displaced by normal noise of each standard deviation in
    `spread` (DeepSDF: variances 0.005 and 0.0005, 6 % uniform)."""
    # a network spends itself where it is asked: nearly all near the surface, some to keep the rest empty
    anywhere = round(uniform * count)
    near = surface[rng.integers(len(surface), size=count - anywhere)]
    sigma = np.asarray(spread)[np.arange(len(near)) % len(spread)][:, None]
    return np.concatenate([near + sigma * rng.normal(size=near.shape), rng.uniform(-1, 1, (anywhere, 3))])
