"""How good scenes get, and how fast: held-out PSNR over the seconds of training, and the protocol's figures
at the end.

    NIF_DATA=<folder> python tests/benchmarks/bench_nerf.py [lego] [published] [fox] [chair] [device=cuda]
    [run=<folder>]

lego: lego-400 (white, 25 test views of 400 x 400) by experiment=ngp_small, five minutes; published: the
network of Mildenhall et al. 2020 on the same, as long; fox: experiment=ngp_fox_small, every 8th view held
out; chair (needs a GPU): chair-800 by experiment=ngp_chair, 20,000 steps. The curve is what the run itself
watches: 4096 rays of the held-out views, always the same. Without names: lego and fox. With run= the figures
are those of a run that is trained and evaluated already.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import record

MINUTES = "trainer.max_time=00:00:05:00"
SCENES = {
    "lego": ("lego-400", "blender", ["experiment=ngp_small", MINUTES]),
    "published": ("lego-400", "blender", ["experiment=nerf_lego", "data.downscale=1", MINUTES]),
    "fox": ("fox", "llff", ["experiment=ngp_fox_small", MINUTES]),
    "chair": ("chair-800", "blender", ["experiment=ngp_chair"]),
}
MARKS = (25, 28, 30, 33, 34.8)  # dB that the seconds to are given


def nif(folder: str, *args: str) -> None:
    subprocess.run([sys.executable, "-m", "nif_cli", *args], cwd=folder, check=True)


def curve(run: Path) -> list[tuple[float, float]]:
    """(seconds, PSNR of the watched rays), from metrics.csv."""
    points, seconds = [], 0.0
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            seconds = float(row.get("train/seconds") or seconds)
            if row.get("val/psnr"):
                points.append((round(seconds, 1), round(float(row["val/psnr"]), 2)))
    return points


def measured(name: str, device: str, trained: str | None) -> dict:
    data, protocol, overrides = SCENES[name]
    root = Path(os.environ["NIF_DATA"]).resolve() / "nerf" / data
    command = ["train", *overrides, f"data.root={root}", f"device={device}", "output_dir=run"]
    with tempfile.TemporaryDirectory() as folder:
        if trained is None:
            nif(folder, *command)
            nif(folder, "evaluate", "run=run", f"protocol={protocol}", f"device={device}")
        run = Path(trained or f"{folder}/run")
        summary = json.loads((run / "summary.json").read_text())
        report = json.loads((run / "evaluation.json").read_text())
        points = curve(run)
    reached = {f"{db} dB": next((s for s, p in points if p >= db), None) for db in MARKS}
    return {
        "command": "nif " + " ".join(command).replace(str(root), f"$NIF_DATA/nerf/{data}"),
        protocol: report["protocol"][protocol]["mean"],
        "measured": report["protocol"][protocol]["measured"],
        "seconds of training": summary["seconds"],
        "steps": summary["steps"],
        "seconds of evaluating": report["seconds"],
        "seconds to (watched rays)": reached,
        "curve (seconds, dB of the watched rays)": points[:: max(1, len(points) // 40)],
    }


if __name__ == "__main__":
    device = next((a.partition("=")[2] for a in sys.argv[1:] if a.startswith("device=")), "cpu")
    trained = next((a.partition("=")[2] for a in sys.argv[1:] if a.startswith("run=")), None)
    for name in [a for a in sys.argv[1:] if "=" not in a] or ["lego", "fox"]:
        threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
        record(f"nerf_{name}", {"threads": threads, name: measured(name, device, trained)})
