"""Lightning's Trainer as nif sets it up, and what is kept from the user of its talk."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import ModelCheckpoint, Timer

from nif_cli import NifError
from nif_cli.config import locate
from nif_cli.training import boards
from nif_cli.training.callbacks import Checkpoints
from nif_cli.training.durations import clock, seconds_of
from nif_cli.training.lightning_parts import check_devices, made, told
from nif_cli.untrusted import shown

LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
OURS = ("accelerator", "devices", "logger", "callbacks", "default_root_dir", "inference_mode")


def make_trainer(
    node: dict[str, Any],
    callbacks: dict[str, Any] | None,
    loggers: dict[str, Any] | None,
    folder: Path,
    device: torch.device,
) -> tuple[pl.Trainer, Checkpoints]:
    """Lightning's Trainer of these nodes of a configuration, and what keeps its checkpoints."""
    listening = [c for c in made(callbacks or {}, "callbacks", folder).values() if c is not None]
    keeper = next((c for c in listening if isinstance(c, Checkpoints)), None)
    if keeper is None:
        raise NifError("callbacks: a run needs its checkpoints (nif_cli.training.callbacks.Checkpoints)")
    writing = []
    for name, logger in (loggers or {}).items():
        if isinstance(logger, dict):
            locate(logger.get("_target_"), f"logger.{name}")
            with told(f"logger.{name}"):
                given = boards.given(logger, folder)
            with boards.library_errors(f"logger.{name}"):
                writing.append(made(logger, f"logger.{name}", folder, **given))
    check_devices(node, device)
    strategy = node.get("strategy", "auto")
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise NifError(
            f"trainer.strategy={shown(strategy)}: there are {', '.join(STRATEGIES)}: a network of nif fits "
            "on one card, and is not cut"
        )
    taken = [k for k in OURS if k in node and k != "devices"]
    if taken:
        raise NifError(
            f"trainer.{taken[0]}: set by nif itself" + (" (device=...)" if taken[0] == "accelerator" else "")
        )
    if (node.get("max_steps") or -1) < 0 and not node.get("max_time"):
        raise NifError("trainer: give max_steps or max_time, or the training never ends")
    seconds_of(node.get("max_time"))
    devices = node.get("devices", 1)
    trainer = made(
        node,
        "trainer",
        folder,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and devices == 1 else devices,
        max_epochs=-1,
        default_root_dir=str(folder),
        callbacks=listening,
        logger=writing,
        inference_mode=False,  # fitting a code at test time needs gradients
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in listening),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # who has started the processes is known, and written where this one looks (launch.py)
        plugins=node.get("plugins") or [LightningEnvironment()],
    )
    # of signals our own callback hears: Lightning's would talk to the other processes in the middle of a step
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer, keeper


def trainer_time(timer: Timer) -> str:
    assert timer._duration is not None
    return clock(round(timer._duration))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the tips and warnings of the libraries that say nothing to the user of nif; all others pass."""
    # their packages too: a process that others train with says in which order they met
    chatter = [logging.getLogger(base + part) for base in LIGHTNING for part in ("", ".utilities.rank_zero")]
    levels = [c.level for c in chatter]
    for c in chatter:
        c.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*log_every_n_steps.*",
            ".*`training_step` returned.*",
            ".*Checkpoint directory.*exists and is not empty.*",
            ".*GPU available but not used.*",
            ".*module.* in eval mode at the start of training.*",
            ".*no `val_dataloader`. Skipping val loop.*",
            ".*callbacks used to create the checkpoint need to be provided.*",
            ".*lr_scheduler.step.*before.*optimizer.step.*",
            ".*is ending in the middle of an epoch.*",
            ".*resuming from a checkpoint that ended before the epoch ended.*",
            ".*treespec.*LeafSpec.*",
            ".*LightningDataModule.*state.*",
            ".*Grad strides do not match bucket view strides.*",
            ".*sync_dist=True.*",  # each process looks at the same held-out data
        ):
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for c, level in zip(chatter, levels, strict=True):
                c.setLevel(level)
