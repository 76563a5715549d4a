"""nif evaluate: how good the meshes of a run are, by the published protocols; or how close two meshes are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.config import check
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.memory import keep_memory
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.evaluation import images
from nif_cli.evaluation.adaptation_curve import compare, compare_image_adaptation, steps_of
from nif_cli.evaluation.data import data_of
from nif_cli.evaluation.figures import evaluate_figures
from nif_cli.evaluation.meshes import compare_meshes
from nif_cli.evaluation.shapes import chosen_shapes, evaluate_shapes
from nif_cli.evaluation.views import evaluate_views
from nif_cli.metrics.protocols import PROTOCOLS, Protocol
from nif_cli.metrics.view_protocols import VIEW_PROTOCOLS
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Model
from nif_cli.progress import busy
from nif_cli.schemas import Evaluate


def main(cfg: DictConfig) -> None:
    config = check(cfg, "evaluate")
    protocols, of_views = asked_for(config)
    if of_views and (config.mesh or config.reference):
        raise NifError(
            f"protocol={of_views[0]}: it compares images; for meshes there are {', '.join(PROTOCOLS)}"
        )
    if config.views is not None and (config.mesh or config.reference):
        raise NifError("views: of a scene; meshes have none")
    if config.mesh or config.reference:
        compare_meshes(config, protocols)
        return
    device = runs.device_for(config.device)
    run = runs.find(config.run)
    with busy("opening the run"):
        model = runs.load_model(run, config.checkpoint, device)
    if config.run is None:
        print(f"run: {run}")
    if device.type == "cpu" and issubclass(model.learns, Views):
        keep_memory()
    evaluate_run(config, run, model, device)


def asked_for(config: Evaluate) -> tuple[dict[str, Protocol], list[str]]:
    """The protocols of shapes that protocol= names, and those of views."""
    asked = config.protocol
    asked = asked if isinstance(asked, list) else ["onet"] if asked is None else [asked]
    of_views = [name for name in asked if name in VIEW_PROTOCOLS]
    protocols = {name: PROTOCOLS[name] for name in dict.fromkeys(asked) if name not in of_views}
    return protocols, of_views


def evaluate_run(config: Evaluate, run: Path, model: Model, device: torch.device) -> None:
    """An opened run beside its data: the report is written, tables are printed."""
    protocols, of_views = asked_for(config)
    if issubclass(model.learns, Views):
        if protocols and config.protocol is not None:
            raise NifError(
                f"protocol={next(iter(protocols))}: for shapes; this run is of views: "
                f"{', '.join(VIEW_PROTOCOLS)}"
            )
        print("reading its views", flush=True)
        data = data_of(model, config.data)
        evaluate_views(replace(config, protocol=of_views or None), run, model, data)
        return
    if config.views is not None:
        raise NifError(f"views: of a scene; this run is of {model.learns.holds} (instances= chooses)")
    if of_views:
        raise NifError(
            f"protocol={of_views[0]}: for views; this run is of {model.learns.holds}: {', '.join(PROTOCOLS)}"
        )
    _by_data(config, run, model, protocols, device)


def _by_data(
    config: Evaluate, run: Path, model: Model, protocols: dict[str, Protocol], device: torch.device
) -> None:
    """What is measured of a run of shapes, of many images, or of one signal."""
    data = data_of(model, config.data, config.split)
    if isinstance(data, ImageData) and isinstance(model, MetaSdf):
        if config.curve is None:
            images.evaluate_images(config, model, run, data, device)
            return
        files = images.chosen_files(config, model, data)
        train = data_of(model)
        assert isinstance(train, ImageData)
        compare_image_adaptation(config, model, run, steps_of(config, model), files, train.files(), device)
        return
    if not isinstance(data, ShapeData):
        evaluate_figures(config, run, model, data)
        return
    shapes = chosen_shapes(config, model, data)
    if config.curve is None:
        evaluate_shapes(config, run, model, data, shapes, protocols, device)
        return
    steps = steps_of(config, model)
    train = data_of(model)
    assert isinstance(train, ShapeData)
    compare(config, model, run, steps, shapes, dict(train.chosen()), device)  # type: ignore[arg-type]
