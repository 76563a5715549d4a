"""The thin shell of Lightning around a Model and its Data, which know nothing of it: only `nif train` needs
it."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor
from torch.utils.data import DataLoader

from nif_cli import NifError
from nif_cli.data.datamodule import Batches, Data
from nif_cli.models.model import Model
from nif_cli.progress import busy
from nif_cli.training.reapply import reapply
from nif_cli.training.reduction import Part, average, by_rows
from nif_cli.untrusted import whole


class Training(pl.LightningModule):
    """Trains `model`. A checkpoint's state_dict is the model's own, without a prefix: it is read without
    Lightning.

    `log_every`: steps between two rows of the loggers.
    """

    def __init__(self, model: Model, log_every: int = 50):
        super().__init__()
        self.model, self.log_every = model, log_every
        self.restored = False  # whether a step was made with what a checkpoint holds of the training
        self.last: dict[str, Tensor] = {}  # the terms of the last step's loss, for the progress bar
        self._by_rows: dict[str, Part] = {}
        self._random_state: Tensor | None = None
        self._time_of_all = 0.0
        self._seconds_before = 0.0

    def state_dict(self, *args: Any, **keywords: Any) -> dict[str, Any]:
        return self.model.state_dict(*args, **keywords)

    def load_state_dict(self, *args: Any, **keywords: Any) -> Any:
        return self.model.load_state_dict(*args, **keywords)

    def configure_optimizers(self) -> Any:
        self.model.progress = self.progress
        return self.model.configure_optimizers()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """trainer.gradient_clip_val, or the model's own: dense gradients are clipped; those of codes are
        sparse, and few."""
        limit = gradient_clip_val or self.model.clip
        if limit:
            dense = [p for p in self.model.parameters() if p.grad is not None and not p.grad.is_sparse]
            by_value = str(gradient_clip_algorithm) == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            clip(dense, limit)

    def setup(self, stage: str) -> None:
        """Gradients of rows are averaged here, and not by DistributedDataParallel."""
        self._by_rows = by_rows(self, self.trainer.strategy.root_device)
        self._ddp_params_and_buffers_to_ignore = list(self._by_rows)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for part in self._by_rows.values() if self.trainer.world_size > 1 else ():
            average(part)

    def progress(self) -> float:
        """How much of the training is done, in [0, 1]: of trainer.max_steps or trainer.max_time, whichever is
        more."""
        trainer = self._trainer
        if trainer is None:
            return 0.0
        by_steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
        by_time = self._time_of_all if trainer.world_size > 1 else _share_of_time(trainer)
        return min(1.0, max(by_steps, by_time))

    def on_fit_start(self) -> None:
        self.model.start_clock(self._seconds_before)

    def on_train_start(self) -> None:
        self.model.step = self.global_step
        if self._random_state is not None:  # last: whatever Lightning drew while it started does not count
            torch.set_rng_state(self._random_state)
            self._random_state = None
        self.model.begin()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.world_size > 1:  # clocks differ between processes, learning rates must not
            self._time_of_all = self.trainer.strategy.broadcast(_share_of_time(self.trainer))

    def training_step(self, batch: Any, index: int) -> Tensor:
        model = self.model
        model.step = self.global_step
        self._draw_anew()
        model.before_step()
        self._draw_anew(self.trainer.fit_loop.total_batch_idx)
        terms = model.terms(batch)
        total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        self.last = {"loss": total.detach(), **{name: term.detach() for name, term in terms.items()}}
        if self.global_step % self.log_every == 0:
            self._log()
        return total

    def _draw_anew(self, mine: int | None = None) -> None:
        """Where several batches make a step the random numbers are those of this step, or of this process's
        `mine`-th batch: it makes no difference which process draws them, and no two draw the same."""
        if self.trainer.world_size * self.trainer.accumulate_grad_batches > 1:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            number = self.global_step if mine is None else data.number(mine)
            seed = int(self.model.config.get("seed", 0))
            torch.manual_seed((seed * 1_000_003 + number) * 7_368_787 % 2**63)

    def _log(self) -> None:
        """Straight to the loggers: Lightning's `self.log` would cost as much as a small network's step."""
        values = {f"train/{name}": float(term) for name, term in self.last.items()}
        if not all(v == v and abs(v) != float("inf") for v in values.values()):
            raise NifError(
                f"the loss is not finite after {self.global_step} steps: try a smaller model.lr (it is "
                f"{self.model.lr:g})"
            )
        values["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        values["train/seconds"] = self.model.seconds
        for logger in self.loggers:
            logger.log_metrics(values, self.global_step)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.restored = True
        self.model.after_step()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log_dict(self.model.validation_metrics(batch), batch_size=len(batch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["nif"] = self.model.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resuming: the clock and the random numbers go on where they stopped, under the settings of now."""
        reapply(self.model, checkpoint)
        self._seconds_before = float(checkpoint["nif"]["seconds"])
        random = checkpoint["nif"]["random"]
        self._random_state = random["cpu"]
        if random["cuda"] and torch.cuda.device_count() == len(random["cuda"]):
            torch.cuda.set_rng_state_all(random["cuda"])


def _share_of_time(trainer: pl.Trainer) -> float:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and callback._duration:
            return callback.time_elapsed() / callback._duration
    return 0.0


class Loaded(pl.LightningDataModule):
    """The batches of `data` as Lightning takes them."""

    def __init__(self, data: Data):
        super().__init__()
        self.data = data
        self._begun = 0, 0  # of a resumed run: batches that each process has had, and all of them together

    def number(self, mine: int) -> int:
        """Which of all batches is this process's `mine`-th; each process has batches of its own."""
        assert self.trainer is not None
        had, before = self._begun
        return before + (mine - had) * self.trainer.world_size + self.trainer.global_rank

    def state_dict(self) -> dict[str, Any]:
        """Where several processes have trained, or do: how many batches have been had."""
        assert self.trainer is not None
        had = self.trainer.fit_loop.epoch_loop.total_batch_idx + 1
        together = self.number(had) - self.trainer.global_rank
        return {} if together == had else {"had": had, "together": together}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        had, together = (whole(state_dict.get(k), f"batches {k}", 0, 2**62) for k in ("had", "together"))
        self._begun = had, together

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # drawn where it is needed

    @property
    def device(self) -> torch.device:
        assert self.trainer is not None
        return self.trainer.strategy.root_device

    def train_dataloader(self) -> Batches[Any]:
        trainer = self.trainer
        assert trainer is not None
        with busy("loading"):
            batches = self.data.train_batches(self.device)
        # after those that this run, or the resumed one, has had
        batches.place = lambda: (
            self.number(trainer.fit_loop.epoch_loop.total_batch_idx + 1),
            trainer.world_size,
        )
        return batches

    def val_dataloader(self) -> DataLoader:
        # a generator of its own: a loader's seed must not come from the random numbers that training draws
        batches: Any = self.data.held_out_batches(self.device)
        return DataLoader(batches, batch_size=None, generator=torch.Generator())
