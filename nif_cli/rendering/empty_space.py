"""Where no surface is: coarse grids that rays jump through."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import binary_dilation, distance_transform_edt, maximum_filter, minimum_filter
from torch import Tensor

from nif_cli.field import Field, evaluate


class EmptySpace:
    """How far the surface is at least, from coarse grids of values of the field: cheap to look up.

    A cell may hold the surface when |value - level| at its centre is less than the cell's half diagonal (with
    a margin of 1.5 for networks that are only nearly distances; for clamped ones at most `truncation`). Such
    cells of a grid of `resolution`^3 are halved and asked again. The rest is at least as far from the surface
    as from the nearest cell that may hold it. Values that are no distances (truncation 0) say only on which
    side a centre is, and how much they vary: cells whose centre is inside, those whose value is less than
    what it changes by around them, and their neighbours may hold the surface.
    """

    def __init__(self, field: Field, resolution: int | None = None, device: torch.device | str = "cpu"):
        resolution = resolution or (40 if field.truncation > 0 else 64)
        self.low, self.high = field.bounds.to(device)
        self.cell = (self.high - self.low) / resolution
        index = torch.arange(resolution, device=device)
        cells = torch.stack(torch.meshgrid(index, index, index, indexing="ij"), -1).reshape(-1, 3)
        value = self._outward(field, cells)
        outward: np.ndarray = value.reshape((resolution,) * 3).cpu().numpy()
        if field.truncation > 0:
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
        far = (
            distance_transform_edt(~occupied, sampling=sides)
            if occupied.any()
            else np.full(occupied.shape, 1e3)
        )
        # between any point of this cell and any of that one: two half diagonals less than between the centres
        self.far = torch.from_numpy(np.asarray(far) - float(self.cell.norm())).float().to(device)
        inside = outward < 0
        between = distance_transform_edt(~inside, sampling=sides) - distance_transform_edt(
            inside, sampling=sides
        )  # type: ignore[operator]
        near = occupied & (np.abs(outward) < field.truncation)
        self.between = torch.from_numpy(np.where(near, outward, between)).float().to(device)

    def _outward(self, field: Field, cells: Int[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return field.level - evaluate(field, self.low + (cells + 0.5) * self.cell)

    def _reach(self, field: Field) -> float:
        return min(1.5 * 0.5 * float(self.cell.norm()), 0.9 * field.truncation)

    def at_least(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """A lower bound of the distance to the surface at points inside the bounds; 0 near it."""
        i, j, k = ((points - self.low) / self.cell).long().clamp(0, len(self.far) - 1).unbind(-1)
        far = self.far[i, j, k]
        # steps that are hardly any would never arrive
        return torch.where(far > 0.5 * self.cell.min(), far, 0.0)

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """About the distance to the surface, positive outside, to about a cell: for light."""
        where = (2 * (points - self.low) / (self.high - self.low) - 1).flip(-1)[None, :, None, None]
        grid = self.between[None, None]
        return torch.nn.functional.grid_sample(
            grid, where, padding_mode="border", align_corners=False
        ).reshape(-1)
