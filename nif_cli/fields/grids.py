"""Grids of trainable features: coordinates -> interpolated rows of tables.

Letters: L levels, F features of a row, D = 2 or 3, T rows of a hash table at most. All take points in [-1,
1]^D and are constant beyond. Their values are linear in the tables and piecewise multilinear in the points
(with cubic B-splines: piecewise cubic): first and second derivatives (multilinear: the mixed ones; d2/dx2 is
zero within a cell) are those of that function, also where a loss needs both.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.grid_levels import Levels
from nif_cli.fields.grid_lookup import compile_lookup, encode
from nif_cli.fields.grid_slopes import encode_slopes
from nif_cli.fields.lazy_gradient import LazyGradient, _EncodeLazy
from nif_cli.fields.network import Encoding, Network

TABLE_RATE = (
    10.0  # what a table learns faster than a network's weights: each of its rows is seen by few points
)


class HashGrid(Encoding):
    """The multi-resolution hash grid of Instant-NGP (Mueller et al. 2022): levels from `base` to `finest`
    corners a side, `features` of each, tables of at most 2^log2_table rows. Rows start uniform in +-1e-4.

    `lazy`: on a CPU the table's gradient is kept and emptied row by row, which large tables need; there are
    no derivatives by the coordinates, then.
    """

    table_rate = TABLE_RATE

    def __init__(
        self,
        dim: int,
        levels: int = 8,
        features: int = 2,
        log2_table: int | None = 15,
        base: int = 16,
        finest: float = 256,
        lazy: bool = False,
    ):
        super().__init__()
        if not 1 <= levels <= 32 or not 1 <= features <= 16:
            raise ValueError(f"levels={levels}, features={features}: 1 to 32 levels of 1 to 16 features")
        if log2_table is not None and not 3 <= log2_table <= 26:
            raise ValueError(f"log2_table={log2_table}: must be 3 to 26")
        if not 2 <= base <= finest:
            raise ValueError(f"base={base}, finest={finest}: base must be at least 2, finest no less")
        self.levels = Levels.geometric(
            dim, levels, base, finest, None if log2_table is None else 2**log2_table
        )
        if sum(self.levels.rows) * features > 2**31:
            raise ValueError(f"levels={levels}, finest={finest}: {sum(self.levels.rows):,} rows are too many")
        self.table = nn.Parameter(torch.empty(sum(self.levels.rows), features).uniform_(-1e-4, 1e-4))
        self.features = levels * features
        self.lazy = lazy
        self._lazy: LazyGradient | None = None
        compile_lookup(self.table, dim)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]:
        inner = (0.5 + 0.5 * x).clamp(0, 1).reshape(-1, x.shape[-1])
        on_cpu = self.table.device.type == "cpu" and x.dtype == self.table.dtype
        traced = torch.jit.is_tracing()  # pyright: ignore
        # the loops have no derivative by places
        if self.lazy and on_cpu and not x.requires_grad and not traced:
            lazy = self.lazily() if torch.is_grad_enabled() else self._lazy
            return _EncodeLazy.apply(inner, self.table, self.levels, lazy).unflatten(0, x.shape[:-1])  # type: ignore
        if self._lazy is not None and self.table.device.type != "cpu":
            self.forget()  # what is dense from now on may be
        # not unflatten, which in a traced graph would fix the number of points
        return encode(inner, self.table, self.levels).reshape(*x.shape[:-1], self.features)

    def lazily(self) -> LazyGradient:
        """The gradient of its table that is kept."""
        if self._lazy is None:
            self._lazy = LazyGradient(self.table)
        return self._lazy

    def with_slopes(self, x: Float[Tensor, "N D"], levels: int) -> Float[Tensor, "N S F"]:
        """The features of the first `levels` levels, and their derivatives by the coordinates (S = 1 + D);
        differentiable by the table alone."""
        inner, first = (0.5 + 0.5 * x).clamp(0, 1), self.levels.first(levels)
        if self.lazy and self.table.device.type == "cpu" and torch.is_grad_enabled():
            self._lazy = self._lazy or LazyGradient(self.table)
        found = encode_slopes(inner, self.table, first, self._lazy)
        within = torch.where(x.abs() <= 1, 0.5, 0.0).to(x)[..., None]  # constant beyond
        return torch.cat((found[:, :1], within * found[:, 1:]), 1)

    def forget(self) -> None:
        """Let go of the lazy gradient, and of the moments beside it."""
        if self._lazy is not None:
            self._lazy.guard.remove()
        self._lazy = None
        self.table.__dict__.pop("lazy", None)  # pyright: ignore


class DenseGrid(HashGrid):
    """Multi-resolution dense grids: the hash grid whose levels all have a row for every corner."""

    def __init__(self, dim: int, levels: int = 4, features: int = 2, base: int = 8, finest: float = 48):
        super().__init__(dim, levels, features, None, base, finest)


class Triplane(Encoding):
    """A plane of `resolution`^2 rows for each pair of axes, interpolated at the point's projections, side by
    side (Chan et al. 2022): three planes for D = 3, one for D = 2. Rows start N(0, 0.1^2)."""

    table_rate = TABLE_RATE

    def __init__(self, dim: int, resolution: int = 64, features: int = 8):
        super().__init__()
        if not 2 <= resolution <= 2**13 or not 1 <= features <= 256:
            raise ValueError(f"resolution={resolution}, features={features}: 2 to 8192, and 1 to 256")
        self.axes = tuple(combinations(range(dim), 2))
        self.levels = Levels.plain(2, resolution)
        self.planes = nn.ParameterList(
            torch.empty(resolution**2, features).normal_(0, 0.1) for _ in self.axes
        )
        self.features = features * len(self.axes)
        compile_lookup(self.planes[0], 2)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]:
        inner = (0.5 + 0.5 * x).clamp(0, 1).reshape(-1, x.shape[-1])
        parts = [
            encode(inner[:, axes].contiguous(), plane, self.levels)
            for axes, plane in zip(self.axes, self.planes, strict=True)
        ]
        return torch.cat(parts, -1).reshape(*x.shape[:-1], self.features)


class VoxelArray(Network):
    """The traditional array: `resolution`^D values over [-1, 1]^D, interpolated multilinearly; no network at
    all. What fields are compared with. `fill` takes its values from data; training moves them. Starts at
    zero.

    network(points [S, N, D], None) -> [S, N, C].
    """

    table_rate = TABLE_RATE

    def __init__(self, dim: int = 3, out: int = 1, code_size: int = 0, *, resolution: int | None = None):
        super().__init__()
        resolution = resolution if resolution is not None else 256 if dim == 2 else 64
        if code_size:
            raise ValueError(
                "an array of voxels holds one shape: choose another field for a model with codes"
            )
        if not 2 <= resolution <= 2**15 or resolution**dim * out > 2**31:
            raise ValueError(
                f"resolution={resolution}: must be 2 or more, and {resolution}^{dim} values must fit in "
                "memory"
            )
        self.resolution, self.dim = resolution, dim
        self.levels = Levels.plain(dim, resolution)
        self.table = nn.Parameter(torch.zeros(resolution**dim, out))
        compile_lookup(self.table, dim)

    @torch.no_grad()
    def fill(self, samples: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        """Each voxel takes the value of the sample that is nearest to it."""
        from scipy.spatial import KDTree

        points, values = samples()
        axis = np.linspace(-1, 1, self.resolution)
        # x goes fastest
        grid = np.stack(np.meshgrid(*[axis] * self.dim, indexing="ij"), -1).reshape(-1, self.dim)[:, ::-1]
        _, nearest = KDTree(points).query(grid, workers=-1)
        self.table.copy_(torch.from_numpy(np.asarray(values, np.float32)[nearest]))

    def forward(self, points: Float[Tensor, "S N D"], code: Tensor | None = None) -> Float[Tensor, "S N C"]:
        inner = (0.5 + 0.5 * points).clamp(0, 1)
        return encode(inner.reshape(-1, self.dim), self.table, self.levels).unflatten(0, points.shape[:-1])
