"""nif train: data and a model in, a run folder out."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.commands.train_fit import fit, tell_what_ended
from nif_cli.commands.train_printing import conclude, introduce
from nif_cli.config import build, check
from nif_cli.data.datamodule import Data
from nif_cli.data.memory import keep_memory
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.files import Claim, write
from nif_cli.hydra_errors import explain
from nif_cli.models.model import Model
from nif_cli.progress import busy
from nif_cli.schemas import Train
from nif_cli.training import boards, resume_checks
from nif_cli.training.callbacks import Checkpoints
from nif_cli.training.csv_logger import CsvLogger, write_summary
from nif_cli.training.durations import spell_time
from nif_cli.training.ending import ending
from nif_cli.training.launch import (
    Launch,
    environment,
    hear,
    launched,
    requeue,
    tell,
)
from nif_cli.training.lightning import Training
from nif_cli.training.new_folder import claimed
from nif_cli.training.provenance import Provenance
from nif_cli.training.resume import AUTO, goes_on, resumed_config, start_from, typed_again, why_finished
from nif_cli.training.sweep import begun, finished
from nif_cli.training.train_log import logged
from nif_cli.training.trainer import make_trainer, quiet
from nif_cli.untrusted import one_line, reading, whole

folders: list[Path] = []  # of the trainings of this process, the latest last
ENDED = tuple(128 + getattr(signal, name, 1) for name in ("SIGTERM", "SIGHUP", "SIGUSR1"))


def main(cfg: DictConfig) -> float:
    """Returns val/loss, the metric that a sweep minimises."""
    hydra: Any = HydraConfig.get()
    launcher = str(hydra.launcher.get("_target_", ""))
    if hydra.mode != RunMode.MULTIRUN:
        with ending():
            return _run(cfg, hydra, announce=True)
    if "joblib" in launcher:  # jobs side by side share the cores
        jobs = int(hydra.launcher.get("n_jobs", -1))
        cores = os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // (cores if jobs < 1 else jobs)))
    overrides = list(hydra.overrides.task)
    done = finished(Path(hydra.runtime.output_dir), overrides)
    print(f"\n[{hydra.job.num}] {' '.join(overrides)}{': done before' * (done is not None)}")
    if done is not None:
        return done
    words, sys.argv = sys.argv, [sys.argv[0], "train", *overrides]  # of processes that Lightning starts
    try:
        with ending():
            return _run(cfg, hydra, announce=False)
    except SystemExit as stop:
        if stop.code in ENDED and multiprocessing.current_process().name != "MainProcess":
            sys.stdout.flush()
            os._exit(int(stop.code or 0))  # joblib would take it for a result, and begin the next job here
        raise
    except Exception as error:  # the other jobs of the sweep go on; the table at its end counts it
        if os.environ.get("NIF_DEBUG") == "1":
            raise
        said = str(error) if isinstance(error, NifError) else explain(error, overrides)
        said = said or f"internal error: {type(error).__name__}: {one_line(error)} (NIF_DEBUG=1 shows where)"
        print(f"nif: {said}")
        write_summary(Path(hydra.runtime.output_dir), {"overrides": overrides, "error": said})
        return float("nan")
    finally:
        sys.argv = words


def _run(cfg: DictConfig, hydra: Any, announce: bool) -> float:
    """One training, in a folder that is claimed before anything costs time."""
    launch = launched(cfg.trainer or {})
    with environment(launch):
        if launch.rank:
            told = hear(launch)
            folder = Path(told["folder"])
            config, resumed = _config(cfg, hydra, folder if told["resumed"] else None)
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                return _train(config, folder, resumed, Provenance(folder, True, []), False, launch)
        try:
            auto = cfg.resume == AUTO
            named = goes_on(cfg) if auto and announce else cfg.resume if announce else _job(hydra)
            config, resumed = _config(cfg, hydra, runs.find(str(named), "resume") if named else None)
            claim = Claim(resumed, f"resume={resumed}") if resumed else claimed(config, hydra, not announce)
        except NifError as error:
            with suppress(NifError):
                tell(launch, cfg.trainer or {}, error=str(error))
            raise
        folders.append(claim.folder)
        try:
            tell(launch, config.trainer, folder=str(claim.folder.resolve()), resumed=bool(resumed))
            overrides = list(hydra.overrides.task)
            known = [] if resumed and not announce else overrides  # of a sweep's job, to go on with
            about = Provenance(claim.folder, bool(resumed), known, hydra.runtime.choices, config.name)
            with logged(), about.kept(), boards.closing():
                return _train(config, claim.folder, resumed, about, announce, launch, auto)
        finally:
            claim.abandon()


def _job(hydra: Any) -> Path | None:
    """The run of a sweep's job, if it was cut off."""
    folder = Path(hydra.runtime.output_dir)
    return folder if begun(folder, list(hydra.overrides.task)) else None


def _config(cfg: DictConfig, hydra: Any, resumed: Path | None) -> tuple[Train, Path | None]:
    """The checked configuration: of a run that goes on, its own with what is typed."""
    if resumed:
        again = cfg.resume in (AUTO, None)  # by the words that began it; None: a job of a sweep
        typed = typed_again(resumed, list(hydra.overrides.task)) if again else list(hydra.overrides.task)
        cfg = resumed_config(resumed, typed, cfg)
    spell_time(cfg)
    config = check(cfg, "train")
    config.resume = None
    return config, resumed


def _train(
    config: Train,
    folder: Path,
    resumed: Path | None,
    about: Provenance,
    announce: bool,
    launch: Launch,
    auto: bool = False,
) -> float:
    device = runs.device_for(config.device)
    every = whole((config.logger or {}).get("every", 50), "logger.every", 1)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    with quiet():
        pl.seed_everything(config.seed, workers=False, verbose=False)
        checkpoint, before = resume_checks.checkpoint_of(resumed) if resumed else (None, {})
        if resumed and checkpoint:
            resume_checks.check_settings(resumed, before["nif"]["config"], vars(config))
        config.paths = runs.paths_of(vars(config))
        data, model = _data_and_model(config, resumed, checkpoint)
        seconds = _attached(config, data, model, device)
        if resumed and checkpoint:
            with reading(checkpoint, "a training to go on with"):
                resume_checks.check_instances(resumed, model, before["nif"]["instances"])
                resume_checks.check_fit(resumed, model, before)
            if finished := why_finished(config.trainer, before):
                print(f"{resumed}: nothing left to do, {finished}")
                return float("nan")
        trainer, keeper = make_trainer(
            launch.settled(config.trainer), config.callbacks, config.logger, folder, device
        )
        old = folder / "config.yaml"
        replaced = old.read_bytes() if checkpoint and old.is_file() else None
        if not launch.rank:
            boards.begin(trainer.loggers, model.config)
            runs.write_config(folder, model.config)
            about.begin(model.config, device)
        introduce(model, data, folder, device, seconds)
        for logger in trainer.loggers if resumed else ():
            if isinstance(logger, CsvLogger):
                step = int(before.get("global_step", 0))
                logger.forget_after(step, before.get("rows") if checkpoint else 0)
        del before
        training = Training(model, every)
        try:
            fit(trainer, training, data, folder, checkpoint, keeper, about)
        except BaseException as error:
            if replaced is not None and not keeper.saved and not launch.rank:
                write(old, replaced)  # nothing has been trained under these settings
                about.undo()
            tell_what_ended(error, training, data, folder, resumed, checkpoint, device)
            raise
    return _ended(trainer, training, data, folder, keeper, about, announce, launch, auto)


def _ended(
    trainer: pl.Trainer,
    training: Training,
    data: Data,
    folder: Path,
    keeper: Checkpoints,
    about: Provenance,
    announce: bool,
    launch: Launch,
    auto: bool,
) -> float:
    """val/loss; the first process says how it went. A signal that has stopped the training ends the process
    with its code."""
    value = float(trainer.callback_metrics.get("val/loss", float("nan")))
    if not math.isfinite(value):
        raise NifError(
            f"{folder}: the training has diverged, its loss is not finite; try a smaller model.lr (it is "
            f"{training.model.lr:g})"
        )
    if not launch.rank:
        conclude(trainer, training, data, folder, keeper, value, about, announce)
        if keeper.stopped_by == "SIGUSR1" and auto:
            requeue()
    if keeper.stopped_by:  # whoever waits is told; a sweep ends here
        sys.stdout.flush()
        sys.exit(128 + signal.Signals[keeper.stopped_by])
    if announce and isinstance(data, ShapeData) and (left_out := data.left_out):
        raise NifError(f"{len(left_out)} shapes were left out (named above); the run has learned the others")
    return value


def _data_and_model(config: Train, resumed: Path | None, checkpoint: Path | None) -> tuple[Data, Model]:
    """Both as they are configured, before anything is read; NifError where they do not go together."""
    narrow = {"allowed": runs.READ_ALLOWED} if resumed else {}  # a run may be a stranger's
    data = build(runs.located(vars(config))["data"] if resumed else config.data, "data", **narrow)
    if config.model.get("channels", 0) is None and hasattr(data, "channels"):
        config.model["channels"] = data.channels
    described = dict(vars(config))  # what the run keeps
    model = runs.make_model(described if checkpoint is None else _without_weights(described))
    model.config = described
    if not isinstance(data, Data):
        raise NifError(f"data._target_={config.data.get('_target_')}: not data of nif")
    if not isinstance(data, model.learns):
        raise NifError(
            f"model={type(model).__name__.lower()} learns from {model.learns.holds}, this data holds "
            f"{data.holds}: choose another model= or data="
        )
    if config.init_from:
        start_from(model, runs.find(config.init_from, "init_from"))
    return data, model


def _attached(config: Train, data: Data, model: Model, device: torch.device) -> float:
    """The data read and met by the model; how many seconds that took."""
    began = time.monotonic()
    model.space = data.space
    source = next((config.data[k] for k in ("path", "root") if config.data.get(k)), type(data).__name__)
    print(f"preparing the data: {source}", flush=True)
    # shapes have a bar of their own
    with nullcontext() if isinstance(data, ShapeData) else busy("preparing"):
        model.attach_data(data)
        if isinstance(data, Views):
            # now, before there is a run: an image may be damaged, and no clock should count reading
            data.make_pool(torch.device("cuda", device.index or 0) if device.type == "cuda" else device)
    seconds = time.monotonic() - began
    if device.type == "cpu":
        keep_memory()  # not before: what reading the data took goes back
    return seconds


def _without_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The encoder without the file that it started from: a run that goes on has weights of its own."""
    encoder = config.get("encoder")
    return (
        {**config, "encoder": {**encoder, "weights": None}} if encoder and encoder.get("weights") else config
    )
