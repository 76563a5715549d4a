"""Light on what rays hit: ambient occlusion and soft shadows, from a coarse grid of distances, without asking
the network."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.sphere_tracing import Hits


def occlusion(hits: Hits, empty: EmptySpace, reach: float = 0.3, samples: int = 6) -> Float[Tensor, "R"]:
    """How open the surroundings are, 0 to 1: distances ahead of the surface, up to `reach` along its normal,
    against what they would be over a plane (Evans 2006)."""
    light = torch.ones_like(hits.depth)
    points, normals = hits.points[hits.hit], hits.normals[hits.hit]
    hidden, weights = torch.zeros(len(points), device=points.device), 0.0
    for k in range(1, samples + 1):
        height, weight = reach * k / samples, 0.8**k
        hidden += weight * (1 - empty.distance(points + height * normals) / height).clamp(0, 1)
        weights += weight
    light[hits.hit] = 1 - hidden / weights
    return light


def shadow(
    hits: Hits, empty: EmptySpace, light: Float[Tensor, "R 3"], sharpness: float = 6.0, steps: int = 40
) -> Float[Tensor, "R"]:
    """How much of a light in unit directions `light` arrives, 0 to 1: soft, by how closely the way to it
    passes other parts (Quilez 2010). Surfaces that face away get none of it anyhow and are left out."""
    arrives = torch.ones_like(hits.depth)
    chosen = torch.nonzero(hits.hit & ((hits.normals * light).sum(-1) > 0))[:, 0]
    start = 2.5 * float(empty.cell.max())  # nearer, the grid would let the surface shade itself
    origins, directions = hits.points[chosen] + 0.5 * start * hits.normals[chosen], light[chosen]
    t, seen = (
        torch.full((len(chosen),), start, device=chosen.device),
        torch.ones(len(chosen), device=chosen.device),
    )
    for _ in range(steps):
        points = origins + t[:, None] * directions
        distance = empty.distance(points)
        within = ((points >= empty.low) & (points <= empty.high)).all(-1)
        seen = torch.where(within, torch.minimum(seen, (sharpness * distance / t).clamp(min=0)), seen)
        t = t + distance.clamp(0.5 * start, 4 * start)
    arrives[chosen] = seen * seen * (3 - 2 * seen)
    return arrives


def studio(
    hits: Hits,
    rays: Rays,
    right: Float[Tensor, "3"],
    up: Float[Tensor, "3"],
    empty: EmptySpace,
    paint: Float[Tensor, "R 3"] | None = None,
) -> Float[Tensor, "R 3"]:
    """sRGB in [0, 1]: a matte surface of colour `paint`, or tinted by its normal, on white; a key light from
    the camera's upper left that throws shadows, a weak one from the right, the sky above and what reaches
    creases of it."""
    back, right, up = -rays.directions, right.to(rays.directions), up.to(rays.directions)
    key = torch.nn.functional.normalize(0.75 * back + 0.8 * up - 0.7 * right, dim=-1)
    fill = torch.nn.functional.normalize(0.6 * back + 0.1 * up + 0.9 * right, dim=-1)
    lit, filled = ((hits.normals * direction).sum(-1).clamp(min=0) for direction in (key, fill))
    sky = 0.5 + 0.5 * (hits.normals * up).sum(-1)
    rim = (1 - (hits.normals * back).sum(-1).clamp(0, 1)) ** 3
    open_ = occlusion(hits, empty) ** 1.5
    light = 0.8 * lit * shadow(hits, empty, key) + open_ * (0.06 + 0.14 * sky + 0.14 * filled + 0.08 * rim)
    tint = 0.84 + 0.12 * hits.normals if paint is None else paint
    colour = (tint**2.2 * light[:, None]).clamp(0, 1) ** (1 / 2.2)  # light adds up in linear colours
    return torch.where(hits.hit[:, None], colour, torch.ones_like(colour))


def shade(
    hits: Hits,
    rays: Rays,
    right: Float[Tensor, "3"],
    up: Float[Tensor, "3"],
    paint: Float[Tensor, "R 3"] | None = None,
) -> Float[Tensor, "R 3"]:
    """sRGB in [0, 1]: a matte surface of colour `paint`, or tinted by its normal, lit from the camera's upper
    left, on white."""
    back = -rays.directions
    light = torch.nn.functional.normalize(0.9 * back + 0.7 * up.to(back) - 0.5 * right.to(back), dim=-1)
    lambert = (hits.normals * light).sum(-1).clamp(min=0)
    facing = (hits.normals * back).sum(-1).clamp(0, 1)
    tint = 0.78 + 0.22 * hits.normals if paint is None else paint
    colour = tint * (0.28 + 0.72 * lambert)[:, None] * (0.75 + 0.25 * facing)[:, None]
    return torch.where(hits.hit[:, None], colour.clamp(0, 1), torch.ones_like(colour))
