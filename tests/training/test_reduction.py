"""What two processes average by rows, and the batch norm of what they hold together: equal to one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import torch, torch.distributed as dist
from torch import nn
from nif_cli.encoders.image import BatchNorm2d
from nif_cli.fields.conditional import Modulation
from nif_cli.fields.grids import HashGrid
from nif_cli.training.reduction import average, by_rows

def made():
    torch.manual_seed(0)
    part = nn.ModuleDict({"grid": HashGrid(2, levels=3, log2_table=5, finest=32, lazy=True),
                          "codes": nn.Embedding(6, 3, sparse=True), "norm": BatchNorm2d(4),
                          "modulation": Modulation(3, 4, True)})
    nn.init.normal_(part["grid"].table)
    return part, torch.rand(8, 2) * 2 - 1, torch.tensor([0, 2, 2, 5, 1, 2, 3, 0]), torch.randn(8, 4, 2, 2)

def loss(part, x, row, image):
    codes = part["codes"](row)
    normed = part["norm"](image)
    modulated = part["modulation"](image.flatten(2).transpose(1, 2), codes)
    weight = torch.linspace(1, 2, 4)
    return ((part["grid"](x)[:, :3] * codes).square().sum()
            + (normed[:, :, 0] * weight[:, None]).pow(3).sum() + (modulated * weight).pow(3).sum()) / 8

def gradients(part):
    return {n: p.grad.to_dense().clone() for n, p in part.named_parameters() if p.grad is not None}

part, *inputs = made()
loss(part, *inputs).backward()
alone, norm = gradients(part), part["norm"].running_var.clone()
dist.init_process_group("gloo")
rank = dist.get_rank()
part, *inputs = made()
half = [i[:3] if rank == 0 else i[3:] for i in inputs]  # not equally many
apart = by_rows(part, torch.device("cpu"))
assert set(apart) == {"grid.table", "codes.weight"}, set(apart)
(2 * loss(part, *half)).backward()  # the mean of two such sums is the whole
for one in apart.values():
    average(one)
for name, parameter in part.named_parameters():
    if name not in apart:
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
for name, gradient in gradients(part).items():
    assert torch.allclose(gradient, alone[name], atol=1e-4), (name, gradient, alone[name])
assert torch.allclose(part["norm"].running_var, norm, atol=1e-6)
part.zero_grad()  # nothing in one of them, then in both
if rank == 1:
    part["grid"](inputs[0]).sum().backward()
average(apart["grid.table"])
dense = part["grid"].table.grad.clone()
both = [torch.empty_like(dense) for _ in range(2)]
dist.all_gather(both, dense)
assert torch.equal(*both) and dense.abs().sum() > 0
part.zero_grad()
average(apart["grid.table"])
assert part["grid"].table.grad is None
"""


def test_rows_and_batch_norms_of_two_processes_are_those_of_one():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    variables = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env={**variables, "RANK": str(r)}, stderr=subprocess.PIPE
        )
        for r in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()[-3000:]
