"""Configuration: the root keys of each command, checks before anything heavy starts, and the one place where
a `_target_` becomes an object."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING as MISSING_DEFAULT
from dataclasses import field, fields, make_dataclass
from typing import Any, Literal, overload

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nif_cli import NifError
from nif_cli.hints import Give, fault, fits, parts, spell, stored
from nif_cli.hints import did_you_mean as did_you_mean  # for whoever looks names up
from nif_cli.hydra_errors import said
from nif_cli.moved import today, with_todays_keys
from nif_cli.schemas import (
    SCHEMAS,
    Evaluate,
    Extract,
    ImportDeepSdf,
    Prepare,
    Reconstruct,
    Render,
    Train,
    ViewRuns,
)
from nif_cli.untrusted import shown, whole

# A class may be built when its own __module__ begins so. Functions never, and nothing else: configs and
# checkpoints come from strangers.
ALLOWED = (
    "nif_cli.",
    "torch.optim.",
    "torch.nn.",
    "torchmetrics.",
    *(
        f"pytorch_lightning.{part}."
        for part in ("trainer", "callbacks", "loggers", "strategies", "profilers")
    ),
)
# nobody's own, and what a stranger would have run: not to be allowed by way of a hint
OFTEN_ABUSED = (
    *(f"{name}." for name in sorted(sys.stdlib_module_names)),
    *("numpy.", "torch.", "joblib.", "hydra.", "nif_cli.", "pandas.", "pytorch_lightning.", "builtins."),
)
LARGEST_INTEGER = 2**64  # beyond it no library takes a whole number, nor at last a float
FOREIGN = "NIF_ALLOW"  # a user's own prefixes, from their own environment only


@contextmanager
def started() -> Iterator[None]:
    """Within, NIF_ALLOW is what it was at the start, whatever a configuration or a library sets."""
    _environment.append(os.environ.get(FOREIGN, ""))
    try:
        yield
    finally:
        _environment.pop()


_environment: list[str] = []


def own_prefixes() -> tuple[str, ...]:
    """The prefixes of classes that the user allows by NIF_ALLOW."""
    words = _environment[0] if _environment else os.environ.get(FOREIGN, "")
    return tuple(p.strip() for p in words.split(",") if p.strip())


def register() -> None:
    """Make the schemas known to Hydra, with the hints that it understands."""
    for name, schema in SCHEMAS.items():
        hints = typing.get_type_hints(schema, include_extras=True)
        rows: Any = [
            (f.name, stored(hints[f.name]), field(default_factory=f.default_factory))
            if f.default is MISSING_DEFAULT
            else (f.name, stored(hints[f.name]), field(default=f.default))
            for f in fields(schema)
        ]
        ConfigStore.instance().store(f"{name}_schema", make_dataclass(schema.__name__, rows))


@overload
def check(cfg: DictConfig, command: Literal["train"]) -> Train: ...
@overload
def check(cfg: DictConfig, command: Literal["prepare"]) -> Prepare: ...
@overload
def check(cfg: DictConfig, command: Literal["extract"]) -> Extract: ...
@overload
def check(cfg: DictConfig, command: Literal["render"]) -> Render: ...
@overload
def check(cfg: DictConfig, command: Literal["view"]) -> ViewRuns: ...
@overload
def check(cfg: DictConfig, command: Literal["reconstruct"]) -> Reconstruct: ...
@overload
def check(cfg: DictConfig, command: Literal["evaluate"]) -> Evaluate: ...
@overload
def check(cfg: DictConfig, command: Literal["import-deepsdf"]) -> ImportDeepSdf: ...
@overload
def check(cfg: DictConfig, command: str) -> Any: ...
def check(cfg: DictConfig, command: str) -> Any:
    """The resolved configuration as the command's own dataclass (groups as plain containers), after checking
    every key and value against the classes that will take them. NifError names the key."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise NifError(f"{error.full_key or 'config'}: {said(error)}") from error
    return typed(typing.cast("dict[str, Any]", plain), command)


def typed(plain: dict[str, Any], command: str) -> Any:
    """The command's dataclass of these keys (the others by default), every value checked; groups as plain
    containers. NifError names the key."""
    schema = SCHEMAS[command]
    known = [f.name for f in fields(schema)]
    for key in plain:
        if key not in known:
            raise NifError(f"no key '{key}'{did_you_mean(str(key), known)}")
    hints = typing.get_type_hints(schema, include_extras=True)
    given = {f.name: plain.get(f.name, getattr(schema(), f.name)) for f in fields(schema)}
    given = {key: _root(key, value, hints[key], command) for key, value in given.items()}
    check_node(given, "")
    return schema(**given)


def _root(key: str, value: Any, hint: Any, command: str) -> Any:
    """The value of a root key, a number as text where only text will do."""
    if command == "train" and hint is Any and not isinstance(value, dict | None):
        raise NifError(f"{key}={shown(repr(value))}: must be a mapping of keys")
    if value == MISSING:
        what = next((rule.what for rule in parts(hint)[1] if isinstance(rule, Give)), "...")
        raise NifError(f"{key} is missing: give {key}=<{what}>")
    if isinstance(value, int | float) and not isinstance(value, bool) and fault(value, hint):
        value = str(value) if not fault(str(value), hint) else value
    if hint is not Any and (wrong := fault(value, hint)):
        raise NifError(f"{key}={shown(wrong[0])}: {wrong[1]}")
    return value


def check_node(node: Any, path: str) -> None:
    """Every key and value below a node, against the class that will take it; `path` is the node's own key."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            check_node(item, f"{path}[{i}]")
    if isinstance(node, int) and abs(node) >= LARGEST_INTEGER:
        raise NifError(f"{path}={shown(repr(node))}: no number here is that large")
    if not isinstance(node, dict):
        return
    prefix = f"{path}." if path else ""
    if "_target_" in node:
        cls = locate(node["_target_"], path)
        node = with_todays_keys(today(node["_target_"]), node)
        parameters = _parameters(cls)
        for key, value in node.items():
            if key in ("_target_", "_partial_"):
                continue
            if parameters is not None and key not in parameters:
                raise NifError(f"no key '{prefix}{key}' ({cls.__name__}){did_you_mean(key, parameters)}")
            if value == "???":
                raise NifError(f"{prefix}{key} is missing: give {prefix}{key}=<{_words(parameters, key)}>")
            hint = parameters[key] if parameters else Any
            if not fits(value, hint):
                raise NifError(f"{prefix}{key}={value!r}: must be {spell(hint)}")
    for key, value in node.items():
        check_node(value, f"{prefix}{key}")


@functools.cache
def _parameters(cls: type) -> dict[str, Any] | None:
    """Name -> type of what a constructor takes, its ancestors' included while it passes **keywords on; None:
    anything."""
    found: dict[str, Any] = {}
    for ancestor in cls.__mro__:
        init = ancestor.__dict__.get("__init__")
        if init is None:
            continue
        hints: dict[str, Any] = {}
        try:
            hints = typing.get_type_hints(init)
        except (
            Exception
        ):  # a foreign class whose annotations do not resolve: its names are checked, its types are not
            hints = {}
        signature = inspect.signature(init).parameters
        for name, parameter in list(signature.items())[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(name, hints.get(name, Any))
        if not any(p.kind == p.VAR_KEYWORD for p in signature.values()):
            return found
    return None if object in cls.__mro__ and not found else found


def _words(parameters: dict[str, Any] | None, key: str) -> str:
    return "file or folder" if key in ("path", "root") else spell((parameters or {}).get(key, str))


def locate(target: Any, where: str = "", allowed: tuple[str, ...] = ALLOWED) -> type:
    """The class that a `_target_` names. Only module.Class, only classes whose own module begins with an
    allowed prefix."""
    key = f"{where}._target_" if where else "_target_"
    if not isinstance(target, str):
        raise NifError(f"{key}={target!r}: must be the dotted name of a class")
    target = today(target)
    prefixes = allowed + own_prefixes()
    top = tuple({p.split(".")[0] + "." for p in prefixes})
    module_name, _, name = target.rpartition(".")
    refused = (
        f"{key}={target}: refused; only classes of {', '.join(p.rstrip('.') for p in prefixes)} may be built"
    )
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target) and not f"{module_name}.".startswith(
        OFTEN_ABUSED
    ):
        refused += f"; a class of your own by {FOREIGN}={target.split('.')[0]}. in front of nif"
    if not module_name or not f"{module_name}.".startswith(top) or "__" in module_name:
        raise NifError(refused)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise NifError(f"{key}={target}: there is no module '{module_name}'") from error
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name]
        raise NifError(f"{key}={target}: no '{name}' in {module_name}{did_you_mean(name, classes)}")
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(prefixes):
        raise NifError(refused)
    return found


def build(node: Any, where: str, *, allowed: tuple[str, ...] = ALLOWED, **given: Any) -> Any:
    """The object that a configuration node describes: `_target_(**keys, **given)`, nested nodes first; with
    `_partial_: true` a partial that the owner completes. Nodes without `_target_` stay what they are."""
    if isinstance(node, list):
        return [build(item, where, allowed=allowed) for item in node]
    if not isinstance(node, Mapping):
        return node
    node = with_todays_keys(today(str(node.get("_target_"))), dict(node))
    inner = {
        k: build(v, f"{where}.{k}", allowed=allowed)
        for k, v in node.items()
        if k not in ("_target_", "_partial_")
    }
    if "_target_" not in node:
        return inner
    cls = locate(node["_target_"], where, allowed)
    inner = _whole_numbers(cls, inner, where)
    if node.get("_partial_"):
        return functools.partial(cls, **inner, **given)
    with blame(where):
        return cls(**{**inner, **given})


def _whole_numbers(cls: Any, given: dict[str, Any], where: str) -> dict[str, Any]:
    """What is `given` to a constructor, its ints whole: many would take 1e308 and stumble over it much
    later."""
    try:
        declared = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # some classes written in C have none
        return given
    ints = {k for k in given if k in declared and declared[k].annotation in (int, "int", "int | None")}
    ints = {k for k in ints if given[k] is not None and not isinstance(given[k], int)}
    return {**given, **{k: whole(given[k], f"{where}.{k}", -(2**31)) for k in ints}}


class blame:
    """Turns a ValueError or TypeError of a constructor into a NifError that names the configuration node."""

    def __init__(self, where: str):
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: Any) -> None:
        if isinstance(error, ValueError | TypeError) and os.environ.get("NIF_DEBUG") != "1":
            raise NifError(
                f"{self.where}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
