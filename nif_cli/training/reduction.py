"""Gradients by rows, which DistributedDataParallel cannot average over the processes of a training."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nif_cli.fields.grids import HashGrid

Part = HashGrid | nn.Embedding


def by_rows(module: nn.Module, device: torch.device) -> dict[str, Part]:
    """By the names of their parameters: embeddings whose gradients are sparse (NCCL reduces none), and grids
    whose tables have a lazy gradient, of which autograd knows nothing."""
    found: dict[str, Part] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and part.sparse:
            found[f"{name}.weight"] = part
        elif isinstance(part, HashGrid) and part.lazy and device.type == "cpu":
            found[f"{name}.table"] = part
    return found


def average(part: Part) -> None:
    """Every process takes part: each has the mean of all gradients afterwards, as sparse or lazy as they
    were."""
    if isinstance(part, nn.Embedding):
        _average_sparse(part.weight)
    else:
        _average_lazy(part)


def _average_sparse(weight: Tensor) -> None:
    """Rows and their gradients are gathered; those of one row add up when the optimizer sees them."""
    processes, size = dist.get_world_size(), weight.shape[1]
    grad = weight.grad
    index = weight.new_zeros(0, dtype=torch.long) if grad is None else grad._indices()[0]
    values = weight.new_zeros(0, size) if grad is None else grad._values()
    counts = [torch.zeros_like(torch.tensor([0], device=weight.device)) for _ in range(processes)]
    dist.all_gather(counts, torch.tensor([len(index)], device=weight.device))
    lengths = [int(count) for count in counts]
    longest = max(lengths)
    index = torch.cat((index, index.new_zeros(longest - len(index))))
    values = torch.cat((values, values.new_zeros(longest - len(values), size)))
    indices = [torch.empty_like(index) for _ in lengths]
    gathered = [torch.empty_like(values) for _ in lengths]
    dist.all_gather(indices, index)
    dist.all_gather(gathered, values)
    row = torch.cat([i[:n] for i, n in zip(indices, lengths, strict=True)])
    mean = torch.cat([g[:n] for g, n in zip(gathered, lengths, strict=True)]) / processes
    weight.grad = torch.sparse_coo_tensor(row[None], mean, weight.shape, check_invariants=False)


def _average_lazy(grid: HashGrid) -> None:
    """Only the rows that any process has touched travel."""
    lazy = grid.lazily()
    had = grid.table.grad is not None
    lazy.begin(grid.table)
    dist.all_reduce(lazy.touched, op=dist.ReduceOp.BOR)
    bits = np.unpackbits(lazy.touched.numpy(), count=len(lazy.rows), bitorder="little")
    row = torch.from_numpy(np.flatnonzero(bits))
    if not len(row) and not had:
        grid.table.grad = None
        return
    mean = lazy.gradient[row]
    dist.all_reduce(mean)
    lazy.gradient[row] = mean / dist.get_world_size()
