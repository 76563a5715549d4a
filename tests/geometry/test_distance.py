"""Distances to meshes against analytic solids and a float64 brute force."""

import numpy as np
import pytest
import trimesh

from nif_cli.geometry.distance import MeshDistance


def brute_force(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Distance to every triangle: to its plane where the foot is inside, else to its edges. float64, [N]."""
    a, b, c = (mesh.triangles[:, k][None] for k in range(3))
    p = points[:, None]
    normal = np.cross(b - a, c - a)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    best = np.full((len(points), len(mesh.faces)), np.inf)
    inside = np.ones_like(best, bool)
    for u, v in ((a, b), (b, c), (c, a)):
        edge = v - u
        t = (((p - u) * edge).sum(-1) / (edge * edge).sum(-1)).clip(0, 1)
        best = np.minimum(best, np.linalg.norm(p - u - t[..., None] * edge, axis=-1))
        inside &= (np.cross(edge, p - u) * normal).sum(-1) >= 0
    plane = abs(((p - a) * normal).sum(-1))
    return np.where(inside, plane, best).min(1)


def without_cap(mesh: trimesh.Trimesh, height: float) -> trimesh.Trimesh:
    keep = mesh.triangles_center[:, 2] < height
    return trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False)


@pytest.mark.parametrize("cap", [None, 0.8])
def test_distance_equals_brute_force(rng, cap):
    """To 1e-6, on a closed mesh and near the rim of a hole alike."""
    mesh = trimesh.creation.icosphere(2)
    if cap is not None:
        mesh = without_cap(mesh, cap)
    points = np.concatenate([rng.uniform(-1.5, 1.5, (300, 3)), [0, 0, 1] + 0.2 * rng.normal(size=(100, 3))])
    found = MeshDistance(mesh.vertices, mesh.faces).distance(points)
    assert abs(found - brute_force(mesh, points)).max() < 1e-6


def test_signed_distance_of_a_box(rng):
    """Positive inside, negative outside, exact."""
    mesh = trimesh.creation.box((2.0, 1.0, 0.5))
    points = rng.uniform(-1.5, 1.5, (2000, 3))
    q = abs(points) - np.array([1.0, 0.5, 0.25])
    outside = np.linalg.norm(q.clip(0), axis=1) + q.max(1).clip(max=0)
    assert abs(MeshDistance(mesh.vertices, mesh.faces).signed(points) + outside).max() < 1e-6


def test_signed_distance_of_a_ball(rng):
    mesh = trimesh.creation.icosphere(5, 0.8)
    points = rng.uniform(-1, 1, (2000, 3))
    exact = 0.8 - np.linalg.norm(points, axis=1)
    # facets of the mesh
    assert abs(MeshDistance(mesh.vertices, mesh.faces).signed(points) - exact).max() < 1e-3


def test_signs_are_sensible_with_a_hole(rng):
    """A ball that lacks its top keeps its signs away from the hole, and its distances everywhere."""
    mesh = without_cap(trimesh.creation.icosphere(4), 0.9)
    points = rng.uniform(-1.4, 1.4, (3000, 3))
    points = points[np.linalg.norm(points - [0, 0, 1], axis=1) > 0.6]
    radius = np.linalg.norm(points, axis=1)
    points = points[abs(radius - 1) > 0.01]
    query = MeshDistance(mesh.vertices, mesh.faces)
    signed = query.signed(points)
    assert ((signed > 0) == (np.linalg.norm(points, axis=1) < 1)).all()
    assert np.array_equal(abs(signed), query.distance(points))


def test_winding_number_is_one_inside_and_zero_outside(rng):
    mesh = trimesh.creation.icosphere(3)
    points = rng.uniform(-2, 2, (500, 3))
    points = points[abs(np.linalg.norm(points, axis=1) - 1) > 0.1]
    w = MeshDistance(mesh.vertices, mesh.faces).winding_number(points)
    assert abs(w - (np.linalg.norm(points, axis=1) < 1)).max() < 0.02


def test_order_and_number_of_points_do_not_matter(rng):
    """Queries are reordered inside; the answers are not. None, one, and many points in one place are fine."""
    query = MeshDistance(*_arrays(trimesh.creation.icosphere(2)))
    points = rng.uniform(-1, 1, (400, 3))
    order = rng.permutation(400)
    assert np.array_equal(query.signed(points)[order], query.signed(points[order]))
    assert query.signed(np.empty((0, 3))).shape == (0,)
    assert np.allclose(query.signed(np.zeros((3, 3))), query.signed(np.zeros((1, 3)))[0])


def _arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)
