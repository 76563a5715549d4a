"""Features of points from a table of rows, and their derivatives by the coordinates, both differentiable by
the table: what a loss about the gradient of a field (eikonal, normals) needs, in one pass each way."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.fields import slope_kernels
from nif_cli.fields.grid_levels import Levels
from nif_cli.fields.grid_lookup import encode_reference
from nif_cli.fields.lazy_gradient import LazyGradient


def encode_slopes(
    x: Float[Tensor, "N D"],
    table: Float[Tensor, "R F"],
    levels: Levels,
    lazy: LazyGradient | None = None,
) -> Float[Tensor, "N S LF"]:
    """`grid_lookup.encode` of multilinear levels, and its derivatives by each coordinate: S = 1 + D.
    Differentiable by the table, not by x. On a CPU compiled loops, of whose gradient `lazy` may take care."""
    if x.device.type == "cpu" and x.dtype == table.dtype:
        return _EncodeSlopes.apply(x, table, levels, lazy)  # type: ignore[return-value]
    return encode_slopes_reference(x, table, levels)


def encode_slopes_reference(
    x: Float[Tensor, "N D"], table: Float[Tensor, "R F"], levels: Levels
) -> Float[Tensor, "N S LF"]:
    """The same in plain torch: forward mode along each axis."""
    x = x.detach()
    slopes = []
    for axis in torch.eye(levels.dim, dtype=x.dtype, device=x.device):
        along = torch.func.jvp(lambda at: encode_reference(at, table, levels), (x,), (axis.expand_as(x),))
        slopes.append(along[1])
    return torch.stack((encode_reference(x, table, levels), *slopes), 1)


class _EncodeSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, levels: Levels, lazy: LazyGradient | None) -> Tensor:  # type: ignore[override]
        ctx.levels, ctx.lazy = levels, lazy
        ctx.save_for_backward(x, table)
        return torch.from_numpy(
            slope_kernels.forward_slopes(x.detach().numpy(), table.detach().numpy(), levels)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, table = ctx.saved_tensors
        if ctx.lazy is not None:
            ctx.lazy.add(table, x, grad, ctx.levels, slopes=True)
            return None, None, None, None
        arrays = x.detach().numpy(), grad.contiguous().numpy()
        return (
            None,
            torch.from_numpy(slope_kernels.backward_slopes(*arrays, ctx.levels, table.shape)),
            None,
            None,
        )
