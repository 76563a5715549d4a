"""Lattices over the bounds of a field: the finest, whose points are asked for, and bands of the cells of
coarser ones, each vertex once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nif_cli import NifError
from nif_cli.field import Field, evaluate
from nif_cli.files import available_memory

CORNERS = torch.tensor(list(itertools.product((0, 1), repeat=3)))  # [8, 3]: corner 4 dx + 2 dy + dz of a cell
BYTES = 600  # that a crossed cell of the finest lattice takes, all in all: measured


@dataclass
class Band:
    """Cells of a lattice, and the values at their corners. The vertex (i, j, k) has the key (i * side + j) *
    side + k, a cell that of its lowest corner."""

    side: int  # vertices along a side of the lattice
    stride: int  # steps of the finest lattice between two of them
    cells: Int[Tensor, "C"]  # keys, ascending
    corners: Int[Tensor, "C 8"]  # rows of the vertices at their corners
    error: Float[Tensor, "C"]  # how far the field may be from the interpolation between the corners
    keys: Int[Tensor, "V"]  # of the vertices, ascending
    values: Float[Tensor, "V"]  # nan: not evaluated yet

    def indices(self, keys: Int[Tensor, "*n"]) -> Int[Tensor, "*n 3"]:
        """Keys -> i, j, k."""
        return torch.stack((keys // self.side**2, keys // self.side % self.side, keys % self.side), -1)


def vertex_keys(indices: Int[Tensor, "*n 3"], side: int) -> Int[Tensor, "*n"]:
    """i, j, k -> keys."""
    return (indices[..., 0] * side + indices[..., 1]) * side + indices[..., 2]


def corner_keys(cells: Int[Tensor, "*n"], side: int) -> Int[Tensor, "*n 8"]:
    """The keys of the vertices at the corners of cells."""
    return cells[..., None] + vertex_keys(CORNERS, side).to(cells.device)


class Grid:
    """resolution^3 points over the bounds of a field, both ends included, inside one layer of points that
    count as outside (what leaves the bounds is closed there): steps 1 to `resolution` along each axis are
    points, 0 and all beyond the layer.
    """

    def __init__(
        self,
        field: Field,
        resolution: int,
        level: float,
        device: torch.device | str,
        progress: Callable[[int, int], object] | None = None,
        bounds: Float[Tensor, "2 3"] | None = None,
    ):
        self.field, self.resolution, self.level, self.device, self.progress = (
            field,
            resolution,
            level,
            device,
            progress,
        )
        low, high = (field.bounds if bounds is None else bounds).double().cpu()
        shares = torch.arange(resolution, dtype=torch.float64) / (resolution - 1)
        self.axes = (low[:, None] + shares * (high - low)[:, None]).float().to(device)
        self.low, self.step = low, (high - low) / (resolution - 1)
        self.truncation = field.truncation - abs(level - field.level)
        self.evaluations = 0

    def points(self, places: Int[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Steps -> points; the layer's are the points nearest to them."""
        index = places.clamp(1, self.resolution) - 1
        return torch.stack([axis[i] for axis, i in zip(self.axes, index.unbind(-1), strict=True)], -1)

    def values(self, places: Int[Tensor, "N 3"], later: int = 0) -> Float[Tensor, "N"]:
        """The field's values; `later`: how many more evaluations are expected after these."""
        parts, left = [], len(places) + later
        for part in places.split(2**18):
            parts.append(evaluate(self.field, self.points(part)).float())
            left -= len(part)
            if self.progress:
                self.progress(len(part), left)
        values = torch.cat(parts) if parts else torch.empty(0, device=self.device)
        self.evaluations += len(values)
        if not values.isfinite().all():
            raise NifError(
                "the field has values that are not finite: the training has diverged; train again with a "
                "smaller model.lr"
            )
        return values

    def real(self, band: Band, keys: Int[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Which vertices are points of the grid, not of the layer around it."""
        places = band.indices(keys) * band.stride
        return ((places > 0) & (places <= self.resolution)).all(-1)

    def fill(self, band: Band) -> None:
        """Evaluate the vertices of a band that have no value. In the layer these are values at the nearest
        points; on the finest lattice nobody needs them any more: there the layer has a value that is
        outside."""
        missing = band.values.isnan().nonzero()[:, 0]
        if band.stride == 1:
            real = self.real(band, band.keys[missing])
            band.values[missing[~real]] = self.level - 1
            missing = missing[real]
        # a surface is two-dimensional,
        later = sum(4**k for k in range(1, band.stride.bit_length())) * len(missing)
        # and about as large as the faces of the box; the coarsest lattice is not
        later = min(later, 3 * self.resolution**2)
        band.values[missing] = self.values(band.indices(band.keys[missing]) * band.stride, later)

    def check_memory(self, cells: int) -> None:
        if cells * BYTES > available_memory():
            raise NifError(
                f"resolution={self.resolution}: about {cells * BYTES / 2**30:.0f} GiB do not fit in "
                "memory; lower it"
            )


def corners_of(cells: Int[Tensor, "C"], side: int) -> Int[Tensor, "V"]:
    """The keys of all corners of cells, ascending. Axis by axis: an eighth of the memory of sorting them
    all."""
    for step in (1, side, side**2):
        cells = torch.unique(torch.cat((cells, cells + step)))
    return cells


def find_rows(keys: Int[Tensor, "V"], wanted: Int[Tensor, "N"]) -> tuple[Int[Tensor, "N"], Bool[Tensor, "N"]]:
    """The rows of `wanted` in ascending keys, and whether it is there at all (the row is some row if not)."""
    rows = torch.searchsorted(keys, wanted).clamp(max=max(0, len(keys) - 1))
    return rows, (keys[rows] == wanted if len(keys) else torch.zeros_like(wanted, dtype=torch.bool))
