"""The node `hydra` of a configuration, which Hydra builds objects, folders and loggers from before a command
sees anything: what a file may say there, and what only the user may type."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from nif_cli import NifError
from nif_cli.config import own_prefixes
from nif_cli.untrusted import shown
from nif_cli.words import KEY
from nif_cli.yaml_files import without_interpolations

LAUNCHERS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.",
)
SWEEPERS = (
    *(
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.",
    ),
    *("optuna.samplers.", "optuna.distributions."),
)
CALLBACKS = ("nif_cli.training.sweep.", "hydra.experimental.callbacks.LogJobReturnCallback")
TARGETS = {"launcher": LAUNCHERS, "sweeper": SWEEPERS, "callbacks": CALLBACKS}
FOLDERS = {"run.dir": ".", "output_subdir": None, "job.chdir": False}  # what nif's own configuration says


def check_hydra(cfg: DictConfig) -> None:
    """NifError for whatever in the node `hydra` would build, import, write or set what it should not."""
    typed = {key_of(word).removeprefix("hydra.") for word in cfg.hydra.overrides.hydra}
    for section, allowed in TARGETS.items():
        _check_targets(cfg, section, (*allowed, *own_prefixes()))
    for key in ("env_set", "env_copy"):
        if cfg.hydra.job[key]:
            raise NifError(
                f"hydra.job.{key}: refused, a configuration sets no environment; set it where nif is started"
            )
    for section in ("job_logging", "hydra_logging"):
        _check_logging(OmegaConf.to_container(cfg.hydra[section], resolve=False), f"hydra.{section}")
    for key, own in FOLDERS.items():
        value = OmegaConf.to_container(cfg.hydra, resolve=False, throw_on_missing=False)
        for part in key.split("."):
            value = value[part]  # type: ignore[index,call-overload]
        if value not in (own, None) and not _typed(key, typed):
            raise NifError(f"hydra.{key}={shown(value)}: refused, a file does not choose it; type it")
    for key in ("dir", "subdir"):
        value = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)[key]  # type: ignore[index,call-overload]
        if not _typed(f"sweep.{key}", typed) and not _below(str(value)):
            raise NifError(
                f"hydra.sweep.{key}={shown(value)}: refused, it leads out of the working folder; type it"
            )
    _check_sweep(cfg, typed)
    _check_outputs(cfg)


def _typed(key: str, typed: set[str]) -> bool:
    return any(key == t or key.startswith(f"{t}.") for t in typed)


def _below(pattern: str) -> bool:
    """Whether a folder's pattern stays below the working folder, whatever Hydra fills in."""
    text = re.sub(r"\$\{now:([^${}]*)\}", r"\1", pattern)
    text = re.sub(r"\$\{hydra\.job\.(num|id|override_dirname)\}", "x", text)
    return inside(text) and "${" not in text


def inside(path: str) -> bool:
    """Whether a path that is joined to a folder stays in it, by its letters."""
    return not (
        os.path.isabs(path) or path.startswith("~") or ".." in re.split(r"[/\\]", path) or "\0" in path
    )


def _check_targets(cfg: DictConfig, section: str, allowed: tuple[str, ...]) -> None:
    """The classes of a section, its interpolations resolved once and for all."""
    where = f"hydra.{section}"
    if cfg.hydra.get(section) is None:
        return
    plain = OmegaConf.to_container(cfg.hydra[section], resolve=True)
    for key, target in _targets(plain, where):
        if not isinstance(target, str) or not any(
            target == a or (a.endswith(".") and target.startswith(a)) for a in allowed
        ):
            raise NifError(
                f"{key}={shown(target)}: refused; hydra.{section} builds only "
                f"{', '.join(a.rstrip('.') for a in allowed)}"
            )
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        OmegaConf.update(cfg.hydra, section, without_interpolations(plain), merge=False)


def _targets(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield f"{where}._target_", value
            else:
                yield from _targets(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _targets(value, f"{where}[{i}]")


def _check_logging(node: Any, where: str) -> None:
    """Lines on the terminal, in any format: no files, no factories, nothing that is imported."""
    for key, value in (node or {}).items():
        if key == "formatters":
            extra = [k for f in (value or {}).values() for k in f if k not in ("format", "datefmt")]
        elif key == "handlers":
            extra = [
                k
                for h in (value or {}).values()
                for k in h
                if k not in ("class", "stream", "formatter", "level")
            ]
            for handler in (value or {}).values():
                if handler.get("class") != "logging.StreamHandler":
                    extra.append(str(handler.get("class")))
                if handler.get("stream", "ext://sys.stdout") not in ("ext://sys.stdout", "ext://sys.stderr"):
                    extra.append(str(handler["stream"]))
        elif key in ("root", "loggers"):
            loggers = [value] if key == "root" else list((value or {}).values())
            extra = [
                k for each in loggers if each for k in each if k not in ("level", "handlers", "propagate")
            ]
        else:
            extra = [] if key in ("version", "disable_existing_loggers") else [key]
        if extra or "${" in str(value) or "ext://" in str(value).replace("ext://sys.std", ""):
            raise NifError(
                f"{where}.{key}: refused ({shown(extra[0] if extra else value)}); it may write lines on "
                "the terminal only"
            )


def _check_sweep(cfg: DictConfig, typed: set[str]) -> None:
    """What a sweeper or a launcher would write, import, or hand on as if it were typed."""
    launcher, sweeper = cfg.hydra.launcher or {}, cfg.hydra.sweeper or {}
    for section, node, key in (("launcher", launcher, "temp_folder"), ("sweeper", sweeper, "storage")):
        if node.get(key) is not None and not _typed(f"{section}.{key}", typed):
            raise NifError(
                f"hydra.{section}.{key}={shown(node[key])}: refused, a file does not choose where is "
                "written; type it"
            )
    if sweeper.get("custom_search_space") is not None:
        raise NifError("hydra.sweeper.custom_search_space: refused, it would be called")
    for section in ("params", "search_space"):
        for key in sweeper.get(section) or {}:
            name = str(key).lstrip("+~")
            if name.split("@")[0].split(".")[0].split("/")[0] in (
                "hydra",
                "output_dir",
                "",
            ) or not KEY.fullmatch(f"{key}="):
                raise NifError(
                    f"hydra.sweeper.{section}: {shown(key)}: refused; a sweep varies keys of the command"
                )


def _check_outputs(cfg: DictConfig) -> None:
    """Where a command writes is typed, or below the working folder."""
    typed = {key_of(word) for word in cfg.hydra.overrides.task}
    for key in ("output", "output_dir"):
        value = OmegaConf.to_container(cfg, resolve=False, throw_on_missing=False).get(key)  # type: ignore[union-attr]
        if (
            key not in typed
            and isinstance(value, str)
            and value != "???"
            and ("${" in value or not inside(value))
        ):
            raise NifError(
                f"{key}={shown(value)}: refused, a file does not choose a folder outside this one; type it"
            )


def key_of(word: str) -> str:
    """The key that a word of the command line sets."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0]
