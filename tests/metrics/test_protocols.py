"""Each protocol on shapes whose numbers can be had by hand: concentric spheres, in odd units, and nothing at
all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh

R, GAP, UNIT = 1.0, 0.1, 20.0  # radii of the spheres; the user's units are UNIT times as large


def sphere(radius: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(5, radius * UNIT)
    mesh.apply_translation([100, -50, 7])
    return mesh


def made(radius: float):
    from nif_cli.metrics.protocols import Reconstruction

    centre = np.array([100, -50, 7])
    return Reconstruction(sphere(radius), lambda p: np.linalg.norm(p - centre, axis=1) < radius * UNIT)


@pytest.fixture(scope="module")
def measured():
    from nif_cli.metrics.protocols import PROTOCOLS, Truth

    rng = np.random.default_rng(0)
    return {
        name: p.measure(made(R + GAP), Truth(sphere(R)), rng)
        for name, p in PROTOCOLS.items()
        if name != "srb"
    }


def nearest_of(points: int, area: float) -> float:
    """The mean squared distance from a point of a surface to the nearest of so many on it, at random."""
    return area / points / math.pi


def test_deepsdf_is_squared_and_summed_in_the_users_units(measured):
    # both ways the gap, and what points that are spread over a surface add to it
    area = 4 * math.pi * (R * UNIT) ** 2
    expected = 1e3 * (2 * (GAP * UNIT) ** 2 + 2 * nearest_of(30_000, area))
    assert measured["deepsdf"]["chamfer"] == pytest.approx(expected, rel=5e-3)


def test_onet_is_half_of_both_in_tenths_of_the_longest_edge(measured):
    m, gap = measured["onet"], GAP / (2 * R) * 10
    assert m["chamfer_l1"] == pytest.approx(gap, rel=5e-3)
    assert m["accuracy"] == pytest.approx(gap, rel=5e-3)
    assert m["completeness"] == pytest.approx(gap, rel=5e-3)
    assert m["chamfer_l2"] == pytest.approx(gap**2, rel=1e-2)
    assert m["normal_consistency"] == pytest.approx(1, abs=2e-3)
    assert m["iou"] == pytest.approx((R / (R + GAP)) ** 3, abs=0.01)


def test_convonet_has_f_scores_in_units_of_the_cube(measured):
    from nif_cli.metrics.protocols import PROTOCOLS, Truth

    assert measured["convonet"]["f_score@0.01"] == 0  # the gap is 0.05 of the longest edge
    near = PROTOCOLS["convonet"].measure(made(R * 1.03), Truth(sphere(R)), np.random.default_rng(0))
    assert near["f_score@0.01"] == 0  # 0.015 of the edge
    assert near["f_score@0.02"] == pytest.approx(1)


def test_srb_keeps_the_users_units():
    from nif_cli.metrics.protocols import PROTOCOLS, Truth

    close = 0.02
    scan = np.asarray(sphere(R).vertices)
    m, gap = (
        PROTOCOLS["srb"].measure(made(R + close), Truth(sphere(R), scan=scan), np.random.default_rng(0)),
        close * UNIT,
    )
    assert m["chamfer"] == pytest.approx(gap, rel=1e-2)
    # the largest hole between a million points adds to it
    assert m["hausdorff"] == pytest.approx(gap, rel=0.1)
    assert m["scan_chamfer"] == pytest.approx(gap, rel=1e-2)
    assert m["scan_hausdorff"] == pytest.approx(gap, rel=0.1)


def test_fourier_easy_and_hard(measured):
    # the box is that of the truth, and all of it that is outside the truth but inside the other is within the
    # gap
    easy, hard = measured["fourier"]["iou_easy"], measured["fourier"]["iou_hard"]
    rng = np.random.default_rng(1)
    r = np.linalg.norm(rng.uniform(-R, R, (400_000, 3)), axis=1)
    assert easy == pytest.approx((r < R).sum() / (r < R + GAP).sum(), abs=0.01)
    # noise of 0.01 stays within the gap: all are inside, half of them truly
    assert hard == pytest.approx(0.5, abs=0.02)


def test_two_way_is_in_the_unit_ball_of_the_reference(measured):
    assert measured["two_way"]["distance"] == pytest.approx(GAP / 1.03, rel=5e-3)


def test_the_same_mesh_is_perfect_but_for_sampling():
    from nif_cli.metrics.protocols import PROTOCOLS, Truth

    names = [n for n in PROTOCOLS if n != "srb"]
    m = {n: PROTOCOLS[n].measure(made(R), Truth(sphere(R)), np.random.default_rng(0)) for n in names}
    assert m["two_way"]["distance"] == pytest.approx(0, abs=1e-6)
    assert m["onet"]["iou"] == pytest.approx(1, abs=5e-3)
    assert m["convonet"]["f_score@0.01"] == pytest.approx(1, abs=1e-3)
    assert m["deepsdf"]["chamfer"] == pytest.approx(
        1e3 * 2 * nearest_of(30_000, 4 * math.pi * UNIT**2), rel=0.05
    )


def test_an_empty_mesh_counts_as_each_protocol_says():
    from nif_cli.metrics.protocols import PROTOCOLS, Reconstruction, Truth

    nothing = Reconstruction(None, lambda p: np.zeros(len(p), bool))
    m = {n: p.measure(nothing, Truth(sphere(R)), np.random.default_rng(0)) for n, p in PROTOCOLS.items()}
    assert m["onet"]["chamfer_l1"] == pytest.approx(10 * math.sqrt(3))
    assert m["onet"]["iou"] == 0
    assert m["onet"]["normal_consistency"] is None
    assert m["convonet"]["f_score@0.01"] == 0
    assert m["fourier"]["iou_easy"] == 0
    assert all(v is None for n in ("deepsdf", "srb", "two_way") for v in m[n].values())  # excluded


def test_a_truth_that_is_missing_leaves_its_metric_out():
    from nif_cli.metrics.protocols import PROTOCOLS, Truth

    cloud = Truth(surface=np.asarray(sphere(R).vertices))
    m = PROTOCOLS["onet"].measure(made(R), cloud, np.random.default_rng(0))
    assert m["iou"] is None
    assert m["normal_consistency"] is None
    assert m["chamfer_l1"] is not None
    assert m["chamfer_l1"] < 0.1
    assert PROTOCOLS["fourier"].measure(made(R), cloud, np.random.default_rng(0)) == {
        "iou_easy": None,
        "iou_hard": None,
    }


def test_stored_points_decide_the_iou():
    from nif_cli.metrics.protocols import PROTOCOLS, Truth

    centre = np.array([100, -50, 7])
    points = centre + UNIT * np.array([[0, 0, 0], [0.5, 0, 0], [1.05, 0, 0], [2.0, 0, 0]])
    truth = Truth(sphere(R), points=points, inside=np.array([True, False, True, False]))
    # the reconstruction holds the first two; the third is inside by the stored truth, and not in the mesh
    assert PROTOCOLS["onet"].measure(made(R), truth, np.random.default_rng(0))["iou"] == pytest.approx(1 / 3)
