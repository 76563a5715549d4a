"""The weights of a run as they were on the way: checkpoints/step-<n>.ckpt, for checkpoint=<n>."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from nif_cli.files import write
from nif_cli.runs import snapshots
from nif_cli.training.lightning import Training


class Snapshots(pl.Callback):
    """Every `every_steps` steps, every `every_minutes` minutes, or both, the weights are kept beside last and
    best, without the state of the optimizer: a third of a checkpoint. The newest `keep` of them stay (None:
    all)."""

    def __init__(
        self, every_steps: int | None = None, every_minutes: float | None = None, keep: int | None = 10
    ):
        for name, value in (("every_steps", every_steps), ("every_minutes", every_minutes), ("keep", keep)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: must be positive, or null")
        self.steps, self.keep = every_steps, keep
        self.seconds = None if every_minutes is None else 60 * every_minutes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved, self._step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._step:  # gradients are still being gathered
            return
        due = self.steps is not None and step % self.steps == 0
        due = due or (self.seconds is not None and time.monotonic() - self._saved >= self.seconds)
        self._step = step
        if not due:
            return
        assert isinstance(pl_module, Training)
        folder = Path(trainer.default_root_dir) / "checkpoints"
        model = pl_module.model
        content = {
            "state_dict": model.state_dict(),
            "nif": model.state(),
            "global_step": step,
            "pruned": True,
        }
        write(folder / f"step-{step}.ckpt", lambda path: torch.save(content, path))
        known = snapshots(folder.parent)
        for old in sorted(known)[: -self.keep] if self.keep else ():
            known[old].unlink(missing_ok=True)
        self._saved = time.monotonic()
