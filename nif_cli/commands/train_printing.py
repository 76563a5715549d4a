"""What nif train says at the beginning and at the end."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer

from nif_cli.data.datamodule import Data
from nif_cli.field import Field
from nif_cli.models.model import Model
from nif_cli.progress import busy
from nif_cli.training import boards
from nif_cli.training.callbacks import Checkpoints
from nif_cli.training.csv_logger import write_summary
from nif_cli.training.lightning import Training
from nif_cli.training.provenance import Provenance
from nif_cli.training.trainer import trainer_time
from nif_cli.words import paste


def introduce(model: Model, data: Data, folder: Path, device: torch.device, seconds: float) -> None:
    """What is learned from, by what, and where the run is."""
    shapes = data.prepare()
    doubtful = [shape for shape in shapes if shape.report.doubts]
    for shape in shapes if len(shapes) <= 3 else doubtful[:10]:
        print(f"{shape.id}: {shape.report}")
    if len(doubtful) > 10 and len(shapes) > 3:
        print(f"... and {len(doubtful) - 10} more with something to say")
    weights = sum(p.numel() for p in model.parameters())
    where = (
        f"{torch.cuda.get_device_name(device)}"
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )
    print(f"{data.summary()} ({seconds:.1f} s); {type(model).__name__} with {weights:,} parameters; {where}")
    print(f"run: {folder}", flush=True)


def conclude(
    trainer: pl.Trainer,
    training: Training,
    data: Data,
    folder: Path,
    keeper: Checkpoints,
    value: float,
    about: Provenance,
    announce: bool,
) -> None:
    """How the training went: the summary is written, and what comes next is said."""
    timer = next((c for c in trainer.callbacks if isinstance(c, Timer)), None)  # type: ignore[attr-defined]
    model = training.model
    seconds = model.seconds  # those before a resume included
    loss = float(training.last["loss"]) if training.last else float("nan")
    model.eval()
    with busy("measuring what was learned"):
        figures = model.final_metrics(data)
    summary = {
        "overrides": about.overrides,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(p.nbytes for p in model.parameters()),
        "train/loss": loss,
        "val/loss": value,
        "val/loss best": keeper.best,
        **figures,
    }
    write_summary(folder, summary)
    boards.end(trainer.loggers, model.config, summary, trainer.global_step)
    about.end(f"stopped by {keeper.stopped_by}" if keeper.stopped_by else "done")
    speed = trainer.global_step / max(seconds, 1e-9)
    print(
        f"{trainer.global_step:,} steps in {seconds:.0f} s ({speed:.1f}/s), loss {loss:.5f}, held-out loss "
        f"{value:.5f}"
    )
    if figures:
        print(", ".join(f"{name} {figure:.4g}" for name, figure in figures.items()))
    if keeper.stopped_by:
        print(
            f"stopped by {keeper.stopped_by} and saved; go on with\n  nif train {paste(f'resume={folder}')}"
        )
    elif announce:
        if (
            timer is not None
            and trainer.global_step < trainer.max_steps
            and timer.time_remaining() is not None
        ):
            more = f"nif train {paste(f'resume={folder}')} trainer.max_time=..."
            print(f"stopped at trainer.max_time={trainer_time(timer)}; more: {more}")
        first = next(iter(model.instances))  # a scene's field costs seconds, and has a surface
        surface = model.instances[first].scene is not None or isinstance(model.field(first), Field)
        run = paste(f"run={folder}")
        print("next:" + f"\n  nif extract {run}" * surface + f"\n  nif render {run}")
