"""Laws of polygons: the triangles cover the polygon and nothing else, wherever it starts."""

from pathlib import Path

import numpy as np
import pytest

from nif_cli import NifError
from nif_cli.geometry.polygons import Polygons, triangles


def loop(n: int, rng: np.random.Generator) -> np.ndarray:
    """A star-shaped polygon, turned and moved in space."""
    angle, radius = np.sort(rng.random(n)) * 2 * np.pi, rng.uniform(0.2, 1, n)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.c_[radius * np.cos(angle), radius * np.sin(angle), np.zeros(n)] @ rotation.T + rng.normal(
        size=3
    )


def vector_area(points: np.ndarray) -> np.ndarray:
    return np.cross(points, np.roll(points, -1, 0)).sum(0) / 2


@pytest.mark.parametrize("n", [4, 5, 6, 9, 40])
def test_triangles_have_the_area_of_the_polygon_wherever_it_starts(n):
    rng = np.random.default_rng(n)
    for start in range(n):
        points = loop(n, rng)
        given = Polygons(points, np.roll(np.arange(n), start), np.array([n]))
        faces = triangles(given, Path("x.obj"))
        crosses = (
            np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]) / 2
        )
        assert len(faces) == n - 2
        assert np.allclose(crosses.sum(0), vector_area(points - points[0]), atol=1e-9)
        assert np.linalg.norm(crosses, axis=1).sum() == pytest.approx(
            np.linalg.norm(vector_area(points - points[0])), rel=1e-9
        )
        assert not given.notes


def test_corners_on_a_straight_side_are_kept_so_neighbours_meet():
    points = np.array(
        [[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 1, 0], [1, 1, 0], [1, 2, 0], [0, 2, 0], [0, 1, 0]], float
    )
    faces = triangles(Polygons(points, np.arange(8), np.array([8])), Path("x.obj"))
    edges = {tuple(e) for e in faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).tolist()}
    assert {(i, (i + 1) % 8) for i in range(8)} <= edges


def test_what_cannot_be_done_in_time_is_refused_and_corners_that_are_no_vertices_too():
    n = 50_000
    many = Polygons(np.c_[np.random.default_rng(0).random((n, 2)), np.zeros(n)], np.arange(n), np.array([n]))
    with pytest.raises(NifError, match=r"x\.obj: polygons of 50,000 corners"):
        triangles(many, Path("x.obj"))
    for corner in (3, -1):
        with pytest.raises(NifError, match=rf"x\.obj: face 2 names vertex {corner}, and there are 3"):
            triangles(Polygons(np.eye(3), np.array([0, 1, 2, 0, 1, corner]), np.array([3, 3])), Path("x.obj"))
