"""Grids of trainable features: coordinates -> interpolated rows of tables.

Letters: L levels, F features of a row, D = 2 or 3, T rows of a hash table at most. All take points in [-1, 1]^D and are
constant beyond. Their values are linear in the tables and piecewise multilinear in the points (with cubic B-splines:
piecewise cubic): first and second derivatives (multilinear: the mixed ones; d2/dx2 is zero within a cell) are those of that
function, also where a loss needs both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.network import Encoding, Network

try:
    from nif_cli.fields import kernels
except ImportError:  # no numba here
    kernels = None

PRIMES = (1, 2654435761, 805459861)  # Teschner et al. 2003, as in Mueller et al. 2022, eq. 4
TABLE_RATE = 10.0  # what a table learns faster than a network's weights: each of its rows is seen by few points


@dataclass(frozen=True)
class Levels:
    """Where each level lies in the table and how its rows are found. A point x in [0, 1]^D is at x * scale + shift on the
    level's lattice of `resolution`^D corners; corner c is row sum c_d resolution^d, or the hash of c, modulo `rows`."""

    dim: int
    shift: float
    scale: tuple[float, ...]
    resolution: tuple[int, ...]
    rows: tuple[int, ...]
    taps: int = 2
    """Corners that a point sees along each axis: 2 (multilinear), or 4 (cubic B-splines)."""

    @property
    def start(self) -> tuple[int, ...]:
        """The first row of each level."""
        return tuple(int(n) for n in np.concatenate(([0], np.cumsum(self.rows)[:-1])))

    @property
    def hashed(self) -> tuple[bool, ...]:
        """Which levels have fewer rows than corners."""
        return tuple(rows < resolution**self.dim for rows, resolution in zip(self.rows, self.resolution, strict=True))

    @classmethod
    def geometric(cls, dim: int, levels: int, base: int, finest: float, table: int | None) -> Levels:
        """Those of Mueller et al. 2022 (eq. 2, 3) in the details of their code: level l has scale base * b^l - 1 and
        resolution ceil(scale) + 1, b such that the last has `finest`; positions are shifted by half a cell, so that levels
        do not share their cell faces; a level has resolution^D rows, rounded up to a multiple of 8, but at most `table`.
        """
        growth = math.log(finest / base) / max(1, levels - 1)
        scale = [base * math.exp(level * growth) - 1 for level in range(levels)]
        resolution = [math.ceil(s - 1e-9) + 1 for s in scale]  # b^l is rounded: 64.0000000001 is 64
        rows = [-(-(r**dim) // 8) * 8 for r in resolution]
        return cls(dim, 0.5, tuple(scale), tuple(resolution), tuple(min(r, table) if table else r for r in rows))

    @classmethod
    def plain(cls, dim: int, resolution: int) -> Levels:
        """One array whose outermost values lie on the border."""
        return cls(dim, 0.0, (resolution - 1.0,), (resolution,), (resolution**dim,))

    @classmethod
    def spline(cls, dim: int, resolution: int) -> Levels:
        """One array of the coefficients of uniform cubic B-splines; the outermost lie a cell beyond the border."""
        return cls(dim, 0.0, (resolution - 3.0,), (resolution,), (resolution**dim,), taps=4)


def encode(x: Float[Tensor, "N D"], table: Float[Tensor, "R F"], levels: Levels) -> Float[Tensor, "N LF"]:
    """Each level's rows around each x in [0, 1]^D, interpolated: [N, L * F], level by level.

    On a CPU the loops of fields/kernels.py (where numba is installed); wherever second derivatives or those by x are
    wanted, within torch.func's transforms, and on a GPU, `reference`.
    """
    transformed = any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in (x, table))  # pyright: ignore
    if x.device.type == "cpu" and kernels is not None and x.dtype == table.dtype and not transformed:
        return _Encode.apply(x, table, levels)  # type: ignore[return-value]
    return reference(x, table, levels)


def reference(x: Float[Tensor, "N D"], table: Float[Tensor, "R F"], levels: Levels) -> Float[Tensor, "N LF"]:
    """`encode` in plain torch, differentiable any number of times."""
    whole = {"device": x.device, "dtype": torch.long}
    scale = torch.tensor(levels.scale, device=x.device, dtype=x.dtype)
    position = x[:, None] * scale[:, None] + levels.shift  # [N, L, D]
    cell = position.detach().floor()
    within = position - cell
    corners = torch.tensor(list(product(range(levels.taps), repeat=levels.dim)), **whole)  # [K, D], K = taps^D
    if levels.taps == 2:
        near, corner = within[:, :, None], corners.to(x.dtype)
        weight = (corner * near + (1 - corner) * (1 - near)).prod(-1)  # [N, L, K]
    else:
        shares = cubic(within)  # [N, L, D, 4]
        weight = torch.stack([shares[..., d, corners[:, d]] for d in range(levels.dim)]).prod(0)
    at = cell.long()[:, :, None] + corners  # [N, L, K, D]
    resolution, rows = torch.tensor(levels.resolution, **whole)[:, None], torch.tensor(levels.rows, **whole)[:, None]
    linear, mixed, stride = torch.zeros_like(at[..., 0]), torch.zeros_like(at[..., 0]), torch.ones_like(resolution)
    for d in range(levels.dim):
        linear = linear + at[..., d] * stride
        stride = stride * resolution
        mixed = mixed ^ (at[..., d] * PRIMES[d] & 0xFFFFFFFF)  # products of 32 bits, which int32 would overflow
    hashed = torch.tensor(levels.hashed, device=x.device)[:, None]
    row = torch.where(hashed, mixed, linear) % rows + torch.tensor(levels.start, **whole)[:, None]
    values = nn.functional.embedding(row, table)  # [N, L, K, F]
    return (weight[..., None] * values).sum(2).flatten(1)


def cubic(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n 4"]:
    """What the four nearest coefficients of a uniform cubic B-spline count, t in [0, 1] being the place within the cell."""
    s = 1 - t
    return torch.stack((s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3), -1) / 6


class _Encode(torch.autograd.Function):
    """The compiled loops, and the derivatives that they have: by the table, once. All others are those of `reference`."""

    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, levels: Levels) -> Tensor:  # type: ignore[override]
        ctx.levels = levels
        ctx.save_for_backward(x, table)
        assert kernels is not None
        return torch.from_numpy(kernels.forward(x.detach().numpy(), table.detach().numpy(), levels))

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, table = ctx.saved_tensors
        again = torch.is_grad_enabled()
        if kernels is not None and not again and not ctx.needs_input_grad[0]:
            out = kernels.backward(x.numpy(), grad.contiguous().numpy(), ctx.levels, table.shape)
            return None, torch.from_numpy(out), None
        with torch.enable_grad():
            wanted = [t for t, needed in zip((x, table), ctx.needs_input_grad[:2], strict=True) if needed]
            found = iter(torch.autograd.grad(reference(x, table, ctx.levels), wanted, grad, create_graph=again))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None


def warm_up(table: Tensor, dim: int, taps: int = 2) -> None:
    """Compile what this table will need, before any clock runs."""
    if kernels is not None and table.device.type == "cpu":
        x, levels = torch.zeros(1, dim), Levels.plain(dim, 2) if taps == 2 else Levels.spline(dim, 4)
        with torch.enable_grad():
            encode(x, table[: taps**dim].detach().requires_grad_(), levels).sum().backward()


class _EncodeLazy(torch.autograd.Function):
    """As _Encode, but the table's gradient goes into a buffer that is kept (see LazyGradient)."""

    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, levels: Levels, lazy: LazyGradient) -> Tensor:  # type: ignore[override]
        ctx.levels, ctx.lazy = levels, lazy
        ctx.save_for_backward(x, table)
        assert kernels is not None
        return torch.from_numpy(kernels.forward(x.detach().numpy(), table.detach().numpy(), levels))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, table = ctx.saved_tensors
        ctx.lazy.add(table, x, grad, ctx.levels)
        return None, None, None, None


class LazyGradient:
    """The gradient of a large table of which a step touches few rows: it is kept from step to step, and zero but in the rows
    that `touched` marks. `rows` has it beside the two moments of Adam (see kernels.adam), which moves the touched rows only.

    Autograd's own gradient of such a table would be added to rows that nothing marks, and never be emptied: it raises.
    """

    def __init__(self, table: Tensor):
        count, features = table.shape
        self.rows = torch.zeros(count, 4 * features)
        self.touched = torch.zeros(-(-count // 8), dtype=torch.uint8)  # a bit for each row
        self.gradient, self.mean, self.square, _ = self.rows.chunk(4, 1)
        self.guard = table.register_hook(_refuse)

    def add(self, table: Tensor, x: Tensor, grad: Tensor, levels: Levels) -> None:
        assert kernels is not None
        if table.grad is None:  # zero_grad lets go of it, and does not empty it
            kernels.clear(self.rows.numpy(), self.touched.numpy())
            table.grad = self.gradient
            table.lazy = self  # type: ignore[attr-defined]
        assert table.grad is self.gradient, "a table whose gradient is kept lazily has another one beside it"
        kernels.backward_lazy(x.numpy(), grad.contiguous().numpy(), levels, self.rows.numpy(), self.touched.numpy())


def _refuse(dense: Tensor | None) -> None:
    if dense is not None:
        raise AssertionError(
            f"a table of {len(dense):,} rows whose gradient is kept lazily got a dense one: only its grid may use it in a loss"
        )


class HashGrid(Encoding):
    """The multi-resolution hash grid of Instant-NGP (Mueller et al. 2022): levels from `base` to `finest` corners a side,
    `features` of each, tables of at most 2^log2_table rows. Rows start uniform in +-1e-4.

    `lazy`: on a CPU the table's gradient is kept and emptied row by row, which large tables need; there are no derivatives
    by the coordinates, then.
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
        self.levels = Levels.geometric(dim, levels, base, finest, None if log2_table is None else 2**log2_table)
        if sum(self.levels.rows) * features > 2**31:
            raise ValueError(f"levels={levels}, finest={finest}: {sum(self.levels.rows):,} rows are too many")
        self.table = nn.Parameter(torch.empty(sum(self.levels.rows), features).uniform_(-1e-4, 1e-4))
        self.features = levels * features
        self.lazy = lazy
        self._lazy: LazyGradient | None = None
        warm_up(self.table, dim)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]:
        inner = (0.5 + 0.5 * x).clamp(0, 1).reshape(-1, x.shape[-1])
        if self.lazy and kernels is not None and self.table.device.type == "cpu" and x.dtype == self.table.dtype:
            if self._lazy is None and torch.is_grad_enabled():
                self._lazy = LazyGradient(self.table)
            return _EncodeLazy.apply(inner, self.table, self.levels, self._lazy).unflatten(0, x.shape[:-1])  # type: ignore
        if self._lazy is not None and (kernels is None or self.table.device.type != "cpu"):
            self.forget()  # what is dense from now on may be
        return encode(inner, self.table, self.levels).unflatten(0, x.shape[:-1])

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
    """A plane of `resolution`^2 rows for each pair of axes, interpolated at the point's projections, side by side (Chan et
    al. 2022): three planes for D = 3, one for D = 2. Rows start N(0, 0.1^2)."""

    table_rate = TABLE_RATE

    def __init__(self, dim: int, resolution: int = 64, features: int = 8):
        super().__init__()
        if not 2 <= resolution <= 2**13 or not 1 <= features <= 256:
            raise ValueError(f"resolution={resolution}, features={features}: 2 to 8192, and 1 to 256")
        self.axes = tuple(combinations(range(dim), 2))
        self.levels = Levels.plain(2, resolution)
        self.planes = nn.ParameterList(torch.empty(resolution**2, features).normal_(0, 0.1) for _ in self.axes)
        self.features = features * len(self.axes)
        warm_up(self.planes[0], 2)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]:
        inner = (0.5 + 0.5 * x).clamp(0, 1).reshape(-1, x.shape[-1])
        parts = [
            encode(inner[:, axes].contiguous(), plane, self.levels) for axes, plane in zip(self.axes, self.planes, strict=True)
        ]
        return torch.cat(parts, -1).unflatten(0, x.shape[:-1])


class Voxels(Network):
    """The traditional array: `resolution`^D values over [-1, 1]^D, interpolated multilinearly; no network at all. What
    fields are compared with. `fill` takes its values from data; training moves them. Starts at zero.

    network(points [S, N, D], None) -> [S, N, C].
    """

    table_rate = TABLE_RATE

    def __init__(self, dim: int = 3, out: int = 1, code_size: int = 0, *, resolution: int | None = None):
        super().__init__()
        resolution = resolution if resolution is not None else 256 if dim == 2 else 64
        if code_size:
            raise ValueError("an array of voxels holds one shape: choose another field for a model with codes")
        if not 2 <= resolution <= 2**15 or resolution**dim * out > 2**31:
            raise ValueError(f"resolution={resolution}: must be 2 or more, and {resolution}^{dim} values must fit in memory")
        self.resolution, self.dim = resolution, dim
        self.levels = Levels.plain(dim, resolution)
        self.table = nn.Parameter(torch.zeros(resolution**dim, out))
        warm_up(self.table, dim)

    @torch.no_grad()
    def fill(self, samples: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        """Each voxel takes the value of the sample that is nearest to it."""
        from scipy.spatial import KDTree

        points, values = samples()
        axis = np.linspace(-1, 1, self.resolution)
        grid = np.stack(np.meshgrid(*[axis] * self.dim, indexing="ij"), -1).reshape(-1, self.dim)[:, ::-1]  # x goes fastest
        _, nearest = KDTree(points).query(grid, workers=-1)
        self.table.copy_(torch.from_numpy(np.asarray(values, np.float32)[nearest]))

    def forward(self, points: Float[Tensor, "S N D"], code: Tensor | None = None) -> Float[Tensor, "S N C"]:
        inner = (0.5 + 0.5 * points).clamp(0, 1)
        return encode(inner.reshape(-1, self.dim), self.table, self.levels).unflatten(0, points.shape[:-1])
