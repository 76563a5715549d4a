"""Meshes by the surface against meshes by the volume: time, evaluations, memory, and whether they are the
same.

    NIF_DATA=<folder> python tests/benchmarks/bench_extraction.py [random plane spot armadillo small] [quick]
    [device=cpu]

The paper's network (8 x 512, code 256) with random weights and trained on three shapes, a 4 x 128 network for
1024^3. Runs and dense grids are kept in outputs/bench_extraction, and made where they are missing: a training
takes about four minutes on two cores, a dense grid of 256^3 four to nine (`quick`: in a third of it, not all
in float32).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import trimesh
from machine import record
from scipy.spatial import KDTree

from nif_cli import runs
from nif_cli.field import Field, bind, evaluate
from nif_cli.fields.mlp import MLP
from nif_cli.geometry.extraction import dense_values, extract_mesh, mesh_of_values
from nif_cli.geometry.lattice import Grid

FOLDER = Path("outputs/bench_extraction")
DATA = Path(os.environ.get("NIF_DATA", "."))
PAPER = [
    "model=deepsdf",
    "field=deepsdf",
    "field.dropout=0",
    "model.code_size=256",
    "model.lr=5e-4",
    "data.batch_points=4096",
]
PAPER += ["trainer.precision=bf16-mixed", "trainer.max_steps=1500"]
SMALL = ["model=sdf", "field=positional", "field.width=128", "field.layers=4", "trainer.max_steps=3000"]
NETWORKS = {
    "random": [],
    "plane": [*PAPER, "data=deepsdf", f"data.root={DATA}/shapenet-planes-deepsdf", "data.instances=1"],
    "spot": [*PAPER, "data=meshes", f"data.path={DATA}/meshes/spot.obj"],
    "armadillo": [*PAPER, "data=meshes", f"data.path={DATA}/meshes/armadillo.obj"],
    "small": [*SMALL, f"data.path={DATA}/meshes/spot.obj"],
}


def network(name: str, device: str) -> Field:
    if name == "random":
        torch.manual_seed(0)
        made = (
            MLP(3, 1, 256, layers=8, width=512, skips=[4], weight_norm=True, output="tanh")
            .eval()
            .fold(None)[0]
            .to(device)
        )
        field = bind(made, torch.randn(256, device=device) / 16, truncation=0.0)
        points = torch.rand(4096, 3, device=device) * 2 - 1
        field.level = float(evaluate(field, points).median())  # at 0 it may have no surface at all
        return field
    path = FOLDER / f"run_{name}"
    if not (path / "checkpoints" / "last.ckpt").exists():
        train = [*NETWORKS[name], f"output_dir={path}", "trainer.max_time=null", "callbacks=quiet"]
        subprocess.run([sys.executable, "-m", "nif_cli", "train", *train], check=True)
    model = runs.load_model(path, device=device)
    field = model.field(next(iter(model.instances)))
    assert isinstance(field, Field)
    return field


def dense(name: str, field: Field, n: int, device: str, quick: bool) -> dict:
    """All values of the grid, and the seconds that they took by the clock and of the processor (kept in a
    file).

    `quick`: float32 only where bfloat16 is within four times its largest error (at 65,536 points) of the
    level, and at the ends of all edges that are crossed; of the random network no values at all. The seconds
    are then those of 2^18 points in float32, times so many.
    """
    path = FOLDER / f"dense_{name}_{n}.npz"
    if not path.exists():
        grid, found = Grid(field, n, field.level, device), {}
        some = torch.rand(2**18, 3, device=device) * 2 - 1
        exact: torch.Tensor | None = None
        began, cpu = time.perf_counter(), time.process_time()
        if quick:
            exact, share = evaluate(field, some), n**3 / len(some)
        else:
            found["values"], share = dense_values(grid), 1.0
        found["seconds"], found["cpu"] = (
            (time.perf_counter() - began) * share,
            (time.process_time() - cpu) * share,
        )
        if exact is not None and name != "random":
            with torch.autocast(device, torch.bfloat16):
                found["error"] = float((evaluate(field, some[: 2**16]).float() - exact[: 2**16]).abs().max())
                values = dense_values(grid)
            near = np.abs(values - field.level) < 4 * found["error"]
            for ends in (False, True):
                i, j, k = np.nonzero(ends_of_crossed_edges(values > field.level) & ~near if ends else near)
                values[i, j, k] = (
                    grid.values(torch.from_numpy(np.stack((i, j, k), 1) + 1).to(device)).cpu().numpy()
                )
            found["values"] = values
        np.savez(path, **found)
    with np.load(path) as kept:
        return {key: kept[key] for key in kept.files}


def ends_of_crossed_edges(inside: np.ndarray) -> np.ndarray:
    found = np.zeros_like(inside)
    for axis in range(3):
        lower, upper = (
            tuple(part if n == axis else slice(None) for n in range(3))
            for part in (slice(-1), slice(1, None))
        )
        crossed = inside[lower] != inside[upper]
        found[lower] |= crossed
        found[upper] |= crossed
    return found


def touched(mesh, field: Field, n: int) -> int:
    """How many grid vertices belong to a cell that holds a triangle."""
    low, high = field.bounds.double().cpu().numpy()
    cells = np.unique(
        np.floor((mesh.triangles_center - low) / (high - low) * (n - 1)).astype(np.int64), axis=0
    )
    corners = (cells[:, None] + np.array(list(np.ndindex(2, 2, 2)))).reshape(-1, 3)
    return len(np.unique((corners[:, 0] * n + corners[:, 1]) * n + corners[:, 2]))


def compared(sparse, whole, values: np.ndarray, field: Field) -> dict:
    """The triangles that only one of two meshes has; those in cells with a corner within 1e-5 of the level
    are left out."""
    n = len(values)
    low, high = field.bounds.double().cpu().numpy()
    close = np.abs(values - field.level) < 1e-5
    doubtful = np.zeros((n - 1,) * 3, bool)
    for dx, dy, dz in np.ndindex(2, 2, 2):
        doubtful |= close[dx : n - 1 + dx, dy : n - 1 + dy, dz : n - 1 + dz]
    distance, row = map(np.asarray, KDTree(whole.vertices).query(sparse.vertices))
    sets = []
    for mesh, faces in ((sparse, row[sparse.faces]), (whole, whole.faces)):
        cells = np.floor((mesh.triangles_center - low) / (high - low) * (n - 1)).astype(int).clip(0, n - 2)
        faces = faces[~doubtful[tuple(cells.T)]]
        faces = faces[np.arange(len(faces))[:, None], (faces.argmin(1)[:, None] + np.arange(3)) % 3]
        sets.append(set(map(tuple, faces.tolist())))
    return {
        "triangles": len(whole.faces),
        "only_dense": len(sets[1] - sets[0]),
        "only_sparse": len(sets[0] - sets[1]),
        "vertices_farther_than_1e-6": int((distance > 1e-6).sum()),
        "farthest_vertex": float(f"{distance.max():.3g}"),
        "cells_excepted": int(doubtful.sum()),
    }


def measure(name: str, device: str, quick: bool) -> dict:
    field = network(name, device)
    whole_grid = dense(name, field, 256, device, quick)
    dense_seconds, dense_cpu = float(whole_grid["seconds"]), float(whole_grid["cpu"])
    evaluate(field, torch.rand(10_000, 3, device=device))  # warm
    found = {}
    for n in (256, 512):
        took = []
        mesh = trimesh.Trimesh()
        for _ in range(2 if n == 256 else 1):
            began, cpu = time.perf_counter(), time.process_time()
            mesh = extract_mesh(field, n, device=device)
            took.append((time.perf_counter() - began, time.process_time() - cpu))
        seconds, cpu = min(took)
        count = touched(mesh, field, n)
        evaluations = mesh.metadata["evaluations"]
        found[str(n)] = {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "evaluations": evaluations,
            "grid_vertices_of_crossed_cells": count,
            "evaluations_each": round(evaluations / count, 3),
            "points_per_evaluation": round(n**3 / evaluations, 1),
            "closed": bool(mesh.is_watertight),
        }
        if n == 256:
            found["256"] |= {
                "dense_seconds": round(dense_seconds, 1),
                "dense_cpu_seconds": round(dense_cpu, 1),
            }
            found["256"]["speed_up"] = round(dense_cpu / cpu, 1)
            found["256"]["of_the_possible"] = round(dense_cpu / cpu / (n**3 / evaluations), 2)
            if "error" in whole_grid:
                found["256"]["dense_is_bfloat16_far_from_the_level_with_error"] = round(
                    float(whole_grid["error"]), 5
                )
            if "values" in whole_grid:
                whole = mesh_of_values(Grid(field, n, field.level, device), whole_grid["values"])
                found["256"]["against_dense"] = compared(mesh, whole, whole_grid["values"], field)
    found["cpu_time_512_to_256"] = round(found["512"]["cpu_seconds"] / found["256"]["cpu_seconds"], 2)
    return found


def memory(device: str) -> dict:
    """1024^3 of a 4 x 128 network, from the command line: peak memory of the process, mesh and its file
    included."""
    network("small", device)
    command = [
        "extract",
        f"run={FOLDER}/run_small",
        "resolution=1024",
        f"device={device}",
        f"output={FOLDER}/large",
    ]
    began = time.perf_counter()
    out = subprocess.run(
        [sys.executable, "-m", "nif_cli", *command], check=True, capture_output=True, text=True
    ).stdout
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_GiB": round(peak / 2**30, 2),
        "says": out.split("  ")[-1].strip(),
    }


def main() -> None:
    device = next((word.removeprefix("device=") for word in sys.argv if word.startswith("device=")), "cpu")
    quick = "quick" in sys.argv
    chosen = [name for name in sys.argv[1:] if name in NETWORKS] or list(NETWORKS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    figures = {"threads": torch.get_num_threads(), "device": device}
    figures["remark"] = (
        "speed_up and ratios of times are those of processor seconds: others may have used the machine"
    )
    if "small" in chosen:  # first: the peak is that of all processes that this one has started
        figures["small_1024"] = memory(device)
    figures |= {name: measure(name, device, quick) for name in chosen if name != "small"}
    record("extraction", figures)


if __name__ == "__main__":
    main()
