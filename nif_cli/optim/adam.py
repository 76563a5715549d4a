"""Adam, whose lazy rows stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nif_cli import NifError


class Adam(torch.optim.Adam):
    """torch's Adam; for a parameter whose gradient is sparse (an embedding's), each row has its own moments
    and its own count of steps, and rows without a gradient stay where they are. Plain Adam goes on moving
    every code by its momentum. Of tables with a lazy gradient the touched rows move, and the gradient is
    empty afterwards.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        given = [(g, p, p.grad) for g in self.param_groups for p in g["params"] if p.grad is not None]
        sparse = [x for x in given if x[2].is_sparse]
        lazy = [x for x in given if x[2] is getattr(getattr(x[1], "lazy", None), "gradient", None)]
        for _, p, _ in sparse + lazy:
            p.grad = None
        for _, p, _ in given:
            if p.grad is not None:
                self._apart(p)
        super().step()
        for group, p, grad in lazy:
            self._step_touched(group, p)
            p.grad = grad
        for group, p, grad in sparse:
            self._step_rows(group, p, grad.coalesce())
            p.grad = grad
        return loss

    def state_dict(self) -> dict[str, Any]:
        """torch's; the moments of large tables without what lies between them in memory."""
        found = super().state_dict()
        state = {
            key: {name: x.contiguous() if isinstance(x, Tensor) else x for name, x in of.items()}
            for key, of in found["state"].items()
        }
        return found | {"state": state}

    def _apart(self, p: Tensor) -> None:
        """Moments that lay in the rows of a lazy gradient which is no longer kept: torch's loops take them
        for arrays of their own, whatever their strides, and would write into each other."""
        for name in ("exp_avg", "exp_avg_sq"):
            kept = self.state[p].get(name) if p in self.state else None
            if kept is not None and kept.is_contiguous() != p.is_contiguous():
                self.state[p][name] = kept.contiguous()

    def _step_touched(self, group: dict, p: Tensor) -> None:
        """A large table (fields.lazy_gradient.LazyGradient): rows without a gradient keep still; steps are
        counted for all."""
        from nif_cli.fields import grid_kernels

        for name in ("amsgrad", "maximize", "decoupled_weight_decay"):
            if group.get(name):
                raise NifError(f"optimizer.{name}=true: a hash grid on a CPU has no such Adam; leave it out")
        state, lazy = self.state[p], p.lazy  # type: ignore[attr-defined]
        state.setdefault("step", torch.zeros(()))
        for name, own in (("exp_avg", lazy.mean), ("exp_avg_sq", lazy.square)):
            if state.setdefault(name, own) is not own:  # those of a run that goes on
                own.copy_(state[name])
                state[name] = own
        state["step"] += 1
        how = group["lr"], group["betas"], group["eps"], int(state["step"]), group["weight_decay"]
        grid_kernels.adam_rows(p.detach().numpy(), lazy.rows.numpy(), lazy.touched.numpy(), *how)

    def _step_rows(self, group: dict, p: Tensor, grad: Tensor) -> None:
        row, g = grad.indices()[0], grad.values()
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(len(p), device=p.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        (beta1, beta2), lr = group["betas"], group["lr"]
        step = state["step"][row] + 1
        m = state["exp_avg"][row].lerp(g, 1 - beta1)
        v = state["exp_avg_sq"][row].lerp(g * g, 1 - beta2)
        state["step"][row], state["exp_avg"][row], state["exp_avg_sq"][row] = step, m, v
        step = step[:, None].double()  # as torch's own, whose counts are Python's floats
        p[row] -= (
            (lr / (1 - beta1**step)).to(p) * m / (v.sqrt() / (1 - beta2**step).sqrt().to(p) + group["eps"])
        )
