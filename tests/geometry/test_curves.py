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
    level, truncation, bounds = 0.0, float("inf"), torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

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


def plain_winding(curves, points):
    """The crossings of every segment, one by one."""
    found = np.zeros(len(points))
    for curve in curves:
        for a, b in zip(curve, np.roll(curve, -1, 0), strict=True):
            y = points[:, 1]
            up, down = (a[1] <= y) & (b[1] > y), (a[1] > y) & (b[1] <= y)
            if a[1] != b[1]:
                right = a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1]) > points[:, 0]
                found += (up & right).astype(int) - (down & right).astype(int)
    return found


@pytest.mark.parametrize("sizes", [[3], [5, 4, 3, 3], [100, 1, 2, 33], [3] * 60, [257]])
def test_winding_is_that_of_counting_every_segment(rng, sizes):
    """Curves that cross themselves and each other, also with corners on a lattice and points level with
    them."""
    for curves in (
        [rng.normal(size=(n, 2)) for n in sizes],
        [rng.integers(0, 6, (n, 2)).astype(float) for n in sizes],
    ):
        points = np.concatenate(
            (rng.uniform(-2, 7, (300, 2)), rng.integers(-1, 7, (60, 2)) + np.array([0.37, 0]))
        )
        assert np.array_equal(winding_number(curves, points), plain_winding(curves, points))


def test_distance_to_parallel_lines_and_rays(rng):
    """Where the boxes of very many segments hold every point, the answer is that of each segment in turn."""
    n = 400
    x = np.arange(2 * n) / n
    comb = np.stack(
        (x + np.where(np.arange(2 * n) % 2, 3, -3), x - np.where(np.arange(2 * n) % 2, 3, -3)), -1
    )
    t = np.arange(2 * n) * np.pi / n
    rays = np.where(np.arange(2 * n) % 2, 0.01, 3.0)[:, None] * np.stack((np.cos(t), np.sin(t)), -1)
    points = rng.uniform(-3, 3, (200, 2))
    for curve in (comb, rays):
        a, b = curve, np.roll(curve, -1, 0)
        share = (((points[:, None] - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1)).clip(0, 1)
        nearest = np.linalg.norm(points[:, None] - a - share[..., None] * (b - a), axis=-1).min(1)
        assert np.allclose(np.abs(signed_distance([curve], points)), nearest, atol=1e-9)
        assert np.array_equal(signed_distance([curve], points) > 0, plain_winding([curve], points) != 0)
