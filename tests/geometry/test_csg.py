"""What composed fields promise: sides, distances where they say so, never more than the distance anywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nif_cli.geometry.csg import (
    Composed,
    ComposedSignal,
    difference,
    exact_sides,
    intersection,
    morph,
    offset,
    placed,
    shell,
    union,
)
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.far_reaching import far_reaching

TURN = torch.from_numpy(Rotation.from_euler("xyz", [20, 50, -30], degrees=True).as_matrix()).float()


class Box:
    """The signed distance of a box."""

    level, truncation = 0.0, math.inf
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def __init__(self, *half: float):
        self.half = torch.tensor(half)

    def value(self, points: torch.Tensor) -> torch.Tensor:
        beyond = points.abs() - self.half
        return -(beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0))


class Clamped:
    """What is known of a field up to `truncation`, and nonsense beyond."""

    def __init__(self, field, truncation: float):
        self.field, self.truncation, self.level, self.bounds = field, truncation, 0.3, field.bounds

    def value(self, points: torch.Tensor) -> torch.Tensor:
        value = self.field.value(points)
        return 0.3 + torch.where(
            value.abs() < self.truncation, value, value.sign() * (2 + points[..., 0].sin()) * self.truncation
        )


MADE = {
    "union": lambda a, b: union(a, b),
    "intersection": lambda a, b: intersection(a, b),
    "difference": lambda a, b: difference(a, b),
    "smooth_union": lambda a, b: union(a, b, 0.15),
    "smooth_intersection": lambda a, b: intersection(a, b, 0.15),
    "smooth_difference": lambda a, b: difference(a, b, 0.15),
    "offset": lambda a, b: offset(b, 0.08),
    "inset": lambda a, b: offset(b, -0.08),
    "shell": lambda a, b: shell(b, 0.1),
    "placed": lambda a, b: placed(b, 0.7, TURN, torch.tensor([0.2, -0.1, 0.3])),
    "morph": lambda a, b: morph(a, b, 0.4),
    "offset of a union": lambda a, b: offset(union(a, b), 0.08),
    "shell of a difference": lambda a, b: shell(difference(a, b), 0.06),
}
EXACT = {
    "union": "outside",
    "intersection": "inside",
    "difference": "inside",
    "offset": "outside",
    "inset": "inside",
    "shell": "outside",
    "placed": "inside outside",
    "offset of a union": "outside",
}


@pytest.mark.parametrize("name", MADE)
def test_values_are_distances_where_they_say_so_and_never_more(ball, name):
    """Against exact distances to a mesh of the composed surface itself."""
    field = MADE[name](ball(0.5, (0.25, 0.1, 0.0)), Box(0.45, 0.3, 0.2))
    assert field.exact == set(EXACT.get(name, "").split())
    mesh = extract_mesh(field, 100, sparse=False)
    assert mesh.is_watertight
    points = torch.rand(4000, 3) * 1.9 - 0.95
    true = torch.from_numpy(MeshDistance(mesh.vertices, mesh.faces).signed(points.numpy())).float()
    value = field.value(points)
    cell = 0.02  # marching cubes cuts the edges by less than that
    sure = true.abs() > cell
    assert torch.equal(value[sure] > 0, true[sure] > 0)
    assert (value.abs() - true.abs()).max() < 0.25 * cell
    for side in field.exact:
        error = (value - true).abs()[((true > 0) if side == "inside" else (true < 0)) & (true.abs() < 0.3)]
        assert error.max() < cell, side
        assert error.median() < 0.1 * cell, side


@pytest.mark.parametrize("name", MADE)
def test_the_slope_is_at_most_one(ball, name):
    """So that no step by the value can cross the surface, wherever it starts, and normals are numbers."""
    field = MADE[name](ball(0.5, (0.25, 0.1, 0.0)), Box(0.45, 0.3, 0.2))
    points = torch.rand(3000, 3) * 4 - 2
    points[:8] = torch.cartesian_prod(*torch.tensor([[-1.0, 1.0]] * 3))  # the corners of the bounds too
    points.requires_grad_(True)
    (slope,) = torch.autograd.grad(field.value(points).sum(), points)
    assert torch.isfinite(slope).all()
    inside = (points.detach().abs() < 1).all(-1)
    assert slope[inside].norm(dim=-1).max() < 1 + 1e-4
    assert (field.value(points)[~inside] < 0.1).all()


@pytest.mark.parametrize("blend", [0.0, 0.1])
def test_laws_of_sets(ball, blend):
    a, b, points = ball(0.5, (0.25, 0.0, 0.0)), Box(0.4, 0.4, 0.3), torch.rand(500, 3) * 2 - 1
    both, either = intersection(a, b, blend).value(points), union(a, b, blend).value(points)
    assert torch.allclose(both, intersection(b, a, blend).value(points))
    # the parabola comes and goes
    assert torch.allclose(either + both, a.value(points) + b.value(points), atol=1e-6)
    assert (union(a, b, blend).value(points) >= torch.maximum(a.value(points), b.value(points))).all()
    without = difference(a, b, blend).value(points)
    assert torch.allclose(without, -union(_not(a), b, blend).value(points), atol=1e-6)


def _not(field) -> Composed:
    return Composed(lambda p: -field.value(p), field.bounds, field.truncation, exact_sides(field))


def test_a_morph_goes_through_the_mean(ball):
    """Concentric balls have balls between them; the ends are the shapes themselves."""
    points = torch.rand(500, 3) * 2 - 1
    a, b = ball(0.3), ball(0.7)
    assert torch.allclose(morph(a, b, 0.25).value(points), ball(0.4).value(points), atol=1e-6)
    assert torch.equal(morph(a, b, 0.0).value(points), a.value(points))
    assert morph(a, b, 1.0).exact == {"inside", "outside"}
    assert not morph(a, b, 0.5).exact


def test_clamped_distances_are_cut_at_their_trust_and_measured_beyond(ball):
    exact, field = Box(0.5, 0.4, 0.3), Clamped(Box(0.5, 0.4, 0.3), 0.1)
    points = torch.rand(3000, 3) * 2 - 1
    true = exact.value(points)
    assert torch.allclose(union(field, field).value(points), true.clamp(-0.1, 0.1), atol=1e-6)
    far = far_reaching(field)
    assert far.truncation == math.inf
    error = (far.value(points) - true).abs()
    assert error[true.abs() < 0.03].max() < 1e-5
    assert error.max() < 0.02
    assert far_reaching(exact) is exact  # type: ignore[comparison-overlap]
    thick = offset(far, 0.3)
    assert abs(float(thick.value(torch.tensor([0.0, 0.0, 0.6])))) < 0.01


def test_a_shape_ends_where_its_bounds_do(ball):
    """A network says anything outside of the box that it learned: there is nothing there."""

    class Wild(ball):
        def value(self, points):
            return torch.where((points.abs() <= 1).all(-1), super().value(points), 5.0)

    field = union(placed(Wild(0.6), move=torch.tensor([1.5, 0.0, 0.0])), Wild(0.6))
    assert torch.allclose(field.bounds, torch.tensor([[-1.0, -1, -1], [2.5, 1, 1]]))
    mesh = extract_mesh(field, 64)
    parts = sorted(mesh.split(), key=lambda part: part.vertices[0, 0])
    assert len(parts) == 2
    for part, centre in zip(parts, ([0, 0, 0], [1.5, 0, 0]), strict=True):
        assert np.linalg.norm(part.vertices - centre, axis=1) == pytest.approx(0.6, abs=5e-3)


class Logits(Box):
    truncation = 0.0

    def value(self, points):
        return 50 * super().value(points)


def test_logits_have_sides_but_no_lengths(ball):
    a, b = Logits(0.5, 0.4, 0.3), ball(0.5)
    points = torch.rand(500, 3) * 2 - 1
    inside = (a.value(points) > 0, b.value(points) > 0)
    assert torch.equal(union(a, b).value(points) > 0, inside[0] | inside[1])
    assert torch.equal(difference(b, a).value(points) > 0, inside[1] & ~inside[0])
    assert union(a, b).truncation == 0
    assert not union(a, b).exact
    assert placed(a, 0.5).truncation == 0
    away = placed(a, 0.5).value(torch.tensor([[0.9, 0.9, 0.9]]))
    assert (away < 0).all()
    for make in (
        lambda: union(a, b, 0.1),
        lambda: offset(a, 0.1),
        lambda: shell(a, 0.1),
        lambda: morph(a, b, 0.5),
        lambda: far_reaching(a),
    ):
        with pytest.raises(ValueError, match="needs distances"):
            make()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda a: offset(a, 0.2), "below 0.1"),
        (lambda a: shell(a, -0.01), "at least 0"),
        (lambda a: union(a, a, 0.1), "below 0.1"),
        (lambda a: morph(a, a, 0.5), "below 0.1"),
        (lambda a: morph(far_reaching(a), far_reaching(a), 1.5), "between 0"),
        (lambda a: placed(a, -1.0), "positive"),
        (lambda a: intersection(a, placed(a, move=torch.tensor([3.0, 0, 0]))), "apart"),
        (lambda a: far_reaching(Clamped(Box(-1.0, -1, -1), 0.1)), "no surface"),
    ],
)
def test_what_cannot_be_is_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make(Clamped(Box(0.5, 0.4, 0.3), 0.1))


def test_colours_are_those_of_the_nearest_surface(ball):
    class Red(ball):
        def color(self, points, directions=None):
            return torch.tensor([1.0, 0, 0]).expand(*points.shape)

    class Blue(ball):
        def color(self, points, directions=None):
            return torch.tensor([0, 0, 1.0]).expand(*points.shape)

    a, b = Red(0.4), placed(Blue(0.8), 0.5, TURN, torch.tensor([0.5, 0.0, 0.0]))
    both = union(a, b)
    assert isinstance(both, ComposedSignal)
    colours = both.color(torch.tensor([[-0.4, 0.0, 0.0], [0.9, 0.0, 0.0]]))
    assert colours.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert not isinstance(union(a, ball(0.3)), ComposedSignal)
    assert far_reaching(a) is a  # type: ignore[comparison-overlap]
