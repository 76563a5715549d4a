"""What a model that is no shape says of itself."""

from __future__ import annotations

import time
from pathlib import Path

from nif_cli.data.datamodule import Data
from nif_cli.evaluation.report import write_report
from nif_cli.models.model import Model
from nif_cli.progress import busy
from nif_cli.schemas import Evaluate


def evaluate_figures(config: Evaluate, run: Path, model: Model, data: Data) -> None:
    """What a model that is no shape says of itself: of an image PSNR and SSIM, on trained and on held-out
    pixels."""
    began, id = time.monotonic(), next(iter(model.instances))
    with busy("measuring"):
        data.prepare()
        figures = model.final_metrics(data)
    report = {
        "protocol": {
            data.kind: {"mean": figures, "median": figures, "instances": {id: figures}, "units": model.units}
        },
        "run": str(run),
        "checkpoint": config.checkpoint,
    }
    path = write_report(report, config.output, run, began)
    print(f"\n{data.kind}: {id}")
    for name, figure in figures.items():
        print(f"  {name:<{max(map(len, figures))}}  {figure:.4f}  [{model.units[name]}]")
    print(f"\n{path}")
