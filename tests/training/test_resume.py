"""A run that is stopped and resumed ends with the weights of one that was not: bit for bit, on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.training.callbacks import Checkpoints

MODELS = {
    "deepsdf": [
        "data.count=5",
        "data.batch_shapes=2",
        "model.code_size=4",
        "model.prior=0.1",
        "model.prior_warmup=0",
    ],
    "sdf": ["model=sdf", "data=toy_shapes", "data.count=1"],
    "eikonal": ["model=sdf", "model.objective=eikonal", "data=toy_shapes", "data.count=1"],
}


def overrides(tiny: list[str], model: str) -> list[str]:
    """The model, with a dropout where it can have one: random numbers count. Longer than three of its
    epochs."""
    field = ["field.activation=softplus"] if model == "eikonal" else ["field.dropout=0.3"]
    return [*(o for o in tiny if "max_steps" not in o), *MODELS[model], *field, "trainer.max_steps=25"]


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ShapeData, "epoch_batches", 8)


def state(run: str) -> dict:
    return torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same(one: str, other: str) -> None:
    """Weights, optimizer, random state and step."""
    a, b = state(one), state(other)
    assert a["global_step"] == b["global_step"]
    assert equal(a["state_dict"], b["state_dict"])
    assert equal(a["optimizer_states"], b["optimizer_states"])
    assert equal(a["lr_schedulers"], b["lr_schedulers"])
    assert equal(a["nif"]["random"]["cpu"], b["nif"]["random"]["cpu"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stop", [8, 13])  # at the end of an epoch, and in the middle of one
def test_more_steps(nif, tiny, model, stop):
    """trainer.max_steps in two parts."""
    command = ["train", *overrides(tiny, model), "scheduler=constant"]
    assert nif(*command, "output_dir=whole").code == 0
    assert nif(*command, "output_dir=parts", f"trainer.max_steps={stop}").code == 0
    assert state("parts")["global_step"] == stop
    done = nif("train", "resume=parts", "trainer.max_steps=25")
    assert done.code == 0, done.err
    assert_same("whole", "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("model", "stop"), [("deepsdf", 11), ("sdf", 16)])
def test_stopped_by_a_signal(nif, tiny, monkeypatch, number, model, stop):
    """The signal comes at a step, the run is saved, says how to go on, and goes on under its schedule;
    twice."""
    command = ["train", *overrides(tiny, model)]
    assert nif(*command, "output_dir=whole").code == 0
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(n) for n in watched]
    ordinary = Checkpoints.on_train_batch_end
    stops = {stop, stop + 3}

    def kill(self, trainer, *args):
        ordinary(self, trainer, *args)
        if trainer.global_step in stops:
            stops.remove(trainer.global_step)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", kill)
    stopped = nif(*command, "output_dir=parts")
    assert "resume=parts" in stopped.out
    assert stopped.code == 128 + number  # whoever waits for it does not go on
    assert state("parts")["global_step"] == stop
    assert "resume=parts" in nif("train", "resume=parts").out
    assert state("parts")["global_step"] == stop + 3
    assert nif("train", "resume=parts").code == 0
    assert_same("whole", "parts")
    assert [signal.getsignal(n) for n in watched] == before


def test_a_resumed_run_goes_on_with_its_own_files(nif, tiny):
    """metrics.csv goes on without a step twice; config.yaml has the new end."""
    command = ["train", *overrides(tiny, "deepsdf"), "logger.every=2"]
    nif(*command, "output_dir=parts", "trainer.max_steps=9")
    nif("train", "resume=parts", "trainer.max_steps=20")
    rows = [line.split(",")[0] for line in Path("parts/metrics.csv").read_text().splitlines()[1:]]
    losses = [
        r
        for r, line in zip(rows, Path("parts/metrics.csv").read_text().splitlines()[1:], strict=True)
        if line
    ]
    assert rows == sorted(rows, key=int)
    assert {"0", "8", "10", "18"} <= set(losses)
    assert "max_steps: 20" in Path("parts/config.yaml").read_text()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["data=meshes"], ["keeps its data", "init_from"]),
        (["model=sdf"], ["keeps its model"]),
        (["data.count=3"], ["init_from"]),
        (["init_from=parts"], ["one of them"]),
        (["model.lrr=1"], ["model.lrr"]),
    ],
)
def test_what_a_resumed_run_refuses(nif, run, typed, words):
    """And the run is as it was."""
    run.rename("parts")
    before = {p: p.read_bytes() for p in Path("parts").rglob("*") if p.is_file()}
    message = nif("train", "resume=parts", *typed).error
    for word in words:
        assert word in message
    assert {p: p.read_bytes() for p in Path("parts").rglob("*") if p.is_file()} == before


def test_a_finished_run_has_nothing_left_to_do(nif, run):
    weights = state(str(run))["state_dict"]
    assert nif("train", f"resume={run}").code == 0
    assert equal(state(str(run))["state_dict"], weights)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_real_process(tiny, number, cache):
    """The program itself, stopped from outside: it saves, says so, and leaves a run that loads."""
    command = [
        sys.executable,
        "-m",
        "nif_cli",
        "train",
        *overrides(tiny, "deepsdf"),
        "trainer.max_steps=1000000",
    ]
    process = subprocess.Popen(
        [*command, "output_dir=stopped"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NIF_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )
    try:
        metrics = Path("stopped/metrics.csv")
        for _ in range(600):  # until it has made some steps
            if metrics.exists() and len(metrics.read_text().splitlines()) > 2:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert number.name in out
    assert "resume=stopped" in out
    assert "Traceback" not in err
    assert state("stopped")["global_step"] > 0


@pytest.mark.parametrize("wrong", [float("nan"), "nan", -3, 2.5, [1]])
def test_a_count_of_the_trainer_that_is_none_is_refused(nif, tiny, wrong):
    """With NaN steps a training would never end."""
    assert nif("train", *tiny, "output_dir=run").code == 0
    path = Path("run/checkpoints/last.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    progress["optimizer"]["step"]["total"]["completed"] = wrong
    torch.save(checkpoint, path)
    error = nif("train", "resume=run", "trainer.max_steps=14").error
    assert "step.total.completed" in error
