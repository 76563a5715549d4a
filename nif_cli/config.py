"""Configuration: the root keys of each command, checks before anything heavy starts, and the one place where
a `_target_` becomes an object."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nif_cli import NifError
from nif_cli.moved import today, with_todays_keys
from nif_cli.untrusted import shown, whole
from nif_cli.words import paste, quoted

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
PARTS_OF_GROUPS = ("batches", "sampling", "rays")  # files of conf/data that others include: no choices
FOREIGN = "NIF_ALLOW"  # a user's own prefixes, from their own environment only


# Root schemas: a key that is not here is a mistake, wherever it was written. Groups are Any: their classes
# check them.


@dataclass
class Train:
    model: Any = None
    field: Any = None
    encoding: Any = None
    encoder: Any = None
    data: Any = None
    optimizer: Any = None
    scheduler: Any = None
    trainer: Any = None
    callbacks: Any = None
    logger: Any = None
    seed: int = 0
    device: str = "auto"
    output_dir: str | None = None
    resume: str | None = None
    init_from: str | None = None
    paths: Any = None  # where data.path and the like lay when the run began; written by nif


@dataclass
class Prepare:
    input: Any = MISSING
    output: str = MISSING
    format: Any = None
    repair: str = "none"
    samples: int | None = None
    surface_samples: int | None = None
    spread: Any = None
    uniform: float = 0.06
    solid_resolution: int = 192
    dataset: str | None = None
    category: str | None = None
    val: float = 0.0
    test: float = 0.0
    workers: int | None = None
    seed: int = 0


@dataclass
class OfRun:
    """What every command that works on a finished run has."""

    run: str | None = None
    checkpoint: str = "last"
    instances: Any = None
    output: str | None = None
    device: str = "auto"


@dataclass
class OfShapes(OfRun):
    """What is made of the shapes of one run, or of several (then `run` is a list)."""

    run: Any = None
    interpolate: int | None = None
    sample: int | None = None
    seed: int = 0
    compose: str | None = None
    blend: float | None = None
    share: float | None = None
    place: Any = None
    offset: float | None = None
    shell: float | None = None
    frame: str = "original"


@dataclass
class Extract(OfShapes):
    resolution: int = 128
    method: str = "sparse"
    coarse: int | None = None
    bounds: Any = None
    level: float | None = None
    largest: bool = False
    faces: int | None = None
    refine: int = 0
    normals: bool = False
    format: str = "ply"


@dataclass
class Render(OfShapes):
    camera: str | None = None
    path: str | None = None
    frames: int | None = None
    size: int | None = None
    channels: Any = None
    shadows: bool = True
    shape: str | None = None
    appearance: str | None = None
    antialias: int = 2
    crop: Any = None
    elevation: float = 20.0
    up: str = "y"
    format: str = "png"


@dataclass
class NewShapes:
    """How new shapes are seen and inferred; None leaves it to the model."""

    observe: str | None = None
    points: int = 8192
    noise: float = 0.0
    keep: str | None = None
    pose: int = 0
    steps: int | None = None
    restarts: int | None = None
    together: int = 16
    seed: int = 0


@dataclass
class Reconstruct(NewShapes):
    input: Any = MISSING
    turn_normals: bool = False
    normalise: str = "auto"
    run: str | None = None
    checkpoint: str = "last"
    resolution: int = 128
    method: str = "sparse"
    format: str = "ply"
    frame: str = "original"
    picture: bool = False
    save: str | None = None
    output: str | None = None
    device: str = "auto"


@dataclass
class Evaluate(NewShapes):
    run: str | None = None
    checkpoint: str = "last"
    instances: Any = None
    protocol: Any = None
    data: Any = None
    split: str | None = None
    mesh: str | None = None
    reference: str | None = None
    scan: str | None = None
    curve: Any = None
    resolution: int = 128
    method: str = "sparse"
    output: str | None = None
    device: str = "auto"


@dataclass
class ImportDeepSdf:
    folder: str = MISSING
    epoch: Any = "latest"
    data_root: str | None = None
    output_dir: str | None = None


SCHEMAS = {
    "prepare": Prepare,
    "train": Train,
    "extract": Extract,
    "render": Render,
    "reconstruct": Reconstruct,
    "evaluate": Evaluate,
    "import-deepsdf": ImportDeepSdf,
}


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
    """Make the schemas known to Hydra."""
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(f"{name}_schema", schema)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """'; did you mean ...?', or the choices when none is close."""
    choices = [str(c) for c in choices]
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = ", ..." if len(choices) > 15 else ""
    return f"; there are {', '.join(choices[:15])}{more}" if choices else ""


def check(cfg: DictConfig, command: str) -> dict[str, Any]:
    """The resolved configuration as plain containers, after checking every key and value against the classes
    that will take them. NifError names the key."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise NifError(f"{error.full_key or 'config'}: {_said(error)}") from error
    assert isinstance(plain, dict)
    known = [f.name for f in fields(SCHEMAS[command])]
    for key in plain:
        if key not in known:
            raise NifError(f"no key '{key}'{did_you_mean(str(key), known)}")
    hints = typing.get_type_hints(SCHEMAS[command])
    for field in fields(SCHEMAS[command]):  # Hydra has seen to it, but for a run's own file
        value = plain.setdefault(field.name, field.default)
        hint = hints[field.name]
        if command == "train" and hint is Any and not isinstance(value, dict | None):
            raise NifError(f"{field.name}={shown(repr(value))}: must be a mapping of keys")
        if value != MISSING and hint is not Any and (isinstance(value, dict) or not _fits(value, hint)):
            raise NifError(f"{field.name}={shown(repr(value))}: must be {_spell(hint)}")
    check_node(plain, "")
    return typing.cast("dict[str, Any]", plain)


def check_node(node: Any, path: str) -> None:
    """Every key and value below a node, against the class that will take it; `path` is the node's own key."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            check_node(item, f"{path}[{i}]")
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
            if not _fits(value, hint):
                raise NifError(f"{prefix}{key}={value!r}: must be {_spell(hint)}")
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


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, dict) and "_target_" in value:  # an object to be built; its own class checks it
        return True
    if value is None and isinstance(hint, type) and hint in (float, int, str, bool):
        return False
    # Callables, modules and such are handed over at run time; what can stand in YAML is checked
    from beartype import BeartypeConf
    from beartype.door import is_bearable
    from beartype.roar import BeartypeException

    try:
        if isinstance(value, bool) and hint in (int, float):
            return False
        numbers = BeartypeConf(is_pep484_tower=True)  # 1 is a number where 1.0 is
        return is_bearable(value, hint, conf=numbers) or (
            isinstance(value, list) and is_bearable(tuple(value), hint, conf=numbers)
        )
    except (BeartypeException, TypeError):
        return True


def _spell(hint: Any) -> str:
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
    if hint in names:
        return names[hint]
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_spell(h) for h in inner if h in names or typing.get_args(h))
    if inner:
        return "a list" if typing.get_origin(hint) is not dict else "a mapping"
    return getattr(hint, "__name__", str(hint))


def _words(parameters: dict[str, Any] | None, key: str) -> str:
    return "file or folder" if key in ("path", "root") else _spell((parameters or {}).get(key, str))


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


def _said(error: BaseException) -> str:
    """OmegaConf's first line, without the name of our own exception in a resolver."""
    return str(error).splitlines()[0].removeprefix("NifError raised while resolving interpolation: ")


def _unread(word: str) -> str:
    """What is wrong with a word that Hydra cannot read, and how it is written."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{shown(word, 300)}: not key=value; a file is given as data.path=..., input=... or mesh=..."
    if not re.fullmatch(r"[+~]{0,2}[A-Za-z_][\w./@-]*", key):
        return f"{shown(word, 300)}: '{shown(key)}' is no key"
    return (
        f"{shown(word, 300)}: '{shown(value, 200)}' cannot be read; if it is text, quote it twice: "
        f"{_quoted(word)}"
    )


def _quoted(word: str) -> str:
    key, _, value = word.partition("=")
    return shown(paste(f"{key}={quoted(value)}"), 300)


def explain(error: BaseException, overrides: Iterable[str] = ()) -> str | None:
    """One line for what Hydra or OmegaConf found wrong with an override or a file; None for any other
    error."""
    if isinstance(error, MissingConfigException):
        missing, options = error.missing_cfg_file, error.options
        if options is not None and isinstance(missing, str):
            group, _, name = missing.rpartition("/")
            options = [o for o in options if o not in PARTS_OF_GROUPS]
            hint = did_you_mean(name, options)
            return f"no {group} '{name}'{hint}" + (
                "" if "there are" in hint else f" (choices: {', '.join(options)})"
            )
        return str(error).splitlines()[0]
    if isinstance(error, OverrideParseException):
        return _unread(str(error.override))
    if isinstance(error, ConfigCompositionException) and str(error).startswith(
        ("Ambiguous value", "Sweep parameters")
    ):
        word = (
            str(error)
            .splitlines()[0]
            .partition("'")[2]
            .removesuffix("' requires --multirun")
            .removesuffix("'")
        )
        key = word.partition("=")[0]
        return (
            f"{shown(word, 300)}: a sweep is asked for by -m; a list is {key}=[a,b], text with commas "
            f"{_quoted(word)}"
        )
    cause = error
    while isinstance(cause, ConfigCompositionException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = cause.full_key or str(cause.key or "")
        parent = cause.parent_node
        text = _said(cause)
        if "not in struct" in text or "not in '" in text or "not found" in text.lower():
            choices = [str(k) for k in parent] if isinstance(parent, DictConfig) else []
            last = key.rpartition(".")[2]
            if last in choices:
                return f"{key}: {text}"
            choices = [c for c in choices if not c.startswith("_") and c != "hydra"]
            return f"no key '{key}'{did_you_mean(last, choices)}"
        return f"{key}: {text}" if key and key not in text else text
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        # Hydra does not say which
        wrong = [o for o in overrides if re.fullmatch(r"\w*=(null|~|true|false|[\d.]+)?", o)]
        return (
            f"{wrong[0] if wrong else 'a group'}: a group is chosen by the name of one of its files, as "
            "callbacks=quiet"
        )
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}: line {error.problem_mark.line + 1}: not YAML ({error.problem})"
    if isinstance(error, HydraException) and not isinstance(error, ConfigCompositionException):
        return str(error).splitlines()[0]
    if isinstance(error, ConfigCompositionException):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = re.match(r"In '(.+?)':", lines[0])  # a file whose contents do not fit
        if not where or len(lines) < 2:
            return lines[0]
        key = next((line.partition(": ")[2] for line in lines if line.startswith("full_key: ")), "")
        schema = next((line.partition("=")[2] for line in lines if line.startswith("object_type=")), "")
        if re.match(r"Key '.*' (is )?not in", lines[1]):
            known = [f.name for s in SCHEMAS.values() if s.__name__ == schema for f in fields(s)]
            return f"{where[1]}.yaml: no key '{key}'{did_you_mean(key, known)}"
        return f"{where[1]}.yaml: {key + ': ' if key else ''}{lines[1]}"
    return None
