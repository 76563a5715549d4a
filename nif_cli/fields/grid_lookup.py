"""Features of points from a table of rows: the compiled loops, and the plain reference beside them."""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields import grid_kernels
from nif_cli.fields.grid_levels import PRIMES, Levels
from nif_cli.progress import busy


def encode(x: Float[Tensor, "N D"], table: Float[Tensor, "R F"], levels: Levels) -> Float[Tensor, "N LF"]:
    """Each level's rows around each x in [0, 1]^D, interpolated: [N, L * F], level by level.

    On a CPU the loops of fields/grid_kernels.py; wherever second derivatives or those by x are wanted, within
    torch.func's transforms, in a traced graph, and on a GPU, `encode_reference`.
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore
    transformed = wrapped(x) or wrapped(table) or torch.jit.is_tracing()  # pyright: ignore
    if x.device.type == "cpu" and x.dtype == table.dtype and not transformed:
        return _Encode.apply(x, table, levels)  # type: ignore[return-value]
    return encode_reference(x, table, levels)


def encode_reference(
    x: Float[Tensor, "N D"], table: Float[Tensor, "R F"], levels: Levels
) -> Float[Tensor, "N LF"]:
    """`encode` in plain torch, differentiable any number of times."""
    whole = {"device": x.device, "dtype": torch.long}
    scale = torch.tensor(levels.scale, device=x.device, dtype=x.dtype)
    position = x[:, None] * scale[:, None] + levels.shift  # [N, L, D]
    cell = position.detach().floor()
    within = position - cell
    # [K, D], K = taps^D
    corners = torch.tensor(list(product(range(levels.taps), repeat=levels.dim)), **whole)
    if levels.taps == 2:
        near, corner = within[:, :, None], corners.to(x.dtype)
        weight = (corner * near + (1 - corner) * (1 - near)).prod(-1)  # [N, L, K]
    else:
        shares = cubic(within)  # [N, L, D, 4]
        weight = torch.stack([shares[..., d, corners[:, d]] for d in range(levels.dim)]).prod(0)
    at = cell.long()[:, :, None] + corners  # [N, L, K, D]
    resolution, rows = (
        torch.tensor(levels.resolution, **whole)[:, None],
        torch.tensor(levels.rows, **whole)[:, None],
    )
    linear, mixed, stride = (
        torch.zeros_like(at[..., 0]),
        torch.zeros_like(at[..., 0]),
        torch.ones_like(resolution),
    )
    for d in range(levels.dim):
        linear = linear + at[..., d] * stride
        stride = stride * resolution
        # products of 32 bits, which int32 would overflow
        mixed = mixed ^ (at[..., d] * PRIMES[d] & 0xFFFFFFFF)
    hashed = torch.tensor(levels.hashed, device=x.device)[:, None]
    # collisions stay as they are: where they meet, the points that matter to the loss outvote the others
    # (Mueller et al. 2022, section 3)
    row = torch.where(hashed, mixed, linear) % rows + torch.tensor(levels.start, **whole)[:, None]
    values = nn.functional.embedding(row, table)  # [N, L, K, F]
    return (weight[..., None] * values).sum(2).flatten(1)


def cubic(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n 4"]:
    """What the four nearest coefficients of a uniform cubic B-spline count, t in [0, 1] being the place
    within the cell."""
    s = 1 - t
    return torch.stack((s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3), -1) / 6


class _Encode(torch.autograd.Function):
    """The compiled loops, and the derivatives that they have: by the table, once. All others are those of
    `encode_reference`."""

    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, levels: Levels) -> Tensor:  # type: ignore[override]
        ctx.levels = levels
        ctx.save_for_backward(x, table)
        return torch.from_numpy(grid_kernels.forward(x.detach().numpy(), table.detach().numpy(), levels))

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, table = ctx.saved_tensors
        again = torch.is_grad_enabled()
        if not again and not ctx.needs_input_grad[0]:
            out = grid_kernels.backward(x.numpy(), grad.contiguous().numpy(), ctx.levels, table.shape)
            return None, torch.from_numpy(out), None
        with torch.enable_grad():
            wanted = [t for t, needed in zip((x, table), ctx.needs_input_grad[:2], strict=True) if needed]
            found = iter(
                torch.autograd.grad(encode_reference(x, table, ctx.levels), wanted, grad, create_graph=again)
            )
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None


def compile_lookup(table: Tensor, dim: int, taps: int = 2) -> None:
    """Compile what this table will need, before any clock runs."""
    if table.device.type == "cpu":
        x, levels = torch.zeros(1, dim), Levels.plain(dim, 2) if taps == 2 else Levels.spline(dim, 4)
        with torch.enable_grad(), busy("compiling the loops of grids"):
            encode(x, table[: taps**dim].detach().requires_grad_(), levels).sum().backward()
