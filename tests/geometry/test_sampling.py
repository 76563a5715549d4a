"""Samples of surfaces follow area; samples around them follow their spreads."""

import numpy as np
import pytest
import trimesh

from nif_cli.geometry.sampling import sample_around, sample_surface


def test_points_lie_on_the_surface_with_outward_normals(rng):
    mesh = trimesh.creation.icosphere(3)
    points, normals = sample_surface(mesh, 2000, rng)
    assert points.shape == normals.shape == (2000, 3)
    radius = np.linalg.norm(points, axis=1)
    assert (radius <= 1 + 1e-12).all()
    assert radius.min() > 0.99  # facets lie a little inside the ball
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    assert ((normals * points).sum(1) > 0.99).all()


def test_points_are_weighted_by_area(rng):
    """A face of nine times the area gets nine times the points; a face without area gets none."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 3, 5]], float)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 0, 1], [3, 4, 5]], process=False)
    points, normals = sample_surface(mesh, 20_000, rng)
    share = (points[:, 2] > 2).mean()
    assert abs(share - 0.9) < 5 * np.sqrt(0.9 * 0.1 / 20_000)
    assert np.allclose(normals, [0, 0, 1])


def test_points_are_uniform_on_a_triangle(rng):
    """Barycentric coordinates of a uniform point have mean 1/3 and variance 1/18, each."""
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    points, _ = sample_surface(mesh, 40_000, rng)
    bary = np.stack([points[:, 0], points[:, 1], 1 - points[:, 0] - points[:, 1]], 1)
    assert bary.min() >= -1e-12
    assert abs(bary.mean(0) - 1 / 3).max() < 5 * np.sqrt(1 / 18 / 40_000)
    assert abs(bary.var(0) - 1 / 18).max() < 2e-3


def test_sampling_is_a_function_of_the_generator():
    mesh = trimesh.creation.box()
    a, b = (sample_surface(mesh, 50, np.random.default_rng(3))[0] for _ in range(2))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("uniform", [0.0, 0.25, 1.0])
def test_part_of_the_points_is_anywhere_in_the_cube(rng, uniform):
    surface = np.full((1, 3), 7.0)  # far from the cube: the two kinds cannot be confused
    points = sample_around(surface, 1000, [0.01], uniform, rng)
    assert points.shape == (1000, 3)
    anywhere = (abs(points) <= 1).all(1)
    assert anywhere.sum() == round(1000 * uniform)


def test_spreads_have_equal_parts(rng):
    points = sample_around(np.zeros((1, 3)), 40_000, [0.1, 0.001], 0.0, rng)
    # half of the points have each standard deviation: the variance is the mean of theirs
    assert points.var() == pytest.approx((0.1**2 + 0.001**2) / 2, rel=0.05)
    assert (np.linalg.norm(points, axis=1) < 0.006).mean() == pytest.approx(0.5, abs=0.02)
