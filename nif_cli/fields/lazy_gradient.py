"""The gradient of a table of which a step touches few rows."""

from __future__ import annotations

import torch
from torch import Tensor

from nif_cli.fields import grid_kernels, slope_kernels
from nif_cli.fields.grid_levels import Levels


class _EncodeLazy(torch.autograd.Function):
    """As _Encode, but the table's gradient goes into a buffer that is kept (see LazyGradient)."""

    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, levels: Levels, lazy: LazyGradient) -> Tensor:  # type: ignore[override]
        ctx.levels, ctx.lazy = levels, lazy
        ctx.save_for_backward(x, table)
        return torch.from_numpy(grid_kernels.forward(x.detach().numpy(), table.detach().numpy(), levels))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, table = ctx.saved_tensors
        ctx.lazy.add(table, x, grad, ctx.levels)
        return None, None, None, None


class LazyGradient:
    """The gradient of a large table of which a step touches few rows: it is kept from step to step, and zero
    but in the rows that `touched` marks. `rows` has it beside the two moments of Adam, which moves the
    touched rows only (grid_kernels.adam_rows).

    Autograd's own gradient of such a table would be added to rows that nothing marks, and never be emptied:
    it raises.
    """

    def __init__(self, table: Tensor):
        count, features = table.shape
        self.rows = torch.zeros(count, 4 * features)
        self.touched = torch.zeros(-(-count // 8), dtype=torch.uint8)  # a bit for each row
        self.gradient, self.mean, self.square, _ = self.rows.chunk(4, 1)
        self.guard = table.register_hook(_refuse)

    def begin(self, table: Tensor) -> None:
        """The table has this gradient, empty at first."""
        if table.grad is None:  # zero_grad lets go of it, and does not empty it
            grid_kernels.clear(self.rows.numpy(), self.touched.numpy())
            table.grad = self.gradient
            table.lazy = self  # type: ignore[attr-defined]

    def add(self, table: Tensor, x: Tensor, grad: Tensor, levels: Levels, slopes: bool = False) -> None:
        """The gradient by that of the features, or (`slopes`) of features and their derivatives."""
        self.begin(table)
        assert table.grad is self.gradient, "a table whose gradient is kept lazily has another one beside it"
        loop = slope_kernels.backward_lazy_slopes if slopes else grid_kernels.backward_lazy
        loop(x.numpy(), grad.contiguous().numpy(), levels, self.rows.numpy(), self.touched.numpy())


def _refuse(dense: Tensor | None) -> None:
    if dense is not None:
        raise AssertionError(
            f"a table of {len(dense):,} rows whose gradient is kept lazily got a dense one: only its grid "
            "may use it in a loss"
        )
