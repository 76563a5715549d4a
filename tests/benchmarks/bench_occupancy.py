"""Occupancy networks on real chairs: 500 to learn from, 100 unseen ones reconstructed from noisy points; and
decoding.

    NIF_DATA=<folder> python tests/benchmarks/bench_occupancy.py [planes] [grid] [pointcloud] [decode]
        [points=300,3000] [minutes=10] [threads=2] [device=cpu] [keep=<folder>] [name=occupancy]

Trains by `nif train experiment=..._small`, evaluates by `nif evaluate protocol=[convonet] split=test`: IoU at
100,000 uniform points against the filled grids, Chamfer and F-scores of meshes at resolution 64, from points
with noise 0.005. decode: 100,000 points of one shape by the published decoder (width 256, code 256), folded
and not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import record

from nif_cli.fields.conditional import ConditionalResNet

EXPERIMENTS = {
    "planes": "convonet_planes_small",
    "grid": "convonet_grid_small",
    "pointcloud": "onet_points_small",
}


def nif(*args: str, cwd: Path, threads: int) -> float:
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "nif_cli", *args], cwd=cwd, check=True, env=environment)
    return round(time.monotonic() - began, 1)


def train_and_evaluate(
    encoder: str, points: int, folder: Path, minutes: float, threads: int, device: str
) -> dict:
    source = Path(os.environ["NIF_DATA"]).resolve() / "modelnet-chairs" / "voxels.npz"
    run = f"{encoder}_{points}"
    seconds = round(60 * minutes)
    clock = f"00:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    command = [
        "train",
        f"experiment={EXPERIMENTS[encoder]}",
        "data=voxels",
        f"data.path={source}",
        "data.test=100",
    ]
    command += [
        f"encoder.points={points}",
        "model.mirror=x",
        f"trainer.max_time={clock}",
        f"output_dir={run}",
    ]
    command += [f"device={device}", "callbacks=quiet", "logger=csv"]
    if points > 1000 and encoder != "pointcloud":
        command.append("encoder.pool=mean")
    took = nif(*command, cwd=folder, threads=threads)
    evaluate = [
        "evaluate",
        f"run={run}",
        "protocol=[convonet]",
        "split=test",
        f"points={points}",
        "noise=0.005",
    ]
    evaluate += ["resolution=64", f"device={device}"]
    nif(*evaluate, cwd=folder, threads=threads)
    summary = json.loads((folder / run / "summary.json").read_text())
    found = json.loads((folder / run / "evaluation.json").read_text())["protocol"]["convonet"]
    return {
        "mean": {k: round(v, 4) for k, v in found["mean"].items()},
        "median": {k: round(v, 4) for k, v in found["median"].items()},
        "steps": summary["steps"],
        "seconds of training": summary["seconds"],
        "seconds in all": took,
        "parameters": summary["parameters"],
        "commands": [
            "nif " + " ".join(c).replace(str(source.parents[1]), "$NIF_DATA") for c in (command, evaluate)
        ],
    }


def decode(device: str, threads: int) -> dict:
    torch.set_num_threads(threads)
    network = ConditionalResNet(code_size=256).to(device).eval()
    points, code = torch.rand(1, 100_000, 3, device=device), torch.randn(1, 256, device=device)
    for p in network.parameters():
        torch.nn.init.normal_(p, 0, 0.05)
    folded, _ = network.fold(code[0])

    def seconds(run) -> float:
        times = []
        for _ in range(7):
            if device != "cpu":
                torch.cuda.synchronize()
            began = time.perf_counter()
            for part in points.split(2**14, 1):
                run(part)
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return sorted(times)[len(times) // 2]

    with torch.no_grad():
        plain, merged = seconds(lambda x: network(x, code)), seconds(folded)
        error = float(
            (network(points, code) - folded(points)).abs().max() / network(points, code).abs().max()
        )
    return {
        "points": 100_000,
        "seconds": round(plain, 4),
        "seconds folded": round(merged, 4),
        "times as fast": round(plain / merged, 2),
        "largest difference, relative": error,
    }


def main() -> None:
    settings = dict(arg.split("=", 1) for arg in sys.argv[1:] if "=" in arg)
    chosen = [arg for arg in sys.argv[1:] if "=" not in arg] or [*EXPERIMENTS, "decode"]
    minutes, threads, device = (
        float(settings.get("minutes", 10)),
        int(settings.get("threads", 2)),
        settings.get("device", "cpu"),
    )
    results: dict = {"threads": threads, "device": device, "minutes": minutes}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(settings.get("keep", temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for encoder in chosen:
            if encoder == "decode":
                results["decode"] = decode(device, threads)
                continue
            for points in map(int, settings.get("points", "300,3000").split(",")):
                results[f"{encoder} {points}"] = train_and_evaluate(
                    encoder, points, folder, minutes, threads, device
                )
                print(encoder, points, results[f"{encoder} {points}"], flush=True)
                record(settings.get("name", "occupancy"), results)  # each as it comes
    record(settings.get("name", "occupancy"), results)


if __name__ == "__main__":
    main()
