"""Learned initialisations: how fast is an outer step, and how many steps of Adam is one adaptation worth?

    python tests/benchmarks/bench_metasdf.py speed [device=cuda] [threads=2]
    NIF_DATA=<folder> python tests/benchmarks/bench_metasdf.py adapt [minutes=10] [threads=2] [device=cpu]
    [run=<folder>]
                                                                     [limit=300] [key=value of nif train ...]

speed: one outer step (32 shapes, 3 inner steps, second order; the query is context and as many points again),
batched over shapes against a plain loop over shapes that calls torch.autograd.grad(create_graph=True); each
in a process of its own, which measures its peak memory (that of the imports taken off).

adapt: `nif train experiment=metasdf_chairs` on the first 500 of 600 chairs; then, on the last 50 (the
settings were chosen on the 50 before them), the error
(mean |clamp(value) - clamp(distance)| at +-0.1 at 2,048 points that are not in the context, half of them
inside) after each adaptation step, against Adam from random initialisation: the same network, the same 2,048
context points in every step, rates 1e-4 to 5e-3; and the first number of Adam steps at which any of these
rates reaches the error after five steps. With `field=` the results are metasdf_adapt_<field>.
`run=` takes a run that is there already; `limit=` is how many steps of Adam are tried.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, record
from torch.func import functional_call

from nif_cli import runs
from nif_cli.config import build
from nif_cli.data.memory import keep_memory
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.fields.mlp import MLP
from nif_cli.losses import clamped_error
from nif_cli.models.inner_loop import Task, adam, spread
from nif_cli.models.metasdf import MetaSdf
from nif_cli.optim.adam import Adam
from nif_cli.rendering.charts import chart
from nif_cli.rendering.image_files import png_bytes

SHAPES, STEPS = 32, 3
SETTINGS = {"2,048 points, 5 x 256": (2048, 5, 256), "256 points, 4 x 64": (256, 4, 64)}
RATES = (1e-4, 3e-4, 1e-3, 2e-3, 5e-3)


def options() -> dict[str, str]:
    return dict(a.split("=", 1) for a in sys.argv[2:] if "=" in a)


# ---- speed ----


def step(kind: str, points: int, layers: int, width: int, device: str) -> tuple[MetaSdf, ShapeBatch, object]:
    torch.manual_seed(0)
    field = partial(MLP, width=width, layers=layers)
    memory = "3GiB" if device == "cpu" else None
    model = (
        MetaSdf(field, Adam, algorithm="maml", inner="same", steps=STEPS, inner_lr=1e-2, memory=memory)
        .to(device)
        .train()
    )
    x = torch.rand(SHAPES, 2 * points, 3, device=device) * 2 - 1
    batch = ShapeBatch(torch.arange(SHAPES), x, 0.5 - x.norm(dim=-1))

    def batched() -> list[torch.Tensor]:
        model.zero_grad()
        model.loss(batch)["query"].backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    def loop() -> list[torch.Tensor]:
        context, query = model.tasks(batch)
        names, theta = zip(*model.network.named_parameters(), strict=True)

        def error(weights, task: Task, k: int) -> torch.Tensor:
            out = functional_call(
                model.network, dict(zip(names, weights, strict=True)), (task.points[k : k + 1], None)
            )
            return clamped_error(out[..., 0], task.target[k : k + 1], model.clamp).mean()

        total = [torch.zeros_like(p) for p in theta]
        for k in range(SHAPES):
            weights = list(theta)
            for _ in range(STEPS):
                found = torch.autograd.grad(error(weights, context, k), weights, create_graph=True)
                weights = [w - model.inner_lr * g for w, g in zip(weights, found, strict=True)]
            found = torch.autograd.grad(error(weights, query, k) / SHAPES, theta)
            total = [a + b for a, b in zip(total, found, strict=True)]
        return total

    return model, batch, {"batched": batched, "loop": loop}[kind]


def one(kind: str, setting: str, device: str, threads: int) -> None:
    """In a process of its own: seconds of a step and its peak memory, as JSON on the last line."""
    torch.set_num_threads(threads)
    keep_memory()
    points, layers, width = SETTINGS[setting]
    _, _, run = step(kind, points, layers, width, device)
    cuda = device != "cpu"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checksum = sum(float(g.abs().sum()) for g in run())  # type: ignore[operator]
    seconds = []
    while len(seconds) < 2 or sum(seconds) < 4:
        began = time.perf_counter()
        run()  # type: ignore[operator]
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak / 2**10
    print(
        json.dumps(
            {"seconds": round(min(seconds), 4), "peak MiB": round(memory), "checksum": round(checksum, 5)}
        )
    )


def speed(device: str, threads: int) -> dict:
    results: dict = {"device": device, "threads": threads}
    for setting in SETTINGS:
        row = {}
        for kind in ("loop", "batched"):
            command = [sys.executable, __file__, "one", kind, setting, device, str(threads)]
            row[kind] = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
        row["times as fast as the loop"] = round(row["loop"]["seconds"] / row["batched"]["seconds"], 2)
        results[setting] = row
        print(setting, row, flush=True)
    return results


# ---- adaptation ----


def train(folder: Path, minutes: float, threads: int, device: str, more: list[str]) -> tuple[Path, list[str]]:
    chairs = Path(os.environ["NIF_DATA"]).resolve() / "modelnet-chairs" / "voxels.npz"
    seconds = round(60 * minutes)
    command = [
        "train",
        "experiment=metasdf_chairs",
        f"data.path={chairs}",
        f"device={device}",
        f"output_dir={folder}",
    ]
    command += [
        f"trainer.max_time=00:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        *more,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "nif_cli", *command], check=True, env=env)
    return folder, [c for c in command if not c.startswith(("data.path", "output_dir"))]


def held_out(model: MetaSdf, device: str, count: int = 50, points: int = 2048) -> tuple[Task, Task]:
    """Context and query of the last held-out shapes; half of each inside."""
    data = build({**model.config["data"], "split": "test"}, "data")
    rng = np.random.default_rng(0)
    both: list[list[np.ndarray]] = [[], []]
    for shape in data.prepare()[-count:]:
        inside = shape.distance > 0
        i, o = (rng.permutation(np.flatnonzero(s)) for s in (inside, ~inside))
        for k, rows in enumerate(both):
            chosen = np.concatenate(
                [np.resize(s[k * len(s) // 2 : (k + 1) * len(s) // 2], points // 2) for s in (i, o)]
            )
            rows.append(np.concatenate((shape.points[chosen], shape.distance[chosen, None]), 1))
    stacked = [torch.from_numpy(np.stack(rows)).float().to(device) for rows in both]
    context, query = (Task(s[..., :3].contiguous(), s[..., 3].contiguous()) for s in stacked)
    return context, query


def adapt(
    name: str, minutes: float, threads: int, device: str, run: str | None, more: list[str], limit: int = 300
) -> dict:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as temporary:
        command = []
        if run is None:
            folder, command = train(Path(temporary) / "run", minutes, threads, device, more)
        else:
            folder = Path(run)
        model = runs.load_model(folder, device=device)
        summary = json.loads((folder / "summary.json").read_text())
    assert isinstance(model, MetaSdf)
    context, query = held_out(model, device)
    shapes, part = len(query.points), 10
    parts = [slice(k, k + part) for k in range(0, shapes, part)]

    def error(weights, where: slice) -> float:
        with torch.no_grad():
            return model.value_errors(weights, query.part(where)).sum().item() / shapes

    ours = {}
    for k in (0, 1, 2, 3, 4, 5, 8, 10, 15, 20):
        ours[k] = round(sum(error(model.adapt(context.part(p), k)[0], p) for p in parts), 6)
    print("after k adaptation steps:", ours, flush=True)
    torch.manual_seed(1)
    random = runs.make_model(model.config).to(device).eval().get_submodule("network")
    watched = [*range(0, 10, 2), *range(10, 100, 5), *range(100, limit + 1, 10)]
    theirs: dict[str, dict[int, float]] = {}
    for rate in RATES:
        curve = dict.fromkeys(watched, 0.0)
        for p in parts:

            def watch(k: int, weights, p: slice = p, curve: dict = curve) -> None:
                if k in curve:
                    curve[k] += error(weights, p)

            def loss(weights, p: slice = p) -> torch.Tensor:
                return model.errors(weights, context.part(p), outer=True)

            adam(loss, spread(random, p.stop - p.start), rate, watched[-1], watch)
        theirs[f"{rate:g}"] = {k: round(v, 6) for k, v in curve.items()}
        print(
            f"Adam {rate:g}:",
            {k: round(curve[k], 5) for k in watched[:: max(1, len(watched) // 8)]},
            flush=True,
        )
    best = {k: min(c[k] for c in theirs.values()) for k in watched}
    reached = [k for k in watched if best[k] <= ours[5]]
    curves = {"learned, inner steps": ours, **{f"random, Adam {r}": c for r, c in theirs.items()}}
    label = f"error at +-{model.clamp:g}; {shapes} unseen chairs"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.png").write_bytes(png_bytes(chart(curves, "steps", label)))
    return {
        "train": "nif " + " ".join(command) if command else None,
        "minutes": minutes,
        "threads": threads,
        "outer steps": summary["steps"],
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "held-out shapes": shapes,
        "error after k adaptation steps": ours,
        "Adam steps to match five adaptation steps": reached[0] if reached else f"more than {watched[-1]}",
        "error of Adam from random initialisation": theirs,
    }


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "both"
    if what == "one":
        one(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        sys.exit()
    given = options()
    device, threads = given.pop("device", "cpu"), int(given.pop("threads", os.cpu_count() or 1))
    if what in ("speed", "both"):
        name = "metasdf_speed" + ("" if device == "cpu" else "_cuda")
        record(name, speed(device, threads))
    if what in ("adapt", "both") and os.environ.get("NIF_DATA"):
        minutes, run = float(given.pop("minutes", 10)), given.pop("run", None)
        limit = int(given.pop("limit", 300))
        more = [f"{k}={v}" for k, v in given.items()]
        name = "metasdf_adapt" + (f"_{given['field']}" if "field" in given else "")
        record(name, adapt(name, minutes, threads, device, run, more, limit))
    print(RESULTS)
