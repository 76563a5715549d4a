"""Does the default recipe learn? Real meshes with model=sdf, and 16 toy chairs with model=deepsdf; the clock
is the command's.

    NIF_DATA=<folder> python tests/benchmarks/bench_quality.py [sdf] [deepsdf]

sdf: two-way distance (design: 100,000 samples each way, exact, in the unit ball) of `nif extract
resolution=256` to the input mesh, for bunny, spot, rocker-arm and armadillo with the same recipe. deepsdf:
volume IoU of each training chair, at 100,000 uniform points in its bounding box, against the winding number
of its mesh.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import record

from nif_cli import runs
from nif_cli.data.shapes.toy import toy_shape
from nif_cli.field import Field, evaluate
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.mesh import load_mesh
from nif_cli.metrics.shape import iou, two_way_distance

MESHES = ("stanford-bunny", "spot", "rocker-arm", "armadillo")


def nif(*args: str, cwd: str) -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "nif_cli", *args],
        cwd=cwd,
        check=True,
        env={**os.environ, "NIF_CACHE": f"{cwd}/cache"},
    )
    return round(time.monotonic() - began, 1)


def sdf() -> dict:
    results = {}
    for name in MESHES:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(os.environ["NIF_DATA"]).resolve() / "meshes" / f"{name}.obj"
            command = ["train", "model=sdf", "data=meshes", f"data.path={source}", "output_dir=run"]
            seconds = nif(*command, cwd=folder)
            extract = nif("extract", "run=run", "resolution=256", cwd=folder)
            distance = two_way_distance(load_mesh(f"{folder}/run/meshes/{name}.ply"), load_mesh(source))
            results[name] = {
                "two-way distance": round(distance, 6),
                "train seconds": seconds,
                "extract 256 seconds": extract,
            }
            print(name, results[name], flush=True)
    return results


def deepsdf() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = ["train", "model=deepsdf", "data=toy_shapes", "data.count=16", "data.families=[chair]"]
        command += ["trainer.max_time=00:00:02:30", "output_dir=run"]
        seconds = nif(*command, cwd=folder)
        model = runs.load_model(Path(folder) / "run")
    rng = np.random.default_rng(0)
    values = {}
    for n, (id, instance) in enumerate(model.instances.items()):
        mesh = toy_shape("chair", n)
        vertices = instance.transform.to_normalised(mesh.vertices)
        points = rng.uniform(vertices.min(0), vertices.max(0), (100_000, 3))
        truth = MeshDistance(vertices, mesh.faces).winding_number(points) > 0.5
        field = model.field(id)
        assert isinstance(field, Field)
        values[id] = round(iou(truth, (evaluate(field, torch.from_numpy(points).float()) > 0).numpy()), 4)
    return {
        "seconds": seconds,
        "command": "nif " + " ".join(command),
        "min": min(values.values()),
        "iou": values,
    }


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["sdf", "deepsdf"]
    for name in chosen:
        record(f"quality_{name}", {name: {"sdf": sdf, "deepsdf": deepsdf}[name]()})
