"""How Hydra composes the configuration of a command: every YAML file is measured before it is read, and the
node `hydra`, which Hydra builds objects, folders and loggers from before a command sees anything, is checked
first.

What is typed on the command line is the user's own will; what comes out of files (--config-dir, a run's
config.yaml) may be a stranger's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra._internal.hydra as hydra_main
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_yaml_loader

from nif_cli import NifError
from nif_cli.config import own_prefixes
from nif_cli.untrusted import one_line, regular, shown
from nif_cli.words import KEY, literal

LARGEST = 2**21  # bytes of a YAML file: a hundred times our longest
NODES = 100_000  # values of a YAML file, those behind anchors counted wherever they stand
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
NAMED = re.compile(r"\$\{\s*([^{}:$\s]+)\s*\}")  # an interpolation of another key
# resolvers of OmegaConf
UNRESOLVED = (
    "env",
    "decode",
    "create",
    "select",
    "deprecated",
    "dict.keys",
    "dict.values",
)


@contextmanager
def guarded() -> Iterator[None]:
    """Within, Hydra composes by way of this module."""
    before = hydra_main.ConfigLoaderImpl  # pyright: ignore[reportPrivateImportUsage]
    types = dict(SourcesRegistry.instance().types)
    hydra_main.ConfigLoaderImpl = Loader  # type: ignore[misc]
    try:
        _prepare()
        yield
    finally:
        hydra_main.ConfigLoaderImpl = before  # type: ignore[misc]
        SourcesRegistry.instance().types.update(types)


def _prepare() -> None:
    for source in (FileConfigSource, ImportlibResourcesConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source
    for name in UNRESOLVED:
        OmegaConf.register_new_resolver(f"oc.{name}", _refuse(name), replace=True)


def _refuse(name: str) -> Any:
    def resolver(*_: Any) -> Any:
        reads = "the environment is not read by a configuration" if name == "env" else "it is not resolved"
        raise NifError(f"${{oc.{name}:...}}: {reads}; type the value itself")

    return resolver


# Names as Hydra's own: the registry takes one class of a name for each scheme.


class FileConfigSource(file_config_source.FileConfigSource):
    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.exists():
            measured(path)
        return super().load_config(config_path)


class ImportlibResourcesConfigSource(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """A search path in a package imports the package: Hydra's own and its plugins'."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        if not f"{self.path}.".startswith(("hydra.", "hydra_plugins.")):
            raise NifError(
                f"hydra.searchpath: pkg://{shown(self.path)}: refused, it would be imported; give a folder"
            )


class Loader(ConfigLoaderImpl):
    """Hydra's, which hands out a configuration only when its node `hydra` has been checked."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        _prepare()  # again: a job of a sweep may run in a process of its own
        overrides, withheld = _of_a_run(config_name, overrides, run_mode)
        try:
            cfg = super().load_configuration(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        except (
            KeyError,
            RecursionError,
            AttributeError,
        ) as error:  # env_copy of what is not there, nests, odd defaults
            raise NifError(f"the configuration cannot be composed: {one_line(error)}") from error
        _check_unfolding(cfg)
        check_hydra(cfg)
        with read_write(cfg.hydra.overrides):
            cfg.hydra.overrides.task.extend(withheld)
        return cfg


def _of_a_run(command: str | None, overrides: list[str], mode: RunMode) -> tuple[list[str], list[str]]:
    """The words for Hydra, and those that are for the run's own configuration and no business of the default
    groups."""
    keys = [_key(word) for word in overrides]
    if command == "train" and mode == RunMode.RUN:
        resuming = [w for w in overrides if _key(w) == "resume" and not w.lower().endswith(("=", "=null"))]
        if resuming:
            # the two groups that a resumed run takes anew are composed
            ours = (
                "resume",
                "callbacks",
                "logger",
            )
            kept = [
                w
                for w, key in zip(overrides, keys, strict=True)
                if key in ours or key.split(".")[0].startswith("hydra")
            ]
            return kept, [w for w in overrides if w not in kept]
    if command not in ("train", "prepare") and "data" not in keys:  # the run's data, changed
        overrides = [
            f"+{w}" if key.startswith("data.") and w[0] not in "+~" else w
            for w, key in zip(overrides, keys, strict=True)
        ]
    return overrides, []


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def measured(path: Path) -> str:
    """The text of a YAML file that is not too large for anybody, its anchors counted wherever they are
    used."""
    size = regular(path, "configuration file").stat().st_size
    if size > LARGEST:
        raise NifError(f"{shown(path, 300)}: {size / 2**20:.1f} MiB are more than a configuration has")
    try:
        text = path.read_bytes().decode()
        node = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        count = 0 if node is None else _count(node, {}, 0)
    except (yaml.MarkedYAMLError, OSError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise NifError(f"{shown(path, 300)}: {line}not YAML ({shown(problem)})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise NifError(f"{shown(path, 300)}: not YAML ({one_line(error)})") from error
    if count > NODES:
        raise NifError(f"{shown(path, 300)}: refused, its anchors unfold to {min(count, 10**30):.0e} values")
    return text


def _count(node: yaml.Node, seen: dict[int, int | None], depth: int) -> int:
    if depth > 100:
        raise RecursionError("nested too deeply")
    if id(node) in seen:
        known = seen[id(node)]
        if known is None:
            raise RecursionError("an anchor holds itself")
        return known
    seen[id(node)] = None
    inner: Iterable[Any] = ()
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = (part for pair in node.value for part in pair)
    seen[id(node)] = count = 1 + sum(_count(part, seen, depth + 1) for part in inner)
    return count


def read_plain(path: Path) -> Any:
    """A YAML file as plain containers, numbers as OmegaConf reads them; text that looks like an interpolation
    is text."""
    text = measured(path)
    try:
        return yaml.load(text, get_yaml_loader())
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise NifError(f"{shown(path, 300)}: not YAML ({one_line(error)})") from error


def without_interpolations(node: Any) -> Any:
    """Plain containers as OmegaConf gives them back: what looks like an interpolation is escaped."""
    if isinstance(node, dict):
        return {key: without_interpolations(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_interpolations(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def _check_unfolding(cfg: DictConfig) -> None:
    """NifError where `${...}` upon `${...}` would make more text than a configuration has, before any is
    resolved."""
    root = OmegaConf.to_container(cfg, resolve=False, throw_on_missing=False)
    sizes: dict[tuple[str, ...], int] = {}

    def size(node: Any, place: tuple[str, ...]) -> int:
        if place not in sizes:
            sizes[place] = 0  # met again on its way to itself: OmegaConf will say so
            inner = (
                node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            )
            sizes[place] = 1 + sum(size(value, (*place, str(key))) for key, value in inner)
            if isinstance(node, str):
                text = node.replace("\\${", "")
                if re.search(r"\$\{[^}:]*\$\{", text):
                    raise NifError(
                        f"{shown('.'.join(place))}: an interpolation in the name of another is not resolved"
                    )
                sizes[place] += len(text) + sum(
                    size(*_named(root, name, place)) for name in NAMED.findall(text)
                )
        return sizes[place]

    try:
        count = size(root, ())
    except RecursionError as error:
        raise NifError("the configuration: its interpolations are nested too deeply") from error
    if count > LARGEST:
        raise NifError(
            f"the configuration: refused, its interpolations unfold to {min(count, 10**30):.0e} characters"
        )


def _named(root: Any, name: str, place: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """What `${name}` at a place names, and where that is; names that begin with dots are relative."""
    dots = len(name) - len(name.lstrip("."))
    parts = (*(place[:-dots] if dots else ()), *re.findall(r"[^.\[\]]+", name))
    node = root
    for part in parts:
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return None, (*parts, "missing")
    return node, parts


def check_hydra(cfg: DictConfig) -> None:
    """NifError for whatever in the node `hydra` would build, import, write or set what it should not."""
    typed = {_key(word).removeprefix("hydra.") for word in cfg.hydra.overrides.hydra}
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
    typed = {_key(word) for word in cfg.hydra.overrides.task}
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
