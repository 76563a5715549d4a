"""kill -9 at many moments of a training, from the start of its process to its end: every resumed run must end
with the weights, the optimizer and the metrics.csv of one that was not stopped, and leave no temporary file.

python tests/benchmarks/bench_kills.py [n=100] [steps=1500]
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, about

TRAIN = [
    "trainer.max_time=null",
    "callbacks=quiet",
    "callbacks.checkpoint.every_minutes=0.01",
    "logger=csv",
    "logger.every=20",
    "device=cpu",
    "data.count=5",
    "data.samples=1500",
    "data.surface_samples=400",
    "data.batch_points=128",
    "data.batch_shapes=2",
    "field=mlp",
    "field.width=24",
    "field.layers=2",
    "field.dropout=0.3",
    "model.code_size=4",
]


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "nif_cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments: str) -> str:
    """What it printed; AssertionError unless it ended well."""
    process = start(*arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"{' '.join(arguments)}: {process.returncode}\n{out}\n{err}"
    return out


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def difference(whole: Path, run: Path) -> str | None:
    """What of a resumed run is not as that of the whole one."""
    a, b = (torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (whole, run))
    for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        if not equal(a[key], b[key]):
            return key
    rows = []
    for r in (whole, run):
        with (r / "metrics.csv").open(newline="") as file:
            rows.append(
                [{k: v for k, v in row.items() if k != "train/seconds"} for row in csv.DictReader(file)]
            )
    if rows[0] != rows[1]:
        return f"metrics.csv ({len(rows[0])} rows, {len(rows[1])} after the resume)"
    left = [p.name for p in run.rglob(".*")]
    return f"left behind: {', '.join(left)}" if left else None


def main() -> None:
    given = dict(a.split("=", 1) for a in sys.argv[1:])
    n, steps = int(given.get("n", 100)), int(given.get("steps", 1500))
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ.update(
        OMP_NUM_THREADS="1", NIF_CACHE=str(root / "cache"), PYTHONPATH=str(Path(__file__).parents[2])
    )
    train = [*TRAIN, f"trainer.max_steps={steps}"]
    finish(*train, f"output_dir={root / 'whole'}")  # its samples are in the cache from now on
    shutil.rmtree(root / "whole")
    began = time.monotonic()
    finish(*train, f"output_dir={root / 'whole'}")
    seconds = time.monotonic() - began
    names = ("before there was a run", "before a checkpoint", "best.ckpt", "last.ckpt")
    stages: dict[str, int] = {name: 0 for name in names}
    exact, wrong = 0, []
    for k in range(n):
        run, moment = root / str(k), seconds * (k + 0.5) / n
        process = start(*train, f"output_dir={run}")
        time.sleep(moment)
        process.kill()
        process.communicate()
        kept = [w for w in ("last", "best") if (run / "checkpoints" / f"{w}.ckpt").is_file()]
        there = (run / "config.yaml").is_file()
        stage = f"{kept[0]}.ckpt" if kept else "before a checkpoint" if there else "before there was a run"
        stages[stage] += 1
        try:
            finish(*([f"resume={run}"] if there else [*train, f"output_dir={run}"]))
            different = difference(root / "whole", run)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            different = str(error)
        exact += different is None
        if different:
            wrong.append({"seconds": round(moment, 2), "stage": stage, "different": different[:300]})
        print(f"{k + 1}/{n}  {moment:5.2f} s  {stage:<22}  {different or 'exact'}", flush=True)
        shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(root)
    figures = {
        **about(),
        "kills": n,
        "exact": exact,
        "killed": stages,
        "wrong": wrong,
        "training [s]": round(seconds, 1),
    }
    path = RESULTS / "reliability.json"
    report = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**report, "kills": figures}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
