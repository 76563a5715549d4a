"""New fields from fields: set operations, smooth blends, offsets, shells, placement, and the way from one
shape to another.

What stays a distance. Every operation here keeps a slope of at most 1, so the value never exceeds the
distance to the surface: it is safe to step by and to leave space out by. Where it is the distance itself, to
the surface that it has then (`exact`):

    union                    outside, if it was outside in all of them
    intersection             inside, if it was inside in all of them
    difference a - b         inside, if it was inside in a and outside in b
    offset outwards          outside, if it was outside          (inwards: inside, if it was inside)
    shell                    outside (and in the hollow), if it was on both sides
    placement                wherever it was
    smooth blends, morphs    nowhere

Values that are no distances (truncation 0: logits, densities) have unions, intersections, differences and
places, which ask for sides alone; the rest needs lengths and raises ValueError. Distances that end at
`truncation` are measured beyond it: far_reaching.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.field import Field, Signal

BOTH = frozenset(("inside", "outside"))


@dataclass
class Composed:
    """A Field of other Fields' values; its level is 0."""

    value_at: Callable[[Tensor], Tensor]  # [..., 3] -> [...]
    bounds: Tensor
    truncation: float
    # on which sides |value| is the distance itself, up to `truncation`; elsewhere it is less
    exact: frozenset[str]
    level: float = 0.0

    def value(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        return self.value_at(points)


@dataclass
class ComposedSignal(Composed):
    """The same of Fields that have colours."""

    color_at: Callable[[Tensor, Tensor | None], Tensor] | None = None

    def color(
        self, points: Float[Tensor, "*batch 3"], directions: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        assert self.color_at is not None
        return self.color_at(points, directions)


def exact_sides(field: Field) -> frozenset[str]:
    """Where the values of any Field are distances: by its own word, or by its truncation."""
    return field.exact if isinstance(field, Composed) else BOTH if field.truncation > 0 else frozenset()


def values_anywhere(field: Field) -> Callable[[Tensor], Tensor]:
    """value - level, anywhere in space: cut at +-truncation, beyond which it means nothing; outside the
    field's bounds, where nothing was learned, from the nearest point q of the box: all of the surface is at
    least sqrt(|p - q|^2 + value(q)^2) away."""
    level, truncation, bounds = field.level, field.truncation, field.bounds

    def value_at(points: Tensor) -> Tensor:
        box = bounds.to(points)
        nearest = torch.minimum(torch.maximum(points, box[0]), box[1])
        value = field.value(nearest) - level
        if math.isfinite(truncation) and truncation > 0:
            value = value.clamp(-truncation, truncation)
        away = (points - nearest).square().sum(-1)
        beyond = away > 0
        if not beyond.any():
            return value
        # for s in the box, |p - s|^2 >= |p - q|^2 + |q - s|^2: in a convex box the angle at q is not acute
        squared = away + value.clamp(max=0).square() if truncation > 0 else away
        outside = -torch.where(beyond, squared, 1.0).sqrt()
        if truncation == 0:  # no length, only a side
            outside = torch.minimum(outside, value)
        return torch.where(beyond, outside.clamp(min=-truncation) if truncation > 0 else outside, value)

    return value_at


def _composed(
    fields: Sequence[Field],
    join: Callable[[list[Tensor]], Tensor],
    bounds: Tensor,
    truncation: float,
    exact: frozenset[str],
) -> Composed:
    """`join` of the values; the colour is that of the field whose own surface is nearest."""
    values = [values_anywhere(f) for f in fields]

    def value_at(points: Tensor) -> Tensor:
        return join([v(points) for v in values])

    if not all(isinstance(f, Signal) for f in fields):
        return Composed(value_at, bounds, truncation, exact)

    def color_at(points: Tensor, directions: Tensor | None) -> Tensor:
        nearest = torch.stack([v(points).abs() for v in values]).argmin(0)
        colors = torch.stack([f.color(points, directions) for f in fields])  # type: ignore[attr-defined]
        return torch.gather(colors, 0, nearest[None, ..., None].expand(1, *colors.shape[1:]))[0]

    return ComposedSignal(value_at, bounds, truncation, exact, color_at=color_at)


def check_lengths(what: str, length: float, *fields: Field) -> None:
    """ValueError unless the values of all fields are distances, up to `length` and a little more."""
    truncation = min(f.truncation for f in fields)
    if truncation == 0:
        raise ValueError(f"{what} needs distances, and these values (of an occupancy or a density) are none")
    if not 0 <= length < truncation:
        raise ValueError(
            f"{what}={length:g}: must be at least 0 and below {truncation:g}, where these distances end"
        )


def _larger(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """The larger of two; within `blend` of each other a parabola (Quilez's smooth minimum), at most blend / 4
    larger still."""
    if blend == 0:
        return torch.maximum(a, b)
    return torch.maximum(a, b) + (blend - (a - b).abs()).clamp(min=0).square() / (4 * blend)


def hull(a: Field, b: Field) -> Float[Tensor, "2 3"]:
    """The box around the bounds of both."""
    return torch.stack((torch.minimum(a.bounds[0], b.bounds[0]), torch.maximum(a.bounds[1], b.bounds[1])))


def union(a: Field, b: Field, blend: float = 0.0) -> Composed:
    """What is in a or b. `blend`: the width over which both flow into each other, in units of length."""
    if blend:
        check_lengths("blend", blend, a, b)
    # how far the blend can stand out
    box = hull(a, b) + torch.tensor([[-0.25 * blend], [0.25 * blend]]).to(a.bounds)
    exact = exact_sides(a) & exact_sides(b) & {"outside"}
    return _composed(
        (a, b),
        lambda v: _larger(v[0], v[1], blend),
        box,
        min(a.truncation, b.truncation),
        frozenset() if blend else exact,
    )


def intersection(a: Field, b: Field, blend: float = 0.0) -> Composed:
    """What is in a and in b; ValueError where their bounds have nothing in common."""
    if blend:
        check_lengths("blend", blend, a, b)
    box = torch.stack((torch.maximum(a.bounds[0], b.bounds[0]), torch.minimum(a.bounds[1], b.bounds[1])))
    if not (box[0] < box[1]).all():
        raise ValueError("nothing is in both shapes: they are apart")
    exact = exact_sides(a) & exact_sides(b) & {"inside"}
    return _composed(
        (a, b),
        lambda v: -_larger(-v[0], -v[1], blend),
        box,
        min(a.truncation, b.truncation),
        frozenset() if blend else exact,
    )


def difference(a: Field, b: Field, blend: float = 0.0) -> Composed:
    """What is in a but not in b."""
    if blend:
        check_lengths("blend", blend, a, b)
    exact = (
        frozenset(("inside",)) if "inside" in exact_sides(a) and "outside" in exact_sides(b) else frozenset()
    )
    return _composed(
        (a, b),
        lambda v: -_larger(-v[0], v[1], blend),
        a.bounds,
        min(a.truncation, b.truncation),
        frozenset() if blend else exact,
    )


def morph(a: Field, b: Field, share: float) -> Composed:
    """The shape on the way from a (share 0) to b (share 1) by the weighted mean of their distances, which
    must reach as far as the shapes are apart: truncation inf (see far_reaching), else a ValueError."""
    if not 0 <= share <= 1:
        raise ValueError(f"share={share:g}: must be between 0 (the first shape) and 1 (the second)")
    for field in (a, b):
        if math.isfinite(field.truncation):
            check_lengths("morph", math.inf, field)
    box = hull(a, b)
    exact = exact_sides(a) if share == 0 else exact_sides(b) if share == 1 else frozenset()
    return _composed((a, b), lambda v: torch.lerp(v[0], v[1], share), box, math.inf, exact)


def offset(field: Field, by: float) -> Composed:
    """The surface moved outwards by a distance, or inwards (`by` < 0). Where the field is less than the
    distance on that side, it moves farther."""
    check_lengths("offset", abs(by), field)
    box = field.bounds + torch.tensor([[-1.0], [1.0]]).to(field.bounds) * max(by, 0.0)
    exact = exact_sides(field) & {"outside" if by > 0 else "inside"} if by else exact_sides(field)
    return _composed((field,), lambda v: v[0] + by, box, field.truncation - abs(by), exact)


def shell(field: Field, thickness: float) -> Composed:
    """A wall of this thickness inside of the surface; the rest of the inside becomes hollow."""
    check_lengths("shell", thickness, field)
    exact = frozenset(("outside",)) if exact_sides(field) == BOTH else frozenset()
    return _composed(
        (field,),
        lambda v: torch.minimum(v[0], thickness - v[0]),
        field.bounds,
        field.truncation - thickness,
        exact,
    )


def placed(
    field: Field,
    scale: float = 1.0,
    rotation: Float[Tensor, "3 3"] | None = None,
    move: Float[Tensor, "3"] | None = None,
) -> Composed:
    """The field of the shape at scale R x + move, in that order; its distances and `truncation` grow with
    it."""
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale={scale:g}: must be positive")
    turn = torch.eye(3) if rotation is None else rotation
    shift = torch.zeros(3) if move is None else move
    corners = torch.cartesian_prod(*field.bounds.cpu().T) @ (scale * turn).T + shift
    box = torch.stack((corners.amin(0), corners.amax(0))).to(field.bounds)
    values, grown = values_anywhere(field), scale if field.truncation > 0 else 1.0

    def undone(points: Tensor) -> Tensor:
        # the rotation's transpose is its inverse
        return (points - shift.to(points)) @ turn.to(points) / scale

    def value_at(points: Tensor) -> Tensor:
        return grown * values(undone(points))

    if not isinstance(field, Signal):
        return Composed(value_at, box, grown * field.truncation, exact_sides(field))

    def color_at(points: Tensor, directions: Tensor | None) -> Tensor:
        return field.color(undone(points), None if directions is None else directions @ turn.to(directions))

    return ComposedSignal(value_at, box, grown * field.truncation, exact_sides(field), color_at=color_at)
