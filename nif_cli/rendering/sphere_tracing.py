"""Where rays meet the surface of a field: sphere tracing of distances (Hart 1996), marching of other values; pictures of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_dilation, distance_transform_edt, maximum_filter, minimum_filter
from torch import Tensor

from nif_cli.field import Field, evaluate, value_and_gradient
from nif_cli.rendering.cameras import Rays


@dataclass
class Hits:
    hit: Bool[Tensor, "R"]
    depth: Float[Tensor, "R"]  # along the ray; inf where nothing is hit
    points: Float[Tensor, "R 3"]  # zero where nothing is hit
    normals: Float[Tensor, "R 3"]  # outward, unit; zero where nothing is hit
    closest: Float[Tensor, "R"] | None = None  # the smallest distance to the surface that was met, where distances are known


def box_entry(rays: Rays, bounds: Float[Tensor, "2 3"]) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays enter and leave an axis-aligned box (entry >= 0); entry > exit where they miss it."""
    inverse = 1 / torch.where(rays.directions.abs() < 1e-12, 1e-12, rays.directions)
    a, b = (bounds[0] - rays.origins) * inverse, (bounds[1] - rays.origins) * inverse
    return torch.minimum(a, b).amax(-1).clamp(min=0), torch.maximum(a, b).amin(-1)


class EmptySpace:
    """How far the surface is at least, from coarse grids of values of the field: cheap to look up.

    A cell may hold the surface when |value - level| at its centre is less than the cell's half diagonal (with a margin of 1.5
    for networks that are only nearly distances; for clamped ones at most `trust`). Such cells of a grid of `resolution`^3 are
    halved and asked again. The rest is at least as far from the surface as from the nearest cell that may hold it. Values
    that are no distances (trust 0) say only on which side a centre is, and how much they vary: cells whose centre is inside,
    those whose value is less than what it changes by around them, and their neighbours may hold the surface.
    """

    def __init__(self, field: Field, resolution: int | None = None, device: torch.device | str = "cpu"):
        resolution = resolution or (40 if field.trust > 0 else 64)
        self.low, self.high = field.bounds.to(device)
        self.cell = (self.high - self.low) / resolution
        index = torch.arange(resolution, device=device)
        cells = torch.stack(torch.meshgrid(index, index, index, indexing="ij"), -1).reshape(-1, 3)
        value = self._outward(field, cells)
        outward: np.ndarray = value.reshape((resolution,) * 3).cpu().numpy()
        if field.trust > 0:
            corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], device=device)
            children = (2 * cells[value.abs() < self._reach(field)][:, None] + corners).reshape(-1, 3)
            resolution, self.cell = 2 * resolution, 0.5 * self.cell
            outward = outward.repeat(2, 0).repeat(2, 1).repeat(2, 2)
            value = self._outward(field, children)
            outward[tuple(children.T.cpu().numpy())] = value.cpu().numpy()
            occupied: np.ndarray = np.zeros((resolution,) * 3, bool)
            occupied[tuple(children[value.abs() < self._reach(field)].T.cpu().numpy())] = True
        else:
            varies = maximum_filter(outward, 3) - minimum_filter(outward, 3)
            occupied = binary_dilation((outward < 0) | (outward < varies), np.ones((3, 3, 3)))  # type: ignore[assignment]
        sides = self.cell.tolist()
        far = distance_transform_edt(~occupied, sampling=sides) if occupied.any() else np.full(occupied.shape, 1e3)
        # between any point of this cell and any of that one: two half diagonals less than between the centres
        self.far = torch.from_numpy(np.asarray(far) - float(self.cell.norm())).float().to(device)
        inside = outward < 0
        between = distance_transform_edt(~inside, sampling=sides) - distance_transform_edt(inside, sampling=sides)  # type: ignore[operator]
        near = occupied & (np.abs(outward) < field.trust)
        self.between = torch.from_numpy(np.where(near, outward, between)).float().to(device)

    def _outward(self, field: Field, cells: Int[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return field.level - evaluate(field, self.low + (cells + 0.5) * self.cell)

    def _reach(self, field: Field) -> float:
        return min(1.5 * 0.5 * float(self.cell.norm()), 0.9 * field.trust)

    def at_least(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """A lower bound of the distance to the surface at points inside the bounds; 0 near it."""
        i, j, k = ((points - self.low) / self.cell).long().clamp(0, len(self.far) - 1).unbind(-1)
        far = self.far[i, j, k]
        return torch.where(far > 0.5 * self.cell.min(), far, 0.0)  # steps that are hardly any would never arrive

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """About the distance to the surface, positive outside, to about a cell: for light."""
        where = (2 * (points - self.low) / (self.high - self.low) - 1).flip(-1)[None, :, None, None]
        grid = self.between[None, None]
        return torch.nn.functional.grid_sample(grid, where, padding_mode="border", align_corners=False).reshape(-1)


def sphere_trace(field: Field, rays: Rays, empty: EmptySpace | None = None, steps: int = 200, tolerance: float = 1e-4) -> Hits:
    """March each ray by the distance ahead, never more than `field.trust`, until it is within `tolerance` of the surface;
    then a Newton step along the ray, whose gradient is the normal's. A field whose values are no distances (trust 0) is
    searched by `ray_march`.

    Steps are longer than the distance where the last two values say that the surface recedes, as long as the balls that are
    free of it overlap; else the ray goes back to where it was sure (Keinert et al. 2014; Ban and Valasek 2023). Through
    `empty` space (made here if not given) rays go without evaluating the network. A step that crosses the surface (networks
    are only nearly distances) is refined. Only rays still on their way are evaluated.
    """
    if not field.trust > 0:
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
        distance[close] = (field.level - evaluate(field, points[close])).clamp(max=field.trust)  # positive outside
        closest[active[close]] = torch.minimum(closest[active[close]], distance[close])
        inside, gap = distance < 0, t - sure
        there = ~inside & (distance < tolerance)
        doubtful = ~inside & ~there & (gap > free + distance)  # something may lie between the two balls
        brackets.append((active[inside], sure[inside], free[inside], t[inside], distance[inside]))
        depth[active[there]] = t[there]
        rate = (distance - free) / gap.clamp(min=1e-6)
        slope = torch.where(doubtful | skipping | (free == 0), -1.0, 0.3 * slope + 0.7 * rate.clamp(-1.0, 0.9))
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
    """Where each ray first goes from outside to inside, for fields of which only the sign is known (occupancy logits).

    Steps of half a cell of `empty` space through the cells that may hold the surface, in one go through the others; the
    step that changes the sign is narrowed to `tolerance`. What is thinner than a step can be missed. A ray that starts
    inside, or enters the bounds there, hits where it starts.
    """
    count, device = len(rays.origins), rays.origins.device
    empty = empty or EmptySpace(field, device=device)
    near, far = box_entry(rays, field.bounds.to(rays.origins))
    step = 0.5 * float(empty.cell.min())
    depth = torch.full((count,), torch.inf, device=device)
    active = torch.nonzero(near < far)[:, 0]
    t = near[active]
    sure, before = t.clone(), torch.full_like(t, torch.inf)  # the last depth known to be outside; how far below the level
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


def _crossing(field: Field, rays: Rays, brackets: list[tuple[Tensor, ...]], depth: Float[Tensor, "R"], tolerance: float) -> None:
    """Put into `depth` where rays go inside, to `tolerance`. A bracket has their numbers, a depth outside and level - value
    there (> 0; inf: not known), a depth inside and level - value there (< 0). False position, held to the middle half of the
    bracket on every second step, so that values of any shape are halved at least."""
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
    """The points at these depths and their normals, after Newton steps along the ray: one, and for the few that this moves by
    more than `tolerance` (where the field is flat, or met at a small angle) up to two more. 0: no steps."""
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


def shade(
    hits: Hits, rays: Rays, right: Float[Tensor, "3"], up: Float[Tensor, "3"], paint: Float[Tensor, "R 3"] | None = None
) -> Float[Tensor, "R 3"]:
    """sRGB in [0, 1]: a matte surface of colour `paint`, or tinted by its normal, lit from the camera's upper left, on white."""
    back = -rays.directions
    light = torch.nn.functional.normalize(0.9 * back + 0.7 * up.to(back) - 0.5 * right.to(back), dim=-1)
    lambert = (hits.normals * light).sum(-1).clamp(min=0)
    facing = (hits.normals * back).sum(-1).clamp(0, 1)
    tint = 0.78 + 0.22 * hits.normals if paint is None else paint
    colour = tint * (0.28 + 0.72 * lambert)[:, None] * (0.75 + 0.25 * facing)[:, None]
    return torch.where(hits.hit[:, None], colour.clamp(0, 1), torch.ones_like(colour))
