"""The training itself, and what the user is told of what ends it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytorch_lightning as pl
import torch

from nif_cli import NifError
from nif_cli.data.datamodule import Data
from nif_cli.data.scenes.datamodule import Views
from nif_cli.files import disk_says
from nif_cli.training.callbacks import Checkpoints
from nif_cli.training.launch import lost_says, others_gone, others_watched, when_others_end
from nif_cli.training.lightning import Loaded, Training
from nif_cli.training.lightning_parts import told
from nif_cli.training.provenance import Provenance
from nif_cli.untrusted import one_line

# what a stranger's state ends in
MISFITS = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG)


def fit(
    trainer: pl.Trainer,
    training: Training,
    data: Data,
    folder: Path,
    checkpoint: Path | None,
    keeper: Checkpoints,
    about: Provenance,
) -> None:
    """The training itself; where another of its processes has gone, a NifError says so."""
    ended = threading.Event()
    try:
        with told("trainer"), others_watched(when_others_end(keeper, folder, about, ended)):
            trainer.fit(training, datamodule=Loaded(data), ckpt_path=checkpoint, weights_only=True)
    except BaseException as error:
        ended.set()
        if trainer.world_size > 1 and others_gone(error):
            raise NifError(lost_says(folder)) from error
        raise


def tell_what_ended(
    error: BaseException,
    training: Training,
    data: Data,
    folder: Path,
    resumed: Path | None,
    checkpoint: Path | None,
    device: torch.device,
) -> None:
    """Raises what the user can mend of what ended a training; nothing where that is an error of ours."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        raise KeyboardInterrupt from error  # Lightning would end with 1
    if checkpoint and not training.restored and isinstance(error, MISFITS):
        raise NifError(
            f"{checkpoint}: its training state is damaged ({one_line(error)}); init_from={resumed} takes "
            "its weights"
        ) from error
    if isinstance(error, torch.cuda.OutOfMemoryError):
        key = "batch_rays" if isinstance(data, Views) else "batch_points"
        raise NifError(f"out of memory on {device}: lower data.{key} (it is {getattr(data, key)})") from error
    if isinstance(error, OSError) and error.errno in DISK:
        raise NifError(f"{folder}: cannot be written to: {disk_says(error)}") from error
