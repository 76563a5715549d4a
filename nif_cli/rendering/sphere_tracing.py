"""Where rays meet the surface of a distance field (Hart 1996), and pictures of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nif_cli.field import Field, evaluate, gradient
from nif_cli.rendering.cameras import Rays


@dataclass
class Hits:
    hit: Bool[Tensor, "R"]
    depth: Float[Tensor, "R"]  # along the ray; inf where nothing is hit
    points: Float[Tensor, "R 3"]  # zero where nothing is hit
    normals: Float[Tensor, "R 3"]  # outward, unit; zero where nothing is hit


def box_entry(rays: Rays, bounds: Float[Tensor, "2 3"]) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays enter and leave an axis-aligned box (entry >= 0); entry > exit where they miss it."""
    inverse = 1 / torch.where(rays.directions.abs() < 1e-12, 1e-12, rays.directions)
    a, b = (bounds[0] - rays.origins) * inverse, (bounds[1] - rays.origins) * inverse
    return torch.minimum(a, b).amax(-1).clamp(min=0), torch.maximum(a, b).amin(-1)


def sphere_trace(field: Field, rays: Rays, steps: int = 128, tolerance: float = 2e-4) -> Hits:
    """March each ray by the distance ahead, never more than `field.trust`, until it is within `tolerance` of the surface.

    A step that crosses the surface (networks are only nearly distances) is refined by false position. Only rays still on
    their way are evaluated. Needs a field whose values are distances near the surface (trust > 0).
    """
    if not field.trust > 0:
        raise ValueError("sphere tracing needs distances: this field's values are none (trust 0)")
    count, device = len(rays.origins), rays.origins.device
    bounds = field.bounds.to(rays.origins)
    near, far = box_entry(rays, bounds)
    depth = torch.full((count,), torch.inf, device=device)
    active = torch.nonzero(near < far)[:, 0]
    t = near[active]
    before = t.clone()  # the last depth outside, and the distance there
    ahead = torch.full_like(t, torch.inf)
    ceiling = min(field.trust, float((bounds[1] - bounds[0]).norm()))
    for _ in range(steps):
        if not len(active):
            break
        points = rays.origins[active] + t[:, None] * rays.directions[active]
        distance = field.level - evaluate(field, points)  # positive outside
        crossed = (distance < 0) & torch.isfinite(ahead)
        done = (distance.abs() < tolerance) | crossed | (distance < 0)
        # between the last point outside and this one, where the straight line through both values is zero
        share = (ahead / (ahead - distance)).clamp(0, 1)
        root = torch.where(crossed, before + (t - before) * share, t)
        depth[active[done]] = root[done]
        before, ahead = t, distance
        t = t + distance.clamp(min=tolerance, max=ceiling)
        keep = ~done & (t < far[active])
        active, t, before, ahead = active[keep], t[keep], before[keep], ahead[keep]
    hit = torch.isfinite(depth)
    points, normals = torch.zeros_like(rays.origins), torch.zeros_like(rays.origins)
    points[hit] = rays.origins[hit] + depth[hit, None] * rays.directions[hit]
    normals[hit] = -torch.nn.functional.normalize(gradient(field, points[hit]), dim=-1)
    return Hits(hit, depth, points, normals)


def shade(hits: Hits, rays: Rays, right: Float[Tensor, "3"], up: Float[Tensor, "3"]) -> Float[Tensor, "R 3"]:
    """sRGB in [0, 1]: a matte surface tinted by its normal, lit from the camera's upper left, on white."""
    back = -rays.directions
    light = torch.nn.functional.normalize(0.9 * back + 0.7 * up.to(back) - 0.5 * right.to(back), dim=-1)
    lambert = (hits.normals * light).sum(-1).clamp(min=0)
    facing = (hits.normals * back).sum(-1).clamp(0, 1)
    tint = 0.78 + 0.22 * hits.normals
    colour = tint * (0.28 + 0.72 * lambert)[:, None] * (0.75 + 0.25 * facing)[:, None]
    return torch.where(hits.hit[:, None], colour.clamp(0, 1), torch.ones_like(colour))
