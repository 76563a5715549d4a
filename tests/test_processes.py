"""Training on two processes (DDP, on the CPU) is training on batches twice as large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY, TINY_MLP

ROOT = Path(__file__).parent.parent
DEEPSDF = [*TINY_MLP, "model.code_size=4", "data.count=4", "data.batch_shapes=2", "field.dropout=0.2"]
EIKONAL = ["model=sdf", "model.objective=eikonal", "data=toy_shapes", "data.count=1", *TINY_MLP]
# few samples: as many rays in every batch, however many samples the first process's rays have taken
NGP = [
    "model=nerf",
    "field=ngp",
    "data=toy_views",
    "data.views=4",
    "data.size=16",
    "field.levels=3",
    "field.log2_table=9",
    "field.finest=32",
    "field.width=16",
    "model.resolution=32",
    "model.samples=512",
    "model.first_samples=512",
    "model.steps=48",
    "model.first_steps=48",
    "optimizer.eps=1e-8",
]
CASES = {"deepsdf": DEEPSDF, "eikonal": EIKONAL, "ngp": NGP}


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def words(case: str, steps: int = 6) -> list[str]:
    ours = [o for o in TINY if case != "ngp" or not o.startswith("data.")]
    return [*ours, *CASES[case], f"trainer.max_steps={steps}"]


def nif(*words: str) -> list[str]:
    return [sys.executable, "-m", "nif_cli", "train", *words]


def state(folder: str) -> dict:
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)


def train(folder: str, *more: str) -> dict[str, torch.Tensor]:
    """In a process of its own: Lightning starts the others by the same command."""
    done = subprocess.run(nif(*more, f"output_dir={folder}"), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return state(folder)["state_dict"]


@pytest.mark.parametrize(
    "case", ["deepsdf", *(pytest.param(c, marks=pytest.mark.slow) for c in ("ngp", "eikonal"))]
)
def test_two_processes_are_two_accumulated_batches(case):
    """Rows too: each shape's code, and each row of a table, gets its own gradient, whichever process had it
    in its batch; random numbers are those of the batch."""
    together = train("two", *words(case), "trainer.devices=2")
    accumulated = train("one", *words(case), "trainer.accumulate_grad_batches=2")
    assert together.keys() == accumulated.keys()
    for name in together:
        if name != "per_ray":  # of the first process
            assert torch.allclose(together[name], accumulated[name], atol=1e-5), name
    assert sum(1 for _ in Path("two").rglob("*.ckpt")) == 2  # one run, written once
    assert not Path("outputs").exists()
