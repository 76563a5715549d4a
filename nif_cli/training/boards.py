"""Settings, images and meshes, as each logger takes them: TensorBoard, Weights & Biases, MLflow. What they
write stays in the run folder, and nothing is sent that the user has not asked for."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from trimesh import Trimesh
from trimesh.exchange.obj import export_obj

from nif_cli import NifError
from nif_cli.files import safe_name
from nif_cli.run_comparison import APART
from nif_cli.training.reapply import leaves
from nif_cli.untrusted import one_line

# their own reports home, and how long a server that does not answer is waited for
UNASKED = {
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


# folders of wandb that the user has not chosen
PLACES = [k for k in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR") if k not in os.environ]


def given(node: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a logger of this configuration node is made with beside the node. ImportError where its package is
    missing."""
    target = str(node.get("_target_", "")).rpartition(".")[2]
    found: dict[str, Any] = {"save_dir": str(folder)}
    if target == "TensorBoardLogger":
        return {**found, "name": "", "version": ""}
    if target not in ("WandbLogger", "MLFlowLogger"):
        return found
    for key, value in UNASKED.items():
        os.environ.setdefault(key, value)
    if target == "MLFlowLogger":
        uri = node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)
        if not uri:  # its newer versions refuse folders of files
            uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
            found["artifact_location"] = (folder.resolve() / "mlartifacts").as_uri()
        return {**found, "tracking_uri": uri, "run_name": node.get("run_name") or folder.name}
    os.environ.update(dict.fromkeys(PLACES, str(folder.resolve() / "wandb")))
    import wandb  # pyright: ignore[reportMissingImports]

    # the terminal is nif's: its lines are not captured, and of an offline run nothing is said
    offline: dict[str, Any] = {"silent": True, "mode": "offline"} if node.get("offline") else {}
    hyperparameters = wandb.Settings(console="off", **offline)
    # offline by the settings: Lightning would say it in the environment, to all trainings after this one
    return {**found, "name": node.get("name") or folder.name, "settings": hyperparameters, "offline": False}


def begin(loggers: Sequence[Logger], config: dict[str, Any]) -> None:
    """The settings of the training, to those that keep them beside their curves. NifError where one of them
    cannot begin."""
    offline = any(isinstance(n, dict) and n.get("offline") for n in (config.get("logger") or {}).values())
    for logger in loggers:
        if isinstance(logger, WandbLogger | MLFlowLogger):
            print(f"starting {type(logger).__name__.removesuffix('Logger').lower()}", flush=True)
            # Lightning sets what wandb warns of; who sends is asked there for a key
            aside = redirect_stderr(io.StringIO()) if offline else nullcontext()
            with library_errors(logger), aside:
                logger.log_hyperparams(hyperparameters(config))


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """What says how a run learns, by key: numbers and words."""
    plain = {key: value for key, value in config.items() if key not in APART}
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for part, node in plain.items()
        for key, value in leaves(node, part)
        if value is not None
    }


def end(loggers: Sequence[Logger], config: dict[str, Any], summary: dict[str, Any], step: int) -> None:
    """The final numbers; of TensorBoard beside the settings, in its tab of hyperparameters."""
    final = {k: float(v) for k, v in summary.items() if isinstance(v, int | float)}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(hyperparameters(config), final, step)
            logger.experiment.close()
        elif isinstance(logger, WandbLogger | MLFlowLogger):
            with library_errors(logger):
                logger.log_metrics({f"final/{k}": v for k, v in final.items()}, step)


@contextmanager
def closing() -> Iterator[None]:
    """Within, what wandb begins ends with the training: the next job of a sweep has a run of its own."""
    before, code = _wandb_run(), 1
    try:
        yield
        code = 0
    finally:
        run = _wandb_run()
        if run is not None and run is not before:
            run.finish(exit_code=code)


def _wandb_run() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


@contextmanager
def library_errors(logger: object) -> Iterator[None]:
    """What the library of a logger (or one of its name) throws, as one line: no server, no key, a full disk
    there."""
    try:
        yield
    except Exception as error:
        if isinstance(error, NifError):
            raise
        name = logger if isinstance(logger, str) else f"logger: {type(logger).__name__}"
        raise NifError(f"{name}: {one_line(error, 300)}") from error


def take_meshes(loggers: Sequence[Logger]) -> bool:
    return any(isinstance(x, TensorBoardLogger | WandbLogger | MLFlowLogger) for x in loggers)


def show_image(loggers: Sequence[Logger], name: str, image: np.ndarray, step: int) -> None:
    """image: [H, W, 3] bytes."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, image, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            with library_errors(logger):
                logger.log_image(name, [image], step)
        elif isinstance(logger, MLFlowLogger):
            with library_errors(logger):
                logger.experiment.log_image(logger.run_id, image, artifact_file=f"{name}/{step:08d}.png")


def show_mesh(loggers: Sequence[Logger], id: str, mesh: Trimesh, step: int) -> None:
    """The mesh of an instance: TensorBoard's tab of meshes, a 3D object of wandb, an OBJ file of mlflow."""
    name = f"mesh/{safe_name(id)}"
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))[None]
            faces = torch.from_numpy(np.asarray(mesh.faces, np.int32))[None]
            logger.experiment.add_mesh(f"mesh/{id}", vertices, faces=faces, global_step=step)
        elif isinstance(logger, WandbLogger):
            import wandb  # pyright: ignore[reportMissingImports]

            with library_errors(logger):
                shape: Any = wandb.Object3D(io.StringIO(export_obj(mesh)), file_type="obj")
                logger.log_metrics({name: shape}, step)
        elif isinstance(logger, MLFlowLogger):
            with library_errors(logger):
                logger.experiment.log_text(str(logger.run_id), export_obj(mesh), f"{name}/{step:08d}.obj")
