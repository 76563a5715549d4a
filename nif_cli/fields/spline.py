"""Grids of cubic B-splines: the smooth array, with a prior on how much it bends between the data."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.grid_levels import Levels
from nif_cli.fields.grid_lookup import compile_lookup, encode
from nif_cli.fields.grids import TABLE_RATE
from nif_cli.fields.network import Network


class Spline(Network):
    """Uniform cubic B-splines (Unser 1999): `resolution`^D coefficients of every channel and, where `detail`
    is larger, `detail`^D of one more value that all channels see along one learned direction of unit length.
    In photographs that becomes the brightness, which is finer than colour. Two derivatives are continuous.
    Starts at zero.

    `smoothness` is the weight of `penalty`. network(points [S, N, D], None) -> [S, N, C].
    """

    table_rate = TABLE_RATE

    def __init__(
        self,
        dim: int = 3,
        out: int = 1,
        code_size: int = 0,
        *,
        resolution: int | None = None,
        detail: int | None = None,
        smoothness: float = 0.0,
    ):
        super().__init__()
        resolution = resolution if resolution is not None else 150 if dim == 2 else 64
        detail = detail if detail is not None else 440 if dim == 2 else 0
        if code_size:
            raise ValueError("a grid of splines holds one shape: choose another field for a model with codes")
        if not 4 <= resolution <= 2**14 or not (detail == 0 or resolution < detail <= 2**14):
            raise ValueError(
                f"resolution={resolution}, detail={detail}: at least 4; detail is larger, or 0 for none"
            )
        if resolution**dim * out + detail**dim > 2**31:
            raise ValueError(
                f"resolution={resolution}, detail={detail}: so many coefficients do not fit in memory"
            )
        if not smoothness >= 0:
            raise ValueError(f"smoothness={smoothness}: must be 0 or more")
        self.dim, self.smoothness = dim, smoothness
        self.levels = [Levels.spline(dim, n) for n in (resolution, detail) if n]
        self.tables = nn.ParameterList(
            torch.zeros(levels.rows[0], width) for levels, width in zip(self.levels, (out, 1), strict=False)
        )
        self.direction = nn.Parameter(torch.full((out,), 1 / math.sqrt(out))) if detail else None
        for table in self.tables:
            compile_lookup(table, dim, 4)

    def forward(self, points: Float[Tensor, "S N D"], code: Tensor | None = None) -> Float[Tensor, "S N C"]:
        inner = (0.5 + 0.5 * points).clamp(0, 1).reshape(-1, self.dim)
        out = encode(inner, self.tables[0], self.levels[0])
        if self.direction is not None:
            out = out + encode(inner, self.tables[1], self.levels[1]) * F.normalize(self.direction, dim=0)
        return out.unflatten(0, points.shape[:-1])

    def penalty(self) -> Tensor:
        """`smoothness` times the thin-plate energy of the coefficients of the finest grid (the sum over pairs
        of axes of their squared second differences), a coefficient's mean: what decides between data (Duchon
        1977)."""
        levels, table = self.levels[-1], self.tables[-1]
        grid = table.T.reshape(-1, *levels.resolution * self.dim)
        energy = []
        for a in range(1, self.dim + 1):
            first = grid.narrow(a, 1, grid.shape[a] - 1) - grid.narrow(a, 0, grid.shape[a] - 1)
            for b in range(1, a + 1):
                second = first.narrow(b, 1, first.shape[b] - 1) - first.narrow(b, 0, first.shape[b] - 1)
                energy.append((1 if a == b else 2) * second.square().sum())
        return self.smoothness * torch.stack(energy).sum() / table.numel()
