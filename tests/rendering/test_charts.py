"""Curves land where their values are."""

import numpy as np

from nif_cli.rendering.charts import COLOURS, chart


def test_a_falling_curve_falls():
    image = chart({"a": {0: 1.0, 1: 0.1, 10: 0.01}, "b": {0: 1.0, 10: 1.0}}, "steps", "error", 300, 200)
    assert image.shape == (200, 300, 3)
    columns = np.argwhere((image == COLOURS[0]).all(-1))
    inside = columns[(columns[:, 1] < 200) | (columns[:, 0] > 60)]  # not the name in the corner
    left, right = inside[inside[:, 1] < 90, 0].mean(), inside[inside[:, 1] > 260, 0].mean()
    assert right > left + 60  # rows count downwards


def test_what_has_no_logarithm_is_left_out():
    image = chart({"a": {0: float("nan"), 1: 0.0, 2: 0.5}, "b": {}}, "x", "y", 300, 200)
    assert (image != 255).any()
    assert chart({"a": {0: float("inf")}}, "x", "y", 30, 20).shape == (20, 30, 3)


def test_the_largest_and_the_smallest_numbers_have_a_place():
    image = chart({"a": {0: 1.7e308, 10**18: 5e-324}, "b": {3: 1e308}}, "x", "y", 300, 200)
    assert (image == COLOURS[0]).all(-1).any()
