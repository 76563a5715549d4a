"""What happens around the training steps: checkpoints, the progress bar, previews, metrics.csv."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.field import Field
from nif_cli.files import disk_says
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.rendering.cameras import turntable
from nif_cli.rendering.pictures import overview, picture, png_bytes, sheet
from nif_cli.rendering.sphere_tracing import EmptySpace
from nif_cli.rendering.volume import RadianceField
from nif_cli.training.lightning import Training

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
FIRST = 2.0  # seconds after which a run is saved for the first time
GROWTH = 0.5  # then whenever it has trained for this much more than until the last time
SHARE = 0.02  # but saving takes no more of the time than this


class Checkpoints(pl.Callback):
    """checkpoints/last.ckpt after two seconds, then at growing distances up to `every_minutes`, at the end, and on Ctrl-C,
    SIGTERM or SIGHUP; checkpoints/best.ckpt where val/loss is lowest. Each is written whole or not at all. A second Ctrl-C
    stops at once."""

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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = float(state["best"])

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """How much of metrics.csv belongs to it; that much is on the disk before it is."""
        for logger in trainer.loggers:
            if isinstance(logger, CsvLogger):
                checkpoint["rows"] = logger.flush()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = self._saved = time.monotonic()
        self._wait, self._validated = distance(0.0, 0.0, self.every), -1

        def stop(number: int, frame: Any) -> None:
            if self.stopped_by == "SIGINT" and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stopped_by = signal.Signals(number).name
            trainer.should_stop = True
            if self.stopped_by == "SIGHUP":
                _leave_terminal()

        for number in SIGNALS:
            try:
                if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup
                self._handlers[number] = signal.signal(number, stop)
            except ValueError:  # not the main thread
                break

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # Not before a look at the held-out points, which a resumed run would leave out: after it
        due = time.monotonic() - self._saved > self._wait and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if trainer.world_size > 1:  # clocks and signals differ between processes: the first decides for all
            due, trainer.should_stop = trainer.strategy.broadcast((due, trainer.should_stop))
        if due:
            self.save(trainer, "last")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = trainer.global_step
        value = float(trainer.callback_metrics.get("val/loss", float("nan")))
        if trainer.world_size > 1:
            value = trainer.strategy.broadcast(value)
        if value < self.best:
            self.best = value
            self.save(trainer, "best")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._validated != trainer.global_step:  # the training ended between two looks at the held-out points
            assert isinstance(pl_module, Training)
            values = pl_module.model.held_out(trainer.datamodule.val_dataloader())  # type: ignore[attr-defined]
            trainer.callback_metrics["val/loss"] = torch.tensor(values["val/loss"])
            for logger in trainer.loggers:
                logger.log_metrics(values, trainer.global_step)
            self.on_validation_end(trainer, pl_module)
        self.save(trainer, "last")
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def save(self, trainer: pl.Trainer, name: str) -> None:
        began = time.monotonic()
        folder = Path(trainer.default_root_dir) / "checkpoints"
        if trainer.world_size > 1:  # every process takes part; Lightning writes on the first
            trainer.save_checkpoint(folder / f"{name}.ckpt")
        else:
            runs.write(
                folder / f"{name}.ckpt", lambda path: torch.save(trainer._checkpoint_connector.dump_checkpoint(False), path)
            )
        self.saved += 1
        if name == "last":
            self._saved = time.monotonic()
            self._wait = distance(self._saved - self._began, self._saved - began, self.every)


def distance(trained: float, took: float, every: float) -> float:
    """Seconds until a run is saved again that has trained for `trained` seconds and took `took` to be saved."""
    return min(max(FIRST, GROWTH * trained, took / SHARE), every)


def _leave_terminal() -> None:
    """The terminal has gone: what is still printed goes nowhere, and stops nothing."""
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class Progress(pl.Callback):
    """One line: steps, speed, loss, time left. On a terminal it is redrawn four times a second, in a log a line is
    printed every 15 seconds."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.interval = 0.25 if sys.stderr.isatty() else 15.0
        self._began = self._shown = time.monotonic()
        self._first = trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(total=100, bar_format="{desc} {percentage:3.0f}% |{bar}| {postfix}", leave=False, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        now = time.monotonic()
        if now - self._shown < self.interval or not trainer.is_global_zero:
            return
        self._shown = now
        assert isinstance(pl_module, Training)
        text = self._text(trainer, pl_module, now)
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
        left = (trainer.max_steps - trainer.global_step) / max(speed, 1e-9) if trainer.max_steps > 0 else float("inf")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and callback._duration is not None:
                left = min(left, callback._duration - callback.time_elapsed())
        ends = "" if left == float("inf") else f", {_clock(max(left, 0))} left"
        terms = ", ".join(
            f"{name} {float(value):.5f}" for name, value in training.last.items() if name == "loss" or len(training.last) > 2
        )
        return f"step {trainer.global_step:,}, {speed:.1f}/s, {terms}{ends}"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class Preview(pl.Callback):
    """The first `shapes` instances, every `every_minutes` and at the end: a picture for TensorBoard's Images tab (also
    preview.png in the run folder) and coarse meshes for its Mesh tab."""

    def __init__(self, every_minutes: float = 1.0, resolution: int = 48, size: int = 128, shapes: int = 4):
        if not every_minutes > 0 or resolution < 2 or size < 8 or shapes < 1:
            raise ValueError("every_minutes must be positive, resolution at least 2, size at least 8, shapes at least 1")
        self.every, self.resolution, self.size, self.shapes = every_minutes * 60, resolution, size, shapes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # the first one early, to see whether anything is learned at all
        self._shown = time.monotonic() - self.every + min(15.0, self.every)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if time.monotonic() - self._shown > self.every:
            self.show(trainer, pl_module)
            self._shown = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.show(trainer, pl_module)

    def show(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(training, Training)
        model = training.model
        board = next((x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)), None)
        model.eval()
        pictures = []
        pose = turntable(1)[0]
        for id in list(model.instances)[: self.shapes]:
            field = model.field(id)
            scene = model.instances[id].scene
            if scene is not None:
                view = (scene.test or scene.train)[0].resized(self.size)
                pictures.append(scene.photograph(cast("RadianceField", field), view, model.device).picture("rgb"))
                continue
            if not isinstance(field, Field):
                pictures.append(overview(field, model.instances[id].transform, 256, model.device))
                continue
            if field.bounds.shape[1] == 3:
                empty = EmptySpace(field, 40, model.device)
                pictures.append(picture(field, pose, self.size, model.device, antialias=1, empty=empty))
            if board is not None and field.bounds.shape[1] == 3:
                try:
                    mesh = extract_mesh(field, self.resolution, device=model.device)
                except NifError:  # diverged: the training itself will say so
                    continue
                if len(mesh.faces):
                    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))[None]
                    faces = torch.from_numpy(np.asarray(mesh.faces, np.int32))[None]
                    board.add_mesh(f"mesh/{id}", vertices, faces=faces, global_step=trainer.global_step)
        model.train()
        pictures = [p for p in pictures if p.shape == pictures[0].shape]  # of scenes, each has its own proportions
        if pictures:
            image = sheet(pictures, min(len(pictures), 4))
            if board is not None:
                board.add_image("surfaces", image, trainer.global_step, dataformats="HWC")
            runs.write(Path(trainer.default_root_dir) / "preview.png", png_bytes(image))


class CsvLogger(Logger):
    """metrics.csv in the run folder: a row for each logged step. A resumed run goes on with the same file, from its step."""

    def __init__(self, save_dir: str):
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.columns = ["step"]
        self.rows = 0  # that are in the file
        self._opened = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **{k: f"{float(v):.6g}" for k, v in metrics.items() if k != "epoch"}}
        if len(row) == 1:
            return
        if not self._opened:
            self.go_on(lambda rows: rows)
        new = [k for k in row if k not in self.columns]
        try:
            if new or not self.path.exists():
                self._rewrite(self.columns + new, self._read()[1])
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        except OSError as error:
            raise NifError(f"{self.path}: cannot be written: {disk_says(error)}") from error
        self.rows += 1

    def flush(self) -> int:
        """How many rows there are; they are on the disk."""
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError:  # no such file yet, or a file system that cannot
            pass
        return self.rows

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.columns, self.rows = columns, len(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        runs.write(self.path, text.getvalue())

    def _read(self) -> tuple[list[str], list[dict[str, str]], int | None]:
        """Columns, the rows that can be read, and how many of them come before the first damage (None: all is well)."""
        if not self.path.is_file():
            return ["step"], [], 0 if os.path.lexists(self.path) else None
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        found: list[dict[str, str]] = []
        damaged = None
        # row by row: an open quote swallows no more than its own line
        parsed = [next(csv.reader([line]), []) if "\0" not in line and len(line) < 2**16 else [] for line in text.splitlines()]
        columns = parsed[0] if parsed and parsed[0][:1] == ["step"] and len(set(parsed[0])) == len(parsed[0]) else []
        if not columns or "\ufffd" in "".join(columns):
            return ["step"], [], None if not text else 0
        for cells in parsed[1:]:
            if len(cells) == len(columns) and all(_is_number(c) for c in cells):
                found.append(dict(zip(columns, cells, strict=True)))
            elif damaged is None:
                damaged = len(found)
        return columns, found, damaged

    def go_on(self, keep: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        """The rows that `keep` chooses stay. A file that is damaged before their end is kept aside, and that is said."""
        self._opened = True
        if not os.path.lexists(self.path):
            return
        try:
            columns, rows, damaged = self._read()
            kept = keep(rows)
            if damaged is not None and (damaged < len(kept) or not rows):
                aside = next(p for n in count(1) if not os.path.lexists(p := self.path.with_name(f"metrics.damaged-{n}.csv")))
                os.replace(self.path, aside)
                print(f"{self.path}: damaged; kept as {aside.name}, and the {len(kept)} rows that can be read go on")
        except OSError as error:
            raise NifError(f"{self.path}: cannot be read: {disk_says(error)}") from error
        self._rewrite(columns, kept)

    @rank_zero_only
    def forget_after(self, step: int, rows: int | None = None) -> None:
        """Drop what a resumed run is about to write again: all but the first `rows`, which its checkpoint knows. Of an older
        one: those of later steps than `step`, and the training's own of that step."""
        if rows is not None:
            self.go_on(lambda found: found[:rows])
        else:
            self.go_on(
                lambda found: [
                    r for r in found if float(r["step"] or 0) < step or (float(r["step"] or 0) == step and not r.get("train/lr"))
                ]
            )


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return text == text.strip()


def write_summary(run: Path, summary: dict[str, Any]) -> None:
    """summary.json: what a sweep's table is made of."""
    runs.write(run / "summary.json", json.dumps(summary, indent=1) + os.linesep)
