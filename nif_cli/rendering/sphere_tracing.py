"""Where rays meet the surface of a field: sphere tracing of distances (Hart 1996), marching of other values;
images of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nif_cli.field import Field, evaluate, value_and_gradient
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.rays import Rays, box_entry


@dataclass
class Hits:
    hit: Bool[Tensor, "R"]
    depth: Float[Tensor, "R"]  # along the ray; inf where nothing is hit
    points: Float[Tensor, "R 3"]  # zero where nothing is hit
    normals: Float[Tensor, "R 3"]  # outward, unit; zero where nothing is hit
    closest: Float[Tensor, "R"] | None = (
        None  # the smallest distance to the surface that was met, where distances are known
    )


def sphere_trace(
    field: Field, rays: Rays, empty: EmptySpace | None = None, steps: int = 200, tolerance: float = 1e-4
) -> Hits:
    """March each ray by the distance ahead, never more than `field.truncation`, until it is within
    `tolerance` of the surface; then a Newton step along the ray, whose gradient is the normal's. A field
    whose values are no distances (truncation 0) is searched by `ray_march`.

    Steps are longer than the distance where the last two values say that the surface recedes, as long as the
    balls that are free of it overlap; else the ray goes back to where it was sure (Keinert et al. 2014; Ban
    and Valasek 2023). Through `empty` space (made here if not given) rays go without evaluating the network.
    A step that crosses the surface (networks are only nearly distances) is refined. Only rays still on their
    way are evaluated.
    """
    if not field.truncation > 0:
        return ray_march(field, rays, empty)
    device = rays.origins.device
    empty = empty or EmptySpace(field, device=device)
    near, far = box_entry(rays, field.bounds.to(rays.origins))
    depth = torch.full_like(near, torch.inf)
    active = torch.nonzero(near < far)[:, 0]
    t = near[active]
    sure, free = t.clone(), torch.zeros_like(t)  # the last depth known to be outside, and the distance there
    slope = torch.full_like(t, -1.0)  # of the distance along the ray
    brackets, closest = [], torch.full_like(near, torch.inf)
    for _ in range(steps):
        if not len(active):
            break
        points = rays.origins[active] + t[:, None] * rays.directions[active]
        distance = empty.at_least(points)
        skipping = distance > 0
        close = torch.nonzero(~skipping)[:, 0]
        # positive outside
        distance[close] = (field.level - evaluate(field, points[close])).clamp(max=field.truncation)
        closest[active[close]] = torch.minimum(closest[active[close]], distance[close])
        inside, gap = distance < 0, t - sure
        there = ~inside & (distance < tolerance)
        doubtful = ~inside & ~there & (gap > free + distance)  # something may lie between the two balls
        brackets.append((active[inside], sure[inside], free[inside], t[inside], distance[inside]))
        depth[active[there]] = t[there]
        # the slope of the distance along the ray, smoothed; at most 0.9, which is a step of 20 distances
        rate = (distance - free) / gap.clamp(min=1e-6)
        slope = torch.where(
            doubtful | skipping | (free == 0), -1.0, 0.3 * slope + 0.7 * rate.clamp(-1.0, 0.9)
        )
        # if d(t + s) = d + slope s, the free balls at both ends touch at s = d + d(t + s) = 2 d / (1 - slope)
        step = torch.where(skipping, distance, (2 / (1 - slope) * distance).clamp(min=tolerance))
        ahead = torch.where(doubtful, sure + free, t + step)
        sure, free = torch.where(doubtful, sure, t), torch.where(doubtful, free, distance)
        keep = ~(inside | there) & (ahead < far[active])
        active, t, sure, free, slope = active[keep], ahead[keep], sure[keep], free[keep], slope[keep]
    _crossing(field, rays, brackets, depth, tolerance)
    hits = _hits(field, rays, depth, tolerance)
    hits.closest = closest
    return hits


def ray_march(field: Field, rays: Rays, empty: EmptySpace | None = None, tolerance: float = 2e-4) -> Hits:
    """Where each ray first goes from outside to inside, for fields of which only the sign is known (occupancy
    logits).

    Steps of half a cell of `empty` space through the cells that may hold the surface, in one go through the
    others; the step that changes the sign is narrowed to `tolerance`. What is thinner than a step can be
    missed. A ray that starts inside, or enters the bounds there, hits where it starts.
    """
    count, device = len(rays.origins), rays.origins.device
    empty = empty or EmptySpace(field, device=device)
    near, far = box_entry(rays, field.bounds.to(rays.origins))
    step = 0.5 * float(empty.cell.min())
    depth = torch.full((count,), torch.inf, device=device)
    active = torch.nonzero(near < far)[:, 0]
    t = near[active]
    # the last depth known to be outside; how far below the level
    sure, before = (
        t.clone(),
        torch.full_like(t, torch.inf),
    )
    brackets = []
    while len(active):
        points = rays.origins[active] + t[:, None] * rays.directions[active]
        free = empty.at_least(points)
        close = torch.nonzero(free == 0)[:, 0]
        below = torch.full_like(t, torch.inf)
        below[close] = field.level - evaluate(field, points[close])
        inside = below < 0
        brackets.append((active[inside], sure[inside], before[inside], t[inside], below[inside]))
        ahead = t + torch.where(free > 0, free, step)
        keep = ~inside & (ahead < far[active])
        active, sure, before, t = active[keep], t[keep], below[keep], ahead[keep]
    _crossing(field, rays, brackets, depth, tolerance)
    return _hits(field, rays, depth, 0.0)


def _crossing(
    field: Field, rays: Rays, brackets: list[tuple[Tensor, ...]], depth: Float[Tensor, "R"], tolerance: float
) -> None:
    """Put into `depth` where rays go inside, to `tolerance`. A bracket has their numbers, a depth outside and
    level - value there (> 0; inf: not known), a depth inside and level - value there (< 0). False position,
    held to the middle half of the bracket on every second step, so that values of any shape are halved at
    least."""
    if not brackets:
        return
    index, a, of_a, b, of_b = (torch.cat(parts) for parts in zip(*brackets, strict=True))
    depth[index] = b
    for k in range(40):
        wide = (b - a > tolerance) & (of_b < -tolerance)
        index, a, of_a, b, of_b = (x[wide] for x in (index, a, of_a, b, of_b))
        if not len(index):
            break
        share = torch.where(torch.isfinite(of_a), of_a / (of_a - of_b), 0.5)
        middle = a + (b - a) * (share.clamp(0.25, 0.75) if k % 2 else share.clamp(0.02, 0.98))
        below = field.level - evaluate(field, rays.origins[index] + middle[:, None] * rays.directions[index])
        inside = below < 0
        a, of_a = torch.where(inside, a, middle), torch.where(inside, of_a, below)
        b, of_b = torch.where(inside, middle, b), torch.where(inside, below, of_b)
        depth[index] = b


def _hits(field: Field, rays: Rays, depth: Float[Tensor, "R"], tolerance: float) -> Hits:
    """The points at these depths and their normals, after Newton steps along the ray: one, and for the few
    that this moves by more than `tolerance` (where the field is flat, or met at a small angle) up to two
    more. 0: no steps."""
    hit = torch.isfinite(depth)
    points, normals = torch.zeros_like(rays.origins), torch.zeros_like(rays.origins)
    row = torch.nonzero(hit)[:, 0]
    for _ in range(3):
        along = rays.directions[row]
        at = rays.origins[row] + depth[row, None] * along
        value, slope = value_and_gradient(field, at)
        rate = (slope * along).sum(-1)  # positive: the ray goes in
        steep = rate > 0.1 * slope.norm(dim=-1)  # not along the surface
        step = torch.where(steep, (field.level - value) / rate, 0.0).clamp(-5 * tolerance, 5 * tolerance)
        depth[row] += step
        points[row] = at + step[:, None] * along
        normals[row] = -torch.nn.functional.normalize(slope, dim=-1)
        row = row[step.abs() > tolerance]
        if not len(row):
            break
    return Hits(hit, depth, points, normals)
