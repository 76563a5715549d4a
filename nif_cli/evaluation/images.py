"""How close a run that adapts to images comes to those of a split."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from nif_cli import NifError, runs
from nif_cli.data.images.datamodule import ImageData
from nif_cli.evaluation.report import write_report
from nif_cli.evaluation.shapes import all_done
from nif_cli.inference.images import adapted, image_with_metrics
from nif_cli.metrics.image import IMAGE_METRICS
from nif_cli.models.metasdf import MetaSdf
from nif_cli.schemas import Evaluate

UNITS = {name: f"{metric.unit}, at the image's own size" for name, metric in IMAGE_METRICS.items()}


def evaluate_images(
    config: Evaluate, model: MetaSdf, run: Path, data: ImageData, device: torch.device
) -> None:
    """Every metric of images, of the images of a split, each adapted to some of its pixels; by default of
    those the run knows."""
    began, failed = time.monotonic(), []
    files = chosen_files(config, model, data)
    figures, reports = {}, {}
    for id, _, pixels, made in adapted(config, model, files, failed):
        figures[id], reports[id] = image_with_metrics(made.field, pixels, device)[1], made.report
    if not figures:
        raise failed[0]
    values = {name: [f[name] for f in figures.values() if name in f] for name in UNITS}
    values = {name: found for name, found in values.items() if found}
    report = {
        "protocol": {
            data.kind: {
                "mean": {name: float(np.mean(found)) for name, found in values.items()},
                "median": {name: float(np.median(found)) for name, found in values.items()},
                "worst": {
                    name: min(figures, key=lambda id: figures[id].get(name, np.inf)) for name in values
                },
                "instances": figures,
                "units": UNITS,
            }
        },
        "left_out": [str(error) for error in failed],
        "inferred": reports,
        "run": str(run),
        "checkpoint": config.checkpoint,
        "split": config.split,
        "seed": config.seed,
        "observe": {k: getattr(config, k) for k in ("points", "keep", "steps")},
    }
    path = write_report(report, config.output, run, began)
    part = report["protocol"][data.kind]
    print(f"\n{data.kind}: {len(figures)} image{'s' * (len(figures) != 1)}")
    for name, found in values.items():
        worst = part["worst"][name]
        figure = (
            f"{np.mean(found):.4f}  median {np.median(found):.4f}  worst {figures[worst][name]:.4f} {worst}"
        )
        print(f"  {name:<4}  {figure}  [{UNITS[name]}]")
    for error in failed:
        print(f"  left out: {error}")
    print(f"\n{path}")
    all_done([str(error) for error in failed], len(files), "image")


def chosen_files(config: Evaluate, model: MetaSdf, data: ImageData) -> dict[str, Path]:
    """The files to evaluate: of the run's own data, if no split is named, the images that it knows."""
    if not data.many:
        raise NifError(f"data.path={data.path}: must be a folder of images")
    files = data.files()
    if config.split is None and not isinstance(config.data, dict):
        data.split = "all"
        files = {id: file for id, file in data.files().items() if id in model.instances}
        if not files:
            raise NifError(f"no image of the run is in {data.path}: give split=test, or data.path=")
    if config.instances is not None:
        files = {id: files[id] for id in runs.select(list(files), config.instances)}
    return files
