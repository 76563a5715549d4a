"""The auto-decoder on real shapes, and what its commands cost.

    NIF_DATA=<folder> python tests/benchmarks/bench_codes.py [planes] [chairs] [fitting] [nearest] [--minutes
    10]
        [--device cpu] [overrides of nif train ...]

planes: the 5 planes of shapenet-planes-deepsdf with experiment=deepsdf_small, protocols deepsdf and two
others. chairs: 64 chairs of modelnet-chairs (48 to learn from, 16 of those held out), IoU of codes inferred
from signed samples, with 1 and 4 restarts. fitting: 16 unseen shapes in one batch against one after the
other, and on a GPU if there is one. nearest: 100,000 points against 100,000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import record

from nif_cli.data.shapes.samples import PointSamples
from nif_cli.fields.mlp import MLP
from nif_cli.geometry.transform import Transform
from nif_cli.metrics.shape import nearest
from nif_cli.models.deepsdf import DeepSdf
from nif_cli.models.model import Instance


def nif(*args: str, cwd: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "nif_cli", *args], cwd=cwd, check=True)
    return round(time.monotonic() - began, 1)


def clock(minutes: float) -> str:
    seconds = round(minutes * 60)
    return f"00:00:{seconds // 60:02d}:{seconds % 60:02d}"


def told(command: list[str]) -> str:
    return "nif " + " ".join(command).replace(str(Path(os.environ["NIF_DATA"]).resolve()), "$NIF_DATA")


def experiment(given: argparse.Namespace) -> list[str]:
    return [] if any(o.startswith("experiment=") for o in given.overrides) else ["experiment=deepsdf_small"]


def planes(given: argparse.Namespace) -> dict:
    root = Path(os.environ["NIF_DATA"]).resolve() / "shapenet-planes-deepsdf"
    train = [
        "train",
        *experiment(given),
        "data=deepsdf",
        f"data.root={root}",
        f"trainer.max_time={clock(given.minutes)}",
    ]
    train += [f"device={given.device}", "output_dir=run", *given.overrides]
    with tempfile.TemporaryDirectory() as folder:
        seconds = nif(*train, cwd=folder)
        evaluate = [
            "evaluate",
            "run=run",
            "protocol=[deepsdf,onet]",
            "resolution=256",
            f"device={given.device}",
        ]
        took = nif(*evaluate, cwd=folder)
        report = json.loads((Path(folder) / "run" / "evaluation.json").read_text())["protocol"]
        steps = json.loads((Path(folder) / "run" / "summary.json").read_text())["steps"]
    figures = {name: {k: report[name][k] for k in ("mean", "median", "instances")} for name in report}
    return {
        "train": told(train),
        "train seconds": seconds,
        "steps": steps,
        "evaluate seconds": took,
        **figures,
    }


def chairs(given: argparse.Namespace) -> dict:
    path = Path(os.environ["NIF_DATA"]).resolve() / "modelnet-chairs" / "voxels.npz"
    train = [
        "train",
        *experiment(given),
        "data=voxels",
        f"data.path={path}",
        "data.test=552",
        f"device={given.device}",
    ]
    train += [f"trainer.max_time={clock(given.minutes)}", "output_dir=run", *given.overrides]
    figures: dict = {"train": told(train)}
    with tempfile.TemporaryDirectory() as folder:
        figures["train seconds"] = nif(*train, cwd=folder)
        for name, extra in (
            ("known", ["instances=16"]),
            *((f"{r} restarts", ["split=test", "instances=16", f"restarts={r}"]) for r in (1, 4)),
        ):
            seconds = nif(
                "evaluate", "run=run", "protocol=onet", f"device={given.device}", *extra, cwd=folder
            )
            report = json.loads((Path(folder) / "run" / "evaluation.json").read_text())
            inferred = report["inferred"].values()
            figures[name] = {
                "seconds": seconds,
                "mean": report["protocol"]["onet"]["mean"],
                "median": report["protocol"]["onet"]["median"],
                "empty": report["empty"],
                "fitting loss": float(np.mean([r["loss"] for r in inferred])) if inferred else None,
            }
    return figures


def fitting(given: argparse.Namespace) -> dict:
    """A 4 x 128 network, 2,048 points a step: only the cost counts here, so its weights are random."""
    torch.manual_seed(0)
    device = torch.device(given.device)
    model = DeepSdf(
        lambda dim, out, code_size: MLP(dim, out, code_size, width=128, layers=4),
        torch.optim.Adam,
        code_size=64,
    )
    model.allocate(["a", "b"])
    assert model.codes is not None
    model.codes.weight.data.normal_(0, 0.1)
    model.instances = {id: Instance(id, Transform()) for id in ("a", "b")}
    model = model.to(device).eval()
    rng = np.random.default_rng(0)
    seen = []
    for radius in rng.uniform(0.3, 0.8, 16):
        points = rng.uniform(-1, 1, (20_000, 3)).astype(np.float32)
        seen.append(
            PointSamples(points=points, distance=(radius - np.linalg.norm(points, axis=1)).astype(np.float32))
        )

    def took(groups: list[list[PointSamples]], steps: int = 100) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for group in groups:
            model.infer(group, steps=steps, restarts=1, points=2048)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    alone = [[s] for s in seen]
    took([seen], 20)
    took(alone[:2], 20)
    pairs = [(took([seen]), took(alone)) for _ in range(3)]  # side by side: the machine is noisy
    return {
        "steps": 100,
        "together seconds": round(float(np.median([a for a, _ in pairs])), 3),
        "one after the other seconds": round(float(np.median([b for _, b in pairs])), 3),
        "times faster together": [round(b / a, 2) for a, b in pairs],
        "threads": torch.get_num_threads(),
    }


def nearest_neighbours(given: argparse.Namespace) -> dict:
    rng = np.random.default_rng(0)
    figures = {}
    sphere = rng.standard_normal((2, 100_000, 3))
    sphere /= np.linalg.norm(sphere, axis=2, keepdims=True)
    for name, (a, b) in {
        "same surface": sphere,
        "surfaces a tenth apart": (1.1 * sphere[0], sphere[1]),
        "volumes": rng.random((2, 100_000, 3)),
    }.items():
        times = []
        for _ in range(5):
            began = time.perf_counter()
            nearest(a, b)
            times.append(time.perf_counter() - began)
        figures[name] = round(float(np.median(times)), 3)
    return {"seconds": figures}


def main() -> None:
    parser = argparse.ArgumentParser()
    parts = {"planes": planes, "chairs": chairs, "fitting": fitting, "nearest": nearest_neighbours}
    parser.add_argument("what", nargs="*")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="codes")
    given = parser.parse_intermixed_args()
    given.overrides = [w for w in given.what if "=" in w]
    chosen = [w for w in given.what if "=" not in w] or list(parts)
    if "NIF_DATA" not in os.environ and {"planes", "chairs"} & set(chosen):
        sys.exit("bench_codes: set NIF_DATA to the folder of real data")
    record(given.name, {name: parts[name](given) for name in chosen})


if __name__ == "__main__":
    main()
