"""Training on two processes (DDP, on the CPU) is training on batches twice as large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from conftest import TINY, TINY_MLP

COMMON = [*TINY, *TINY_MLP, "model.code_size=4", "data.count=4", "data.batch_shapes=2", "trainer.max_steps=8"]


def train(folder: str, *more: str) -> dict[str, torch.Tensor]:
    """In a process of its own: Lightning starts the others by the same command."""
    command = [sys.executable, "-m", "nif_cli", "train", *COMMON, f"output_dir={folder}", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_two_processes_are_two_accumulated_batches(monkeypatch):
    """Codes too: each shape's row gets its own gradient, whichever process had the shape in its batch."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    together = train("two", "trainer.devices=2")
    accumulated = train("one", "trainer.accumulate_grad_batches=2")
    assert together.keys() == accumulated.keys()
    for name in together:
        assert torch.allclose(together[name], accumulated[name], atol=1e-6), name
    assert sum(1 for _ in Path("two").rglob("*.ckpt")) == 2  # one run, written once
    assert not Path("outputs").exists()
