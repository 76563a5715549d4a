"""Training on two processes (DDP, on the CPU) is training on batches twice as large."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


ENDLESS = [*TINY_MLP, "model.code_size=4", "data.count=4", "trainer.max_steps=1000000", "trainer.devices=2"]


def children(parent: int) -> list[int]:
    """Those of Lightning, by what Linux says."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(c) for c in text if b"train_ddp_process" in Path(f"/proc/{c}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "whom", "code"),
    [(signal.SIGTERM, 0, 143), (signal.SIGINT, 1, 130), (signal.SIGKILL, 1, 1), (signal.SIGKILL, 0, -9)],
)
def test_two_processes_end_together(number, whom, code):
    """A signal to either stops both after the same step, and they have saved; where one is killed, the other
    says so in a line, and what was saved before is whole."""
    process = subprocess.Popen(
        nif(*TINY, *ENDLESS, "output_dir=run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(1200):
            if Path("run/checkpoints/last.ckpt").exists():
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        other = children(process.pid)[0]
        os.kill((process.pid, other)[whom], number)
        out, err = process.communicate(timeout=100)  # the other holds them open, too
    finally:
        process.kill()
    assert process.returncode == code, err
    assert state("run")["global_step"] > 0
    if number == signal.SIGKILL:
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert "another process of this training has died" in lines[0]
    else:
        assert err == ""
        assert f"stopped by {number.name} and saved" in out


@pytest.mark.slow
def test_torchrun_makes_one_run_that_goes_on_with_other_processes():
    """Two processes of torchrun on the loopback: one folder, named by the first; `resume=auto` starts and
    goes on; batches are neither drawn again nor left out."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    mine = [*words("deepsdf", 4), "output_dir=run", "resume=auto"]
    command = [*torchrun, "-m", "nif_cli", "train", *mine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run: ") == 1
    assert state("run")["global_step"] == 4
    assert (Path("run") / "summary.json").is_file()
    assert not Path("outputs").exists()
    # a process alone goes on where the two were: at batch 8, whose random numbers are its own
    one = subprocess.run(nif(*mine, "trainer.max_steps=6"), capture_output=True, text=True, timeout=100)
    assert one.returncode == 0, one.stderr
    assert state("run")["global_step"] == 6
    assert state("run")["Loaded"]["together"] == 10
