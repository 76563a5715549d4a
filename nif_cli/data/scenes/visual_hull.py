"""The visual hull: what the outlines of an object in transparent images leave of space (Laurentini
1994)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nif_cli.data.scenes.scene import View
from nif_cli.rendering.cameras import project
from nif_cli.rendering.occupancy_grid import OccupancyGrid

COARSER = 4  # cells along a side of those that are looked at first


def visual_hull(grid: OccupancyGrid, views: Sequence[View]) -> Bool[Tensor, "C G G G"]:
    """Which cells of a grid may hold something: those that no view sees in front of transparent pixels alone.
    Views without alpha say nothing. First groups of COARSER^3 cells are looked at, then those in the groups
    that are left."""
    g, n, device = grid.resolution, COARSER, grid.density.device
    # an image of all around has no scale
    flat = [view for view in views if view.alpha and view.camera.kind != "sphere"]
    outlines = [(view, pixels[..., 3] > 0) for view in flat if (pixels := view.pixels).shape[-1] == 4]
    groups = torch.arange(grid.cascades * (g // n) ** 3, device=device)
    h = g // n
    first = torch.stack((groups // h**3, groups // h**2 % h * n, groups // h % h * n, groups % h * n), -1)
    offsets = torch.cartesian_prod(*[torch.arange(n, device=device)] * 3)
    half = 1 / g * 2.0 ** first[:, 0]
    origin = ((first[:, 1:] * (2 / g) - 1) * 2.0 ** first[:, :1]).float()
    left = _left(origin + (n * half)[:, None], n * half, outlines)
    first, origin, half = first[left], origin[left], half[left]
    cells = torch.cat((first[:, None, :1].expand(-1, n**3, -1), first[:, None, 1:] + offsets), -1).reshape(
        -1, 4
    )
    centres = (origin[:, None] + (offsets + 0.5) * (2 * half)[:, None, None]).reshape(-1, 3)
    left = _left(centres, half.repeat_interleave(n**3), outlines)
    found = torch.zeros(grid.density.shape, dtype=torch.bool, device=device)
    found[cells[left].unbind(-1)] = True
    return found


def _left(
    centres: Float[Tensor, "M 3"],
    half: Float[Tensor, "M"],
    outlines: Sequence[tuple[View, Bool[Tensor, "H W"]]],
) -> Int64[Tensor, "K"]:
    """Which of these cubes (`half` their sides) may hold something."""
    left = torch.arange(len(centres), device=centres.device)
    for view, opaque in outlines:
        pose, radius = view.pose.to(centres), math.sqrt(3) * half[left]
        local = (centres[left] - pose[:, 3]) @ pose[:, :3]
        place = project(view.camera, local).nan_to_num(-1e6).floor().long().flip(-1)  # row, column
        inside = ((place >= 0) & (place < torch.tensor(opaque.shape, device=place.device))).all(-1)
        reach = max(view.camera.fx, view.camera.fy) * radius / (-local[:, 2] - radius).clamp(min=1e-3)
        # cubes that look about as large are looked at together
        steps = reach.clamp(1, 1024).log2().mul(2).ceil()
        keep = ~inside
        for step in steps[inside].unique().tolist():
            those = (inside & (steps == step)).nonzero()[:, 0]
            spread = _spread(opaque.to(place.device), math.ceil(2 ** (step / 2)))
            keep[those] = spread[place[those, 0], place[those, 1]]
        left = left[keep]
    return left


def _spread(opaque: Bool[Tensor, "H W"], reach: int) -> Bool[Tensor, "H W"]:
    """Whether anything is opaque within `reach` pixels, up and down and across."""
    reach = min(reach, max(opaque.shape))
    values = opaque[None, None].float()
    for kernel, pad in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        padded = torch.nn.functional.pad(values, (pad[1], pad[1], pad[0], pad[0]))
        values = torch.nn.functional.max_pool2d(padded, kernel, 1)
    return values[0, 0] > 0
