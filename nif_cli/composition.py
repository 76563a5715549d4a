"""How Hydra composes the configuration of a command: every YAML file is measured before it is read, and the
node `hydra`, which Hydra builds objects, folders and loggers from before a command sees anything, is checked
first.

What is typed on the command line is the user's own will; what comes out of files (--config-dir, a run's
config.yaml) may be a stranger's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra._internal.hydra as hydra_main
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from nif_cli import NifError
from nif_cli.hydra_node import check_hydra, key_of
from nif_cli.untrusted import one_line, shown
from nif_cli.yaml_files import LARGEST, checked_yaml

NAMED = re.compile(r"\$\{\s*([^{}:$\s]+)\s*\}")  # an interpolation of another key
AUTO = "auto"  # resume=auto starts a run, perhaps: by the whole command
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
            checked_yaml(path)
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
    keys = [key_of(word) for word in overrides]
    if command == "train" and mode == RunMode.RUN:
        resuming = [
            w
            for w in overrides
            if key_of(w) == "resume" and w.partition("=")[2].strip("'\"").lower() not in ("", "null", AUTO)
        ]
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
