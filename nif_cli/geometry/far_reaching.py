"""Distances that go on where a field's own end: what morphs, and blends wider than the truncation, need."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.field import Field, Signal
from nif_cli.geometry.csg import Composed, ComposedSignal, check_lengths, exact_sides, values_anywhere
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.extraction import extract_mesh


def far_reaching(
    field: Field, over: Float[Tensor, "2 3"] | None = None, device: torch.device | str = "cpu"
) -> Field:
    """The field itself where its values are distances all `over` a box (by default its bounds); else one that
    goes on where `truncation` or the bounds end, with distances to its own surface: measured exactly from a
    mesh of it at the nodes of a coarse grid, interpolated between them.

    ValueError where the values are no distances at all, or where there is no surface.
    """
    truncation, bounds = field.truncation, field.bounds
    box = (
        bounds
        if over is None
        else torch.stack((torch.minimum(bounds[0], over[0]), torch.maximum(bounds[1], over[1])))
    )
    if math.isinf(truncation) and torch.equal(box, bounds):
        return field
    check_lengths("this", 0, field)
    mesh = extract_mesh(field, 96, device=device)
    if len(mesh.faces) == 0:
        raise ValueError("there is no surface to measure from")
    low, high = box.double().cpu()
    cell = min(float((high - low).max()) / 40, truncation / 1.5)
    counts = [min(65, math.ceil(float(side) / cell) + 1) for side in high - low]
    axes = [torch.linspace(float(a), float(b), n) for a, b, n in zip(low, high, counts, strict=True)]
    distance = MeshDistance(np.asarray(mesh.vertices), mesh.faces).signed(
        torch.cartesian_prod(*axes).double().numpy()
    )
    grid = torch.from_numpy(distance).float().reshape(1, 1, *counts).to(device)
    own, centre, half = values_anywhere(field), (0.5 * (low + high)).float(), (0.5 * (high - low)).float()

    # the mean over a cell, by Gauss's rule: a quadratic spline in place of facets
    spread = (
        torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
        * ((high - low) / (torch.tensor(counts) - 1) / 12**0.5).float()
    )

    def value_at(points: Tensor) -> Tensor:
        where = (points.reshape(-1, 1, 3) + spread.to(points) - centre.to(points)) / half.to(points)
        where = where.flip(-1)[None, :, :, None]
        far = torch.nn.functional.grid_sample(
            grid.to(points), where, padding_mode="border", align_corners=True
        )
        far = far.reshape(-1, 8).mean(-1).reshape(points.shape[:-1])
        inner, outer = bounds.to(points)
        share = ((points >= inner) & (points <= outer)).all(-1).to(far)
        if math.isfinite(truncation):
            # its own values up to 0.7 of what it knows, measured ones from 0.95 on, blended in between
            share = share * ((0.95 * truncation - far.abs()) / (0.25 * truncation)).clamp(0, 1)
        return torch.lerp(far, own(points), share)

    if isinstance(field, Signal):
        return ComposedSignal(value_at, box, math.inf, exact_sides(field), color_at=field.color)
    return Composed(value_at, box, math.inf, exact_sides(field))
