"""Curves of the plane: exact distances, signs, and the way there and back."""

import numpy as np
import pytest
import torch

from nif_cli.geometry.curves import extract_curves, level_set, signed_distance, svg, winding_number

SQUARE = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])


def test_distance_of_a_square(rng):
    points = rng.uniform(-2, 2, (500, 2))
    beyond = np.abs(points) - 1
    outside = np.linalg.norm(beyond.clip(0), axis=1)
    expected = np.where(outside > 0, -outside, -beyond.max(1))
    assert np.allclose(signed_distance([SQUARE], points), expected, atol=1e-9)


def test_a_hole_runs_the_other_way():
    inner = 0.5 * SQUARE[::-1]
    points = np.array([[0.0, 0], [0.75, 0], [2, 0]])
    assert np.array_equal(winding_number([SQUARE, inner], points) != 0, [False, True, False])
    assert np.allclose(signed_distance([SQUARE, inner], points), [-0.5, 0.25, -1])


class Disc:
    level, trust, bounds = 0.0, float("inf"), torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

    def value(self, points):
        return 0.6 - (points - torch.tensor([0.1, -0.2])).norm(dim=-1)


def test_a_disc_comes_back_at_its_place():
    (curve,) = extract_curves(Disc(), 101)
    assert np.linalg.norm(curve - [0.1, -0.2], axis=1) == pytest.approx(0.6, abs=1e-3)
    assert np.abs(winding_number([curve], np.array([[0.1, -0.2]]))) == 1


def test_what_leaves_the_grid_is_closed():
    (curve,) = level_set(np.ones((3, 4)), 0.5)
    assert len(curve) >= 4
    assert np.abs(winding_number([curve], np.array([[1.0, 1.0]]))) == 1
    assert level_set(np.zeros((3, 3)), 0.5) == []


def test_svg_of_nothing_is_still_svg():
    assert "<svg" in svg([])
    assert 'd="M-1,-1 L1,-1 L1,1 L-1,1 Z"' in svg([SQUARE])
