"""nif reconstruct save=run: adapted weights as a run of model=sdf or model=image, which extract and render
open and nif train refines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from nif_cli import NifError, conf_folder, runs
from nif_cli.data.images.datamodule import ImageData
from nif_cli.geometry.transform import Transform
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Inferred, Instance, Model


def check_savable(model: Model) -> None:
    """NifError unless the model makes weights that a plain network can take."""
    if not isinstance(model, MetaSdf):
        raise NifError(
            f"save=run: {type(model).__name__} makes no network of its own for a shape; model=metasdf does"
        )
    if model.log_sigma is not None:
        raise NifError("save=run: a network with two heads is no run of model=sdf; use objective=clamped_l1")


def save_run(folder: Path, model: Model, made: Inferred, transform: Transform, source: Path) -> None:
    """A run in `folder` whose network has the weights of `made` and whose data is the mesh or image
    `source`. NifError where there is a run already."""
    from nif_cli.training.lightning import Training
    from nif_cli.training.trainer import make_trainer, quiet

    assert isinstance(model, MetaSdf)
    if (folder / "checkpoints").exists():
        raise NifError(f"{folder}: there is a run already; remove it, or give another output=")
    learns = (
        {"_target_": "nif_cli.models.image.Image", "lr": 1e-4, "channels": model.subject.out}
        if model.learns is ImageData
        else {
            "_target_": "nif_cli.models.sdf.Sdf",
            "lr": 5e-4,
            "objective": "regression",
            "clamp": model.clamp,
        }
    )
    config: dict[str, Any] = {
        **model.config,
        "model": learns,
        "data": {**_data_of(model), "path": str(source.resolve()), "seed": model.config.get("seed", 0)},
        "resume": None,
        "init_from": None,
        "output_dir": None,
    }
    plain = runs.make_model(config)
    plain.network.load_state_dict({**model.network.state_dict(), **made.state})  # type: ignore[operator]
    plain.space = model.space
    plain.instances = {source.stem: Instance(source.stem, transform)}
    # a training of no steps has an optimizer and all else that going on with it needs
    none = {"_target_": "pytorch_lightning.Trainer", "max_steps": 0, "max_time": "00:00:00:01"}
    keeping = {"checkpoint": {"_target_": "nif_cli.training.callbacks.Checkpoints"}}
    with quiet():
        trainer, keeper = make_trainer(none, keeping, None, folder, torch.device("cpu"))
        trainer.fit(Training(plain), train_dataloaders=[0])
    keeper.save(trainer, "last")
    runs.write_config(folder, config)


def _data_of(model: Model) -> dict[str, Any]:
    """conf/data/meshes.yaml with the files that it includes, or image.yaml."""
    node: dict[str, Any] = {}
    for part in ("image",) if model.learns is ImageData else ("batches", "sampling", "meshes"):
        node |= yaml.safe_load((conf_folder() / "data" / f"{part}.yaml").read_text())
    node.pop("defaults", None)
    return node
