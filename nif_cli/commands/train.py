"""nif train: data and a model in, a run folder out."""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import ModelCheckpoint, Timer

from nif_cli import NifError, conf_folder, runs
from nif_cli.callbacks import Checkpoints, CsvLogger, write_summary
from nif_cli.commands import resuming
from nif_cli.commands.ending import ending
from nif_cli.commands.lightning_parts import check_devices, made, told
from nif_cli.composition import read_plain, without_interpolations
from nif_cli.config import blame, build, check, explain, locate
from nif_cli.data.datamodule import Data
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.field import Field
from nif_cli.files import Claim, disk_says, write
from nif_cli.models.model import Model
from nif_cli.training.lightning import Loaded, Training
from nif_cli.untrusted import one_line
from nif_cli.words import paste

LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
FOLDER = "NIF_RUN_FOLDER"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
OURS = ("accelerator", "devices", "logger", "callbacks", "default_root_dir", "inference_mode")


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
    print(f"\n[{hydra.job.num}] {' '.join(overrides)}")
    try:
        with ending():
            return _run(cfg, hydra, announce=False)
    except Exception as error:  # the other jobs of the sweep go on; the table at its end counts it
        if os.environ.get("NIF_DEBUG") == "1":
            raise
        said = str(error) if isinstance(error, NifError) else explain(error, overrides)
        said = said or f"internal error: {type(error).__name__}: {one_line(error)} (NIF_DEBUG=1 shows where)"
        print(f"nif: {said}")
        write_summary(Path(hydra.runtime.output_dir), {"overrides": overrides, "error": said})
        return float("nan")


def _run(cfg: DictConfig, hydra: Any, announce: bool) -> float:
    """One training, in a folder that is claimed before anything costs time."""
    resumed = runs.find(cfg.resume, "resume") if cfg.resume else None
    if resumed:
        cfg = _resumed_config(resumed, list(hydra.overrides.task), cfg)
    config = check(cfg, "train")
    if not 0 <= config["seed"] < 2**31:
        raise NifError(f"seed={config['seed']}: must be in 0 .. 2^31 - 1")
    sweeping = not announce
    if rank():
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            return _train(config, Path(os.environ[FOLDER]), resumed, [], announce=False)
    claim = Claim(resumed, f"resume={resumed}") if resumed else _claim(config, hydra, sweeping)
    try:
        return _train(config, claim.folder, resumed, list(hydra.overrides.task) if sweeping else [], announce)
    finally:
        claim.abandon()


def rank() -> int:
    """Which of the processes of trainer.devices > 1 this is: Lightning starts the others with the same command."""
    return int(os.environ.get("LOCAL_RANK", 0)) if FOLDER in os.environ else 0


def _train(config: dict[str, Any], folder: Path, resumed: Path | None, overrides: list[str], announce: bool) -> float:
    device = runs.device_for(config["device"])
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    with _quiet():
        pl.seed_everything(config["seed"], workers=False, verbose=False)
        checkpoint, before = None, {}
        if resumed:
            checkpoint, before = resuming.checkpoint_of(resumed)
        if resumed and checkpoint:
            resuming.check_settings(resumed, before["nif"]["config"], config)
        config["paths"] = runs.paths_of(config)
        narrow = {"allowed": runs.READ_ALLOWED} if resumed else {}  # a run may be a stranger's
        data = build(runs.located(config)["data"] if resumed else config["data"], "data", **narrow)
        if config["model"].get("channels", 0) is None and hasattr(data, "channels"):
            config["model"]["channels"] = data.channels
        model = runs.make_model(config if checkpoint is None else _without_weights(config))
        model.config = config
        if not isinstance(data, Data):
            raise NifError(f"data._target_={config['data'].get('_target_')}: not data of nif")
        if not isinstance(data, model.learns):
            raise NifError(
                f"model={type(model).__name__.lower()} learns from {model.learns.holds}, this data holds {data.holds}: "
                "choose another model= or data="
            )
        if config["init_from"]:
            _start_from(model, runs.find(config["init_from"], "init_from"))
        began = time.monotonic()
        model.space = data.space
        model.adopt(data)
        if isinstance(data, Views):  # now, before there is a run: a picture may be damaged, and no clock should count reading
            data.make_pool(torch.device("cuda", device.index or 0) if device.type == "cuda" else device)
        made = time.monotonic() - began
        if device.type == "cpu":
            _keep_memory()  # not before: what reading the data took goes back
        if resumed and checkpoint:
            resuming.check_instances(resumed, model, before["nif"]["instances"])
            resuming.check_fit(resumed, model, before)
            finished = _finished(config["trainer"], before)
            if finished:
                print(f"{resumed}: nothing left to do, {finished}")
                return float("nan")
        trainer, keeper = _trainer(config, folder, device)
        replaced = folder / "config.yaml"
        replaced = replaced.read_bytes() if checkpoint and replaced.is_file() else None
        if not rank():
            runs.write_config(folder, config)
            os.environ[FOLDER] = str(folder.resolve())  # for processes that Lightning starts
        _introduce(model, data, folder, device, made)
        for logger in trainer.loggers if resumed else ():
            if isinstance(logger, CsvLogger):
                logger.forget_after(int(before.get("global_step", 0)), before.get("rows") if checkpoint else 0)
        del before
        training = Training(model, int((config["logger"] or {}).get("every", 50)))
        try:
            with told("trainer"):
                trainer.fit(training, datamodule=Loaded(data), ckpt_path=checkpoint, weights_only=True)
        except BaseException as error:
            if replaced is not None and not keeper.saved and not rank():  # nothing has been trained under these settings
                write(folder / "config.yaml", replaced)
            if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error  # Lightning would end with 1
            if isinstance(error, torch.cuda.OutOfMemoryError):
                key = "batch_rays" if isinstance(data, Views) else "batch_points"
                raise NifError(f"out of memory on {device}: lower data.{key} (it is {getattr(data, key)})") from error
            if isinstance(error, OSError) and error.errno in DISK:
                raise NifError(f"{folder}: cannot be written to: {disk_says(error)}") from error
            raise
    value = float(trainer.callback_metrics.get("val/loss", float("nan")))
    if not math.isfinite(value):
        raise NifError(
            f"{folder}: the training has diverged, its loss is not finite; try a smaller model.lr (it is {model.lr:g})"
        )
    if not rank():
        os.environ.pop(FOLDER, None)  # the next job of a sweep has its own
        _conclude(trainer, training, data, folder, keeper, value, overrides, announce)
        if keeper.stopped_by:  # whoever waits is told; a sweep ends here
            sys.stdout.flush()
            sys.exit(128 + signal.Signals[keeper.stopped_by])
        if announce and isinstance(data, ShapeData) and (left_out := data.left_out):
            raise NifError(f"{len(left_out)} shapes were left out (named above); the run has learned the others")
    return value


def _without_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The encoder without the file that it started from: a run that goes on has weights of its own."""
    encoder = config.get("encoder")
    return {**config, "encoder": {**encoder, "weights": None}} if encoder and encoder.get("weights") else config


def _claim(config: dict[str, Any], hydra: Any, sweeping: bool) -> Claim:
    """The folder of a new run: nobody else's, now and until it ends."""
    if sweeping:
        return Claim(Path(hydra.runtime.output_dir), str(hydra.runtime.output_dir))
    if config["output_dir"]:
        folder = Path(config["output_dir"]).expanduser()
        claim = Claim(folder, f"output_dir={folder}")
        if (folder / "config.yaml").exists() or (folder / "checkpoints").exists():
            claim.release()
            raise NifError(f"output_dir={folder}: there is a run already; {paste(f'resume={folder}')} goes on with it")
        return claim
    choices = hydra.runtime.choices
    base = runs.OUTPUTS / f"{choices.model}-{choices.data}" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder, n = base, 1
    while True:
        try:
            return Claim(folder, f"output_dir={folder}", new=True)
        except FileExistsError:
            folder, n = base.with_name(f"{base.name}_{n}"), n + 1


def _resumed_config(run: Path, overrides: list[str], composed: DictConfig) -> DictConfig:
    """The run's own configuration, with the values that the command line changes; of groups callbacks= and logger= only,
    which are taken as `composed`."""
    if not (run / "config.yaml").is_file():
        raise NifError(f"resume={run}: it has no config.yaml")
    plain = read_plain(run / "config.yaml")
    if not isinstance(plain, dict) or any(isinstance(value, list) for value in plain.values()):
        raise NifError(f"{run / 'config.yaml'}: not the configuration of a run")
    cfg: Any = OmegaConf.create(without_interpolations(plain))  # a stranger's file may name the secrets of our environment
    OmegaConf.set_struct(cfg, True)
    typed: set[str] = set()
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if key == "resume":
            continue
        if key in ("init_from", "output_dir"):
            raise NifError(f"resume goes on with a run in its own folder; {key} is for a new one: give one of them")
        if key in ("callbacks", "logger") and isinstance(override.value(), str):
            OmegaConf.update(cfg, key, OmegaConf.to_container(composed[key], resolve=True), merge=False, force_add=True)
            continue
        if (conf_folder() / key).is_dir() and key != "hydra":
            raise NifError(
                f"{key}={override.get_value_element_as_str()}: a resumed run keeps its {key}; init_from starts a new one"
            )
        if isinstance(cfg.get("paths"), DictConfig):  # typed anew: as seen from here
            with open_dict(cfg):
                cfg.paths.pop(key, None)
        parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else None
        known = isinstance(parent, DictConfig) and "_target_" in parent  # its class is asked whether there is such a key
        OmegaConf.update(cfg, key, override.value(), force_add=override.is_add() or known)
        typed.add(key)
    data = cfg.get("data")
    if isinstance(data, DictConfig):
        runs.look_first({str(k): v for k, v in data.items() if f"data.{k}" not in typed})
    cfg.resume = cfg.output_dir = cfg.init_from = None
    return cfg


def _finished(trainer: dict[str, Any], checkpoint: dict[str, Any]) -> str | None:
    """Whether a resumed run has had all its steps or all its time, and what would give it more."""
    steps, limit = int(checkpoint["global_step"]), trainer.get("max_steps") or -1
    if 0 <= limit <= steps:
        return f"it has had its {steps:,} steps; give a larger trainer.max_steps"
    _check_time(trainer.get("max_time"))
    if isinstance(trainer.get("max_time"), str):
        days, hours, minutes, seconds = map(int, trainer["max_time"].split(":"))
        had = float(checkpoint["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train", 0.0))
        if had >= ((days * 24 + hours) * 60 + minutes) * 60 + seconds:
            return f"it has had its time; give a longer trainer.max_time than {trainer['max_time']}"
    return None


def _start_from(model: Model, run: Path) -> None:
    """init_from: the weights of another run where names and shapes agree; NifError when the networks differ."""
    checkpoint = runs.read_checkpoint(run / "checkpoints" / "last.ckpt")
    theirs = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith(("network.", "encoder."))}
    ours = {k: v for k, v in model.state_dict().items() if k.startswith(("network.", "encoder."))}
    wrong = sorted(ours.keys() ^ theirs.keys()) or [k for k in ours if ours[k].shape != theirs[k].shape]
    if wrong:
        k = wrong[0]
        a, b = (str(list(d[k].shape)) if k in d else "absent" for d in (theirs, ours))
        raise NifError(f"init_from={run}: another network than this one ({k} is {a} there and {b} here); use its model and field")
    model.load_state_dict(theirs, strict=False)
    codes = checkpoint["state_dict"].get("codes.weight")
    if codes is not None:
        model.restore_instances(checkpoint["nif"]["instances"])
        model.load_state_dict({"codes.weight": codes}, strict=False)


def _trainer(config: dict[str, Any], folder: Path, device: torch.device) -> tuple[pl.Trainer, Checkpoints]:
    callbacks = [c for c in made(config["callbacks"] or {}, "callbacks", folder).values() if c is not None]
    keeper = next((c for c in callbacks if isinstance(c, Checkpoints)), None)
    if keeper is None:
        raise NifError("callbacks: a run needs its checkpoints (nif_cli.callbacks.Checkpoints)")
    loggers = []
    for name, node in (config["logger"] or {}).items():
        if isinstance(node, dict):
            locate(node["_target_"], f"logger.{name}")
            given: dict[str, Any] = {"save_dir": str(folder)}
            if node["_target_"].endswith("TensorBoardLogger"):
                given |= {"name": "", "version": ""}
            loggers.append(made(node, f"logger.{name}", folder, **given))
    node = config["trainer"]
    check_devices(node, device)
    taken = [k for k in OURS if k in node and k != "devices"]
    if taken:
        raise NifError(f"trainer.{taken[0]}: set by nif itself" + (" (device=...)" if taken[0] == "accelerator" else ""))
    if (node.get("max_steps") or -1) < 0 and not node.get("max_time"):
        raise NifError("trainer: give max_steps or max_time, or the training never ends")
    _check_time(node.get("max_time"))
    devices = node.get("devices", 1)
    trainer = made(
        node,
        "trainer",
        folder,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and devices == 1 else devices,
        max_epochs=-1,
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=loggers,
        inference_mode=False,  # fitting a code at test time needs gradients
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    return trainer, keeper


def _keep_memory() -> None:
    """Ask glibc to keep freed memory. By default it gives every large tensor back to the kernel and faults it in anew at
    the next step: a third of the time of a wide network's step on a CPU."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc: nothing to ask
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**27)


def _check_time(text: Any) -> None:
    if text is None:
        return
    with blame("trainer.max_time"):
        try:
            days, hours, minutes, seconds = (int(x) for x in str(text).split(":"))
            two = all(len(part) == 2 for part in str(text).split(":")[1:])  # as Lightning wants it
            if not two or timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds) <= timedelta(0):
                raise ValueError
        except ValueError:
            raise ValueError(f"'{text}': must be days:hours:minutes:seconds, as 00:00:10:00 for ten minutes") from None


def _introduce(model: Model, data: Data, folder: Path, device: torch.device, seconds: float) -> None:
    shapes = data.prepare()
    doubts = ("not all of it lies", "without a picture", "not watertight", "no point is inside", "dropped", "no normalisation")
    doubts += (
        "doubtful",
        "turned",
        "disagree",
        "single precision",
        "not flat",
        "cross themselves",
        "left out",
        "inward",
        "contradict",
        "larger than",
    )
    doubtful = [s for s in shapes if any(doubt in s.report for doubt in doubts)]
    for shape in shapes if len(shapes) <= 3 else doubtful[:10]:
        print(f"{shape.id}: {shape.report}")
    if len(doubtful) > 10 and len(shapes) > 3:
        print(f"... and {len(doubtful) - 10} more with something to say")
    weights = sum(p.numel() for p in model.parameters())
    where = f"{torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"{data.summary()} ({seconds:.1f} s); {type(model).__name__} with {weights:,} parameters; {where}")
    print(f"run: {folder}", flush=True)


def _conclude(
    trainer: pl.Trainer,
    training: Training,
    data: Data,
    folder: Path,
    keeper: Checkpoints,
    value: float,
    overrides: list[str],
    announce: bool,
) -> None:
    timer = next((c for c in trainer.callbacks if isinstance(c, Timer)), None)  # type: ignore[attr-defined]
    model = training.model
    seconds = model.seconds  # those before a resume included
    loss = float(training.last["loss"]) if training.last else float("nan")
    model.eval()
    figures = model.figures(data)
    summary = {
        "overrides": overrides,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(p.nbytes for p in model.parameters()),
        "train/loss": loss,
        "val/loss": value,
        "val/loss best": keeper.best,
        **figures,
    }
    write_summary(folder, summary)
    speed = trainer.global_step / max(seconds, 1e-9)
    print(f"{trainer.global_step:,} steps in {seconds:.0f} s ({speed:.1f}/s), loss {loss:.5f}, held-out loss {value:.5f}")
    if figures:
        print(", ".join(f"{name} {figure:.4g}" for name, figure in figures.items()))
    if keeper.stopped_by:
        print(f"stopped by {keeper.stopped_by} and saved; go on with\n  nif train {paste(f'resume={folder}')}")
    elif announce:
        if timer is not None and trainer.global_step < trainer.max_steps and timer.time_remaining() is not None:
            more = f"nif train {paste(f'resume={folder}')} trainer.max_time=..."
            print(f"stopped at trainer.max_time={trainer_time(timer)}; more: {more}")
        surface = isinstance(model.field(next(iter(model.instances))), Field)
        run = paste(f"run={folder}")
        print("next:" + f"\n  nif extract {run}" * surface + f"\n  nif render {run}")


def trainer_time(timer: Timer) -> str:
    assert timer._duration is not None
    minutes, seconds = divmod(round(timer._duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24:02d}:{hours % 24:02d}:{minutes:02d}:{seconds:02d}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tips and warnings of the libraries that say nothing to the user of nif; all others pass."""
    chatter = [logging.getLogger(f"{base}.utilities.rank_zero") for base in LIGHTNING]
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
        ):
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for c, level in zip(chatter, levels, strict=True):
                c.setLevel(level)
