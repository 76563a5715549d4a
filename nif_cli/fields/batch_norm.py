"""Batch norm whose statistics are those of all processes of a training: torch's own for that knows GPUs
only."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def several_processes() -> bool:
    """Whether this process trains with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def batch_norm(
    x: Float[Tensor, "N C *n"], mean: Tensor, var: Tensor, training: bool, momentum: float, eps: float
) -> Float[Tensor, "N C *n"]:
    """`F.batch_norm` of what all processes hold together; `mean` and `var` [C] are the running ones."""
    if not (training and several_processes()):
        return F.batch_norm(x, mean, var, training=training, momentum=momentum, eps=eps)
    from torch.distributed.nn.functional import all_reduce  # its gradient is summed over the processes too

    axes, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
    wide = x.float()
    count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    dist.all_reduce(count)
    here = all_reduce(wide.sum(axes)) / count
    centred = wide - here.view(shape)
    spread = all_reduce(centred.square().sum(axes)) / count
    with torch.no_grad():
        mean.lerp_(here.detach(), momentum)
        var.lerp_(spread.detach() * (count / (count - 1)), momentum)
    return (centred * (spread + eps).rsqrt().view(shape)).to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, of what all processes hold together."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and several_processes()):
            return super().forward(input)
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert count is not None
        assert self.momentum is not None
        count.add_(1)
        x = batch_norm(input, mean, var, True, self.momentum, self.eps)
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None]).to(x.dtype)
