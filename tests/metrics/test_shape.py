"""Distances between shapes whose distances are known by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest


def test_nearest_is_exact(rng):
    from nif_cli.metrics.shape import nearest

    a, b = rng.random((300, 3)), rng.random((200, 3))
    table = np.linalg.norm(a[:, None] - b[None], axis=-1)
    distance, index = nearest(a, b)
    assert np.allclose(distance, table.min(1), atol=1e-12)
    assert (index == table.argmin(1)).all()


def test_nearest_of_a_hundred_thousand_takes_less_than_a_second(rng):
    from nif_cli.metrics.shape import nearest

    a, b = rng.random((100_000, 3)), rng.random((100_000, 3))
    nearest(a[:10], b)
    began = time.process_time()
    nearest(a, b)
    assert time.process_time() - began < 2.0  # of both cores together


def plane(height: float, rng) -> np.ndarray:
    return np.column_stack((rng.random((20_000, 2)), np.full(20_000, height)))


def test_two_parallel_planes(rng):
    from nif_cli.metrics.shape import surface_distances

    up = np.tile([0.0, 0.0, 1.0], (20_000, 1))
    d = surface_distances(plane(0.0, rng), plane(0.25, rng), up, -up)
    assert d.accuracy.mean() == pytest.approx(0.25, rel=1e-3)
    assert d.completeness.mean() == pytest.approx(0.25, rel=1e-3)
    assert d.accuracy_cosine is not None
    assert d.completeness_cosine is not None
    assert np.allclose(d.accuracy_cosine, 1)  # the absolute value: which side faces out does not count
    assert np.allclose(d.completeness_cosine, 1)
    assert d.f_score(0.3) == 1
    assert d.f_score(0.2) == 0


def test_f_score_is_the_harmonic_mean():
    from nif_cli.metrics.shape import SurfaceDistances

    d = SurfaceDistances(np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0]))
    assert d.f_score(0.5) == pytest.approx(2 * 0.75 * 0.5 / 1.25)


def test_iou():
    from nif_cli.metrics.shape import iou

    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(~a & a, ~a & a) == 1
