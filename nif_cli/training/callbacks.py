"""What happens around the training steps: checkpoints and the progress bar. (Previews: preview.py.)"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.progress import busy
from nif_cli.training.csv_logger import CsvLogger
from nif_cli.training.lightning import Training
from nif_cli.training.train_log import note
from nif_cli.untrusted import shown

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
FIRST = 2.0  # seconds after which a run is saved for the first time
GROWTH = 0.5  # then whenever it has trained for this much more than until the last time
SHARE = 0.02  # but saving takes no more of the time than this


class Checkpoints(pl.Callback):
    """checkpoints/last.ckpt after two seconds, then at growing distances up to `every_minutes`, at the end,
    and on Ctrl-C, SIGTERM or SIGHUP (of Slurm also SIGUSR1); checkpoints/best.ckpt where val/loss is lowest.
    Each is written whole or not at all. A second Ctrl-C stops at once. A signal to one of several processes
    stops all of them after the same step."""

    def __init__(self, every_minutes: float = 5.0):
        if not every_minutes > 0:
            raise ValueError(f"every_minutes={every_minutes}: must be positive")
        self.every = every_minutes * 60
        self.best = float("inf")
        self.saved = 0  # how many times, in this process
        self._began = time.monotonic()
        self.stopped_by: str | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = float(state_dict["best"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """How much of metrics.csv belongs to it; that much is on the disk before it is."""
        for logger in trainer.loggers:
            if isinstance(logger, CsvLogger):
                checkpoint["rows"] = logger.flush()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.stopped_by == "SIGINT" and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stopped_by = signal.Signals(number).name
            if trainer.world_size == 1:  # several stop together, after a step
                trainer.should_stop = True
            if self.stopped_by == "SIGHUP":
                _leave_terminal()

        for number in SIGNALS if "SLURM_JOB_ID" not in os.environ else [*SIGNALS, signal.SIGUSR1]:
            try:
                if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup
                self._handlers[number] = signal.signal(number, stop)
            except ValueError:  # not the main thread
                break

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = self._saved = time.monotonic()
        self._wait, self._validated = distance(0.0, 0.0, self.every), -1

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        # Not before a look at the held-out points, which a resumed run would leave out: after it
        due = (
            time.monotonic() - self._saved > self._wait
            and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        )
        if trainer.world_size > 1:
            due = self._together(trainer, due)
        elif self.stopped_by:  # before the first step, perhaps
            trainer.should_stop = True
        if due:
            self.save(trainer, "last")

    def _together(self, trainer: pl.Trainer, due: bool) -> bool:
        """Clocks and signals differ between processes: any of them stops all, the first says when to save."""
        number = signal.Signals[self.stopped_by] if self.stopped_by else 0
        here = [number, trainer.should_stop, due and trainer.is_global_zero]
        all_of_it: Any = torch.tensor([int(x) for x in here], device=trainer.strategy.root_device)
        number, stop, due = trainer.strategy.reduce(all_of_it, reduce_op="max").tolist()
        if number:  # else one may have arrived just now, for the next step
            self.stopped_by = signal.Signals(number).name
        trainer.should_stop = bool(number or stop)
        return bool(due)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = trainer.global_step
        value = float(trainer.callback_metrics.get("val/loss", float("nan")))
        if trainer.world_size > 1:
            value = trainer.strategy.broadcast(value)
        if value < self.best:
            self.best = value
            self.save(trainer, "best")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        closing = self._validated != trainer.global_step
        if closing:  # the training ended between two looks at the held-out points
            assert isinstance(pl_module, Training)
            with busy("held-out data"):
                values = pl_module.model.held_out(trainer.datamodule.val_dataloader())  # type: ignore[attr-defined]
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
            for logger in trainer.loggers:
                logger.log_metrics(values, trainer.global_step)
            self.on_validation_end(trainer, pl_module)
        self.save(trainer, "last")
        self._restore()
        if closing:
            _ask_others(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def save(self, trainer: pl.Trainer, name: str) -> None:
        began = time.monotonic()
        path = Path(trainer.default_root_dir) / "checkpoints" / f"{name}.ckpt"
        if trainer.is_global_zero:
            content = trainer._checkpoint_connector.dump_checkpoint(False)
            runs.write(path, lambda path: torch.save(content, path))
        self.saved += 1
        if name == "last":
            self._saved = time.monotonic()
            self._wait = distance(self._saved - self._began, self._saved - began, self.every)


def _ask_others(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """What judges by a metric, and what users have written, is asked at the closing look too: of a short run
    it is the only one. NifError where there is no such metric; the run has been saved."""
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if not type(other).__module__.startswith(("nif_cli.", "pytorch_lightning.")):
            other.on_validation_start(trainer, pl_module)
            other.on_validation_epoch_end(trainer, pl_module)
            other.on_validation_end(trainer, pl_module)
        if isinstance(other, ModelCheckpoint | EarlyStopping) and other.monitor:
            if other.monitor not in trainer.callback_metrics and getattr(other, "strict", True):
                known = ", ".join(sorted(trainer.callback_metrics))
                raise NifError(
                    f"callbacks: {type(other).__name__}: no metric '{shown(other.monitor)}' to monitor; "
                    f"there are {known}"
                )
            other.on_validation_end(trainer, pl_module)


def distance(trained: float, took: float, every: float) -> float:
    """Seconds until a run is saved again that has trained for `trained` seconds and took `took` to be
    saved."""
    return min(max(FIRST, GROWTH * trained, took / SHARE), every)


def _leave_terminal() -> None:
    """The terminal has gone: what is still printed goes nowhere, and stops nothing."""
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class Progress(pl.Callback):
    """One line: steps, speed, loss, time left. On a terminal it is redrawn four times a second, in a log a
    line is printed every 15 seconds."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.interval = 0.25 if sys.stderr.isatty() else 15.0
        self._began = self._shown = self._noted = time.monotonic()
        self._first = trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(
                total=100,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {postfix}",
                leave=False,
                dynamic_ncols=True,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        now = time.monotonic()
        if now - self._shown < self.interval or not trainer.is_global_zero:
            return
        self._shown = now
        assert isinstance(pl_module, Training)
        text = self._text(trainer, pl_module, now)
        if self.bar is not None and now - self._noted > 15.0:
            self._noted = now
            note(f"{100 * pl_module.progress():3.0f} %  {text}")
        if self.bar is None:
            print(f"{100 * pl_module.progress():3.0f} %  {text}", file=sys.stderr, flush=True)
        else:
            self.bar.n = round(100 * pl_module.progress())
            self.bar.set_description_str("training", refresh=False)
            self.bar.bar_format = "{desc} {percentage:3.0f}% |{bar:24}| " + text
            self.bar.refresh()

    def _text(self, trainer: pl.Trainer, training: Training, now: float) -> str:
        steps = trainer.global_step - self._first
        speed = steps / (now - self._began)
        left = (
            (trainer.max_steps - trainer.global_step) / max(speed, 1e-9)
            if trainer.max_steps > 0
            else float("inf")
        )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and callback._duration is not None:
                left = min(left, callback._duration - callback.time_elapsed())
        ends = "" if left == float("inf") else f", {_clock(max(left, 0))} left"
        terms = ", ".join(
            f"{name} {float(value):.5f}"
            for name, value in training.last.items()
            if name == "loss" or len(training.last) > 2
        )
        return f"step {trainer.global_step:,}, {speed:.1f}/s, {terms}{ends}"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, *_: Any, **__: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
