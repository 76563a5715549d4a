"""Speed of the trunk, as ratios measured in one run.

    python tests/benchmarks/bench_speed.py [step] [loop] [cli]

step: the training step (forward, loss, backward, Adam) of the paper's DeepSDF network, 8 x 512 with weight
norm, dropout 0.2 and codes of 256, on 16 shapes x 1,024 points, against the matmul peak of the same run (`mm`
of 16384 x 512 x 512), in float32 and in bfloat16 autocast. Its floating-point operations are those of the
products it makes: the part of a code is computed once a shape and not counted, nor is a gradient towards the
points. loop: seconds a step of `nif train` (batches, logging, checkpoints, progress) above a bare Lightning
Trainer with the same 3 x 64 network, optimizer, loss and one fixed batch, and above a bare loop.
cli: processor seconds of `nif --help` and `nif train --cfg job`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch
from machine import record
from torch import Tensor

from nif_cli.data.memory import keep_memory
from nif_cli.fields.mlp import MLP, Linear
from nif_cli.losses import clamped_l1
from nif_cli.optim.adam import Adam
from nif_cli.training.trainer import quiet


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def step(rounds: int = 9) -> dict:
    keep_memory()  # as nif train does
    shapes, points = 16, 1024
    network = MLP(
        3, 1, 256, width=512, layers=8, skips=[4], weight_norm=True, dropout=0.2, output="tanh"
    ).train()
    optimizer = Adam(network.parameters(), lr=5e-4, fused=True)
    x = torch.rand(shapes, points, 3) * 2 - 1
    distance = 0.5 - x.norm(dim=-1)
    codes = (torch.randn(shapes, 256) / 16).requires_grad_()
    rows = shapes * points
    layers = [layer for layer in (*network.hidden, network.last) if isinstance(layer, Linear)]
    work = [2 * rows * layer.features * layer.weight.shape[0] for layer in layers]
    flops = 3 * sum(work) - work[0]
    a, b = torch.randn(16384, 512), torch.randn(512, 512)

    def train(bfloat16: bool) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            predicted = network(x, codes)[..., 0]
        clamped_l1(predicted.float(), distance, 0.1).backward()
        optimizer.step()

    result = {"threads": torch.get_num_threads(), "gflop a step": round(flops / 1e9, 1)}
    for name, bfloat16 in (("float32", False), ("bfloat16 autocast", True)):
        u, v = (a.bfloat16(), b.bfloat16()) if bfloat16 else (a, b)
        for _ in range(3):
            train(bfloat16)
            torch.mm(u, v)
        pairs = []
        for _ in range(rounds):  # side by side: the machine's speed drifts
            products = [seconds(partial(torch.mm, u, v)) for _ in range(5)]
            speed = flops / seconds(partial(train, bfloat16))
            pairs.append(
                (speed, 2 * 16384 * 512 * 512 / median(products), 2 * 16384 * 512 * 512 / min(products))
            )
        result[name] = {
            "mm, median of 5, GFLOP/s": round(median(m for _, m, _ in pairs) / 1e9),
            "mm, best of 5, GFLOP/s": round(median(b for _, _, b in pairs) / 1e9),
            "step, GFLOP/s": round(median(s for s, _, _ in pairs) / 1e9),
            "step / median mm": round(median(s / m for s, m, _ in pairs), 3),
            "step / best mm": round(median(s / b for s, _, b in pairs), 3),
            "step / best mm, all": [round(s / b, 3) for s, _, b in pairs],
        }
    return result


class Bare(pl.LightningModule):
    def __init__(self, points: int):
        super().__init__()
        self.network = MLP(width=64, layers=3)
        self.x = torch.rand(1, points, 3) * 2 - 1
        self.distance = 0.5 - self.x.norm(dim=-1)

    def training_step(self, batch: object, index: int) -> Tensor:
        return clamped_l1(self.network(self.x, None)[..., 0], self.distance, 0.1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return Adam(self.parameters(), lr=1e-3, fused=True)


class Endless:
    def __len__(self) -> int:
        return 500

    def __iter__(self):
        return iter(range(500))


def loop(steps: int = 2000, points: int = 512, rounds: int = 3) -> dict:
    mesh = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
    rows = []
    for _ in range(rounds):
        bare = Bare(points)
        optimizer = bare.configure_optimizers()

        def plain(model: Bare, optimizer: torch.optim.Optimizer) -> None:
            for i in range(steps):
                optimizer.zero_grad()
                model.training_step(None, i).backward()
                optimizer.step()

        alone = seconds(partial(plain, bare, optimizer)) / steps
        with quiet():
            trainer = pl.Trainer(
                max_steps=steps,
                max_epochs=-1,
                accelerator="cpu",
                devices=1,
                logger=False,
                inference_mode=False,
                enable_progress_bar=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            lightning = seconds(lambda: trainer.fit(Bare(points), Endless())) / steps  # noqa: B023
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tetrahedron.obj").write_text(mesh)
            command = [
                "train",
                "model=sdf",
                "field=mlp",
                "field.width=64",
                "field.layers=3",
                "data.path=tetrahedron.obj",
            ]
            command += [
                f"data.batch_points={points}",
                f"trainer.max_steps={steps}",
                "trainer.max_time=null",
                "output_dir=run",
            ]
            command += ["data.samples=100000", "callbacks.preview=null"]
            subprocess.run(
                [sys.executable, "-m", "nif_cli", *command], cwd=folder, check=True, capture_output=True
            )
            lines = [line.split(",") for line in (Path(folder) / "run/metrics.csv").read_text().splitlines()]
            column = lines[0].index("train/seconds")
            clock = [(int(r[0]), float(r[column])) for r in lines[1:] if r[column]]
        whole = (clock[-1][1] - clock[0][1]) / (clock[-1][0] - clock[0][0])
        rows.append([1000 * x for x in (alone, lightning, whole)])
    alone, lightning, whole = (round(median(c), 3) for c in zip(*rows, strict=True))
    extra = round(median(r[2] - r[1] for r in rows), 3)
    return {
        "ms a step": {"bare loop": alone, "bare Lightning": lightning, "nif train": whole},
        "nif above Lightning, ms": extra,
        "all": [[round(x, 3) for x in r] for r in rows],
    }


def cli(rounds: int = 5) -> dict:
    """Of a toy run, whose extraction at resolution=16 itself takes a few hundredths of a second."""
    with tempfile.TemporaryDirectory() as folder:

        def processor(*words: str) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        nif = ("-m", "nif_cli")
        few = ["trainer.max_time=null", "trainer.max_steps=30", "callbacks=quiet", "data.samples=2000"]
        processor(*nif, "train", *few, "device=cpu", "name=toy")
        mesh = "outputs/toy/meshes/chair/0000.ply"
        extract = ("extract", "run=toy", "instances=1", "resolution=16", "device=cpu")
        processor(*nif, *extract)
        for k in range(10_000):
            run = Path(folder) / f"many/kind-{k % 7}/{k:05d}"
            (run / "checkpoints").mkdir(parents=True)
            (run / "config.yaml").write_text("model: {}\n")
            (run / "run.json").write_text(json.dumps({"format": 1, "begun": 1e9 + k, "end": "done"}))
            (run / "summary.json").write_text(
                json.dumps({"steps": k, "seconds": 1.0, "val/loss": 1 / (k + 1)})
            )
        timed = {
            "python": ("-c", "pass"),
            "import nif_cli": ("-c", "import nif_cli"),
            "import torch": ("-c", "import torch"),
            "nif --help": (*nif, "--help"),
            "nif train --help": (*nif, "train", "--help"),
            "nif help data": (*nif, "help", "data"),
            "nif train --cfg job": (*nif, "train", "--cfg", "job"),
            "nif runs": (*nif, "runs"),
            "nif runs, of 10,000": (*nif, "runs", "many"),
            "nif runs n=all, of 10,000": (*nif, "runs", "many", "n=all"),
            "nif extract": (*nif, *extract),
            "nif evaluate mesh= reference=": (*nif, "evaluate", f"mesh={mesh}", f"reference={mesh}"),
        }
        found = {name: median(processor(*words) for _ in range(rounds)) for name, words in timed.items()}
    return {"processor seconds, median": {name: round(seconds, 3) for name, seconds in found.items()}}


if __name__ == "__main__":
    os.environ.setdefault("NIF_CACHE", tempfile.mkdtemp())
    chosen = sys.argv[1:] or ["step", "loop", "cli"]
    for name in chosen:
        record(f"speed_{name}", {name: {"step": step, "loop": loop, "cli": cli}[name]()})
