"""The cells of a fine grid that a surface crosses, found coarse to fine: a surface is two-dimensional, so is
the work.

A coarse lattice is evaluated whole. A cell of it is split where the field may cross the level inside: where
the values at its corners, interpolated to the corners of its children, come as close to the level as the
interpolation may err. On the coarse lattice that error is bounded by the slope of the field, afterwards by
what interpolation was found to miss one lattice before: it falls by four with the edge of the cells where the
field is smooth, by two at its creases. Last, wherever a face of a cell is crossed the cell beyond it is taken
in: what was found is complete up to its last cell.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nif_cli.geometry.lattice import CORNERS, Band, Grid, corner_keys, corners_of, find_rows, vertex_keys

# what the gradient of a network that is nearly a distance is taken to stay below, where nothing says
# otherwise
SLOPE = 1.2
MARGIN = 2.0  # slopes that are sampled may be exceeded by so much in between


def strides(grid: Grid, coarse: int | None = None) -> list[int]:
    """The edges of the cells from the coarsest lattice to the finest (1), in steps.

    The coarsest has at least `coarse` cells a side, by default 16 for distances and 32 for other values; for
    distances, also as many as it takes for the value at a corner to vouch for half a cell, no more than 96.
    """
    cells = grid.resolution + 1
    if coarse is None:
        half = 0.5 * cells * float(grid.step.norm())  # of the diagonal
        coarse = min(96, max(16, math.ceil(SLOPE * half / grid.truncation))) if grid.truncation > 0 else 32
    largest = cells / coarse  # an edge of the coarsest
    powers = [2**k for k in range(31)]
    first = max([s for s in powers + [3 * p for p in powers] if s <= largest], default=1)
    found = [first]
    while found[-1] > 1:
        found.append(found[-1] // (3 if found[-1] % 3 == 0 else 2))
    return found


def find_band(grid: Grid, coarse: int | None = None) -> Band:
    """The cells of `grid` that the surface crosses (and a few beside them), with the values at all their
    corners.

    Complete are all parts of the surface of which the coarse lattice (see `strides`) shows a trace: a part
    that lies between its vertices is found where the values around it, by their slope, allow for it.
    """
    sizes = strides(grid, coarse)
    band = _coarsest(grid, sizes[0])
    for stride in sizes[1:]:
        band = _grown(grid, _refined(grid, band, stride))
    band.values[~grid.real(band, band.keys)] = grid.level - 1
    return band


def _coarsest(grid: Grid, stride: int) -> Band:
    """All cells of the coarsest lattice. Their `error`: half a diagonal times the slope found around them."""
    side = -(-(grid.resolution + 1) // stride) + 1
    grid.check_memory(side**3)
    keys = torch.arange(side**3, device=grid.device)
    cells = keys.reshape(side, side, side)[:-1, :-1, :-1].flatten()
    unknown = torch.full((side**3,), torch.nan, device=grid.device)
    band = Band(
        side,
        stride,
        cells,
        corner_keys(cells, side),
        torch.zeros(len(cells), device=grid.device),
        keys,
        unknown,
    )
    grid.fill(band)
    box = band.values.reshape(side, side, side)
    slope = torch.zeros((side - 1,) * 3, device=grid.device)
    for axis, step in enumerate(grid.step.tolist()):
        along = box.diff(dim=axis).abs() / (stride * step)
        for other in {0, 1, 2} - {axis}:  # four edges of a cell
            along = torch.maximum(along.narrow(other, 0, side - 1), along.narrow(other, 1, side - 1))
        slope = torch.maximum(slope, along)
    # a field may be steeper between the samples of a cell than they show: its neighbours' count too
    slope = F.max_pool3d(slope[None, None], 3, 1, 1).flatten()
    slope = slope.clamp(min=SLOPE) if grid.truncation > 0 else MARGIN * slope
    band.error = slope * 0.5 * stride * float(grid.step.norm())
    return band


def _refined(grid: Grid, band: Band, stride: int) -> Band:
    """The children of a band's cells that the surface may cross. Their `error`: what interpolation missed at
    their corners."""
    split = band.stride // stride
    # the children's corners in a parent
    inner = torch.tensor(list(itertools.product(range(split + 1), repeat=3)))
    children = torch.tensor(list(itertools.product(range(split), repeat=3)))
    # of `inner`
    rows = ((children[:, None] + CORNERS) @ torch.tensor([(split + 1) ** 2, split + 1, 1])).to(grid.device)
    share = inner / split
    weights = torch.where(CORNERS.bool()[:, None], share, 1 - share).prod(-1).to(grid.device)  # [8, inner]

    # those on whose corners the interpolation may be on both sides of the level, or inside beside the layer
    values = (band.values - grid.level)[band.corners]
    grid.check_memory(int(((values.amax(1) > 0) & (values.amin(1) <= 0)).sum()) * band.stride**2)
    expected = values @ weights
    lowest = band.indices(band.cells) * split
    wanted = []
    for child, corners in zip(children.to(grid.device), rows, strict=True):
        first = (lowest + child) * stride
        high = expected[:, corners].amax(1) + band.error > 0
        low = expected[:, corners].amin(1) - band.error <= 0
        rim = ((first == 0) | (first + stride > grid.resolution)).any(1)
        wanted.append(high & (low | rim) & (first <= grid.resolution).all(1))
    parent, which = torch.stack(wanted, 1).nonzero(as_tuple=True)
    grid.check_memory(len(parent))

    side = split * (band.side - 1) + 1
    cells, order = vertex_keys(lowest[parent] + children.to(grid.device)[which], side).sort()
    parent, which = parent[order], which[order]
    keys = corners_of(cells, side)
    corners = torch.searchsorted(keys, corner_keys(cells, side))
    finer = Band(
        side,
        stride,
        cells,
        corners,
        torch.zeros(len(cells), device=grid.device),
        keys,
        torch.empty(len(keys)),
    )
    at = torch.empty(len(keys), device=grid.device)
    at[corners] = expected[parent[:, None], rows[which]] + grid.level
    index = finer.indices(keys)
    row, known = find_rows(band.keys, vertex_keys(index // split, band.side))
    known &= (index % split == 0).all(1)
    finer.values = torch.where(known, band.values[row], torch.nan)
    grid.fill(finer)
    finer.error = (finer.values - at).abs()[corners].amax(1)
    return finer


def _grown(grid: Grid, band: Band) -> Band:
    """A band and the cells into which the surface leaves it, and so on until it leaves it nowhere."""
    fresh = torch.arange(len(band.cells), device=grid.device)
    while len(fresh):
        beyond, error = [], []
        for part in fresh.split(2**18):
            corners = band.corners[part]
            real = grid.real(band, band.keys[corners.flatten()]).reshape(-1, 8)
            inside = (band.values[corners] > grid.level) & real
            for axis, end in itertools.product(range(3), (0, 1)):
                face = inside[:, CORNERS[:, axis] == end]
                crossed = part[face.any(1) & ~face.all(1)]
                beyond.append(band.cells[crossed] + (2 * end - 1) * band.side ** (2 - axis))
                error.append(band.error[crossed])
        cells, which = torch.unique(torch.cat(beyond), return_inverse=True)
        of_cells = torch.zeros(len(cells), device=grid.device).scatter_reduce_(
            0, which, torch.cat(error), "amax"
        )
        new = ~find_rows(band.cells, cells)[1]
        fresh = _add(grid, band, cells[new], of_cells[new])
    return band


def _add(grid: Grid, band: Band, cells: Int[Tensor, "K"], error: Float[Tensor, "K"]) -> Int[Tensor, "K"]:
    """Put cells into a band that are not in it; their rows there."""
    if not len(cells):
        return cells
    keys = corners_of(cells, band.side)
    keys = keys[~find_rows(band.keys, keys)[1]]
    old = band.keys
    band.keys, order = torch.cat((old, keys)).sort()
    band.values = torch.cat((band.values, torch.full((len(keys),), torch.nan, device=grid.device)))[order]
    moved = torch.searchsorted(band.keys, old)
    corners = torch.cat((moved[band.corners], torch.searchsorted(band.keys, corner_keys(cells, band.side))))
    band.cells, order = torch.cat((band.cells, cells)).sort()
    band.corners, band.error = corners[order], torch.cat((band.error, error))[order]
    grid.fill(band)
    return torch.searchsorted(band.cells, cells)
