"""What the errors of Hydra and OmegaConf mean, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nif_cli.choices import PARTS
from nif_cli.hints import did_you_mean
from nif_cli.schemas import SCHEMAS
from nif_cli.untrusted import shown
from nif_cli.words import paste, quoted

EXTRAS = {"hydra/launcher": ("joblib",), "hydra/sweeper": ("optuna",)}  # of pyproject.toml


def _distribution() -> str:
    """What nif is called where it is installed from."""
    from importlib import metadata

    return next((n for n in metadata.packages_distributions().get("nif_cli", ()) if n != "nif"), "nif-cli")


def said(error: BaseException) -> str:
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
        return _missing(error)
    if isinstance(error, OverrideParseException):
        return _unread(str(error.override))
    if isinstance(error, ConfigCompositionException) and str(error).startswith(
        ("Ambiguous value", "Sweep parameters")
    ):
        word = str(error).splitlines()[0].partition("'")[2]
        word = word.removesuffix("' requires --multirun").removesuffix("'")
        key = word.partition("=")[0]
        return (
            f"{shown(word, 300)}: a sweep is asked for by -m; a list is {key}=[a,b], text with commas "
            f"{_quoted(word)}"
        )
    cause = error
    while isinstance(cause, ConfigCompositionException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _of_key(cause)
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        # Hydra does not say which
        wrong = [o for o in overrides if re.fullmatch(r"\w*=(null|~|true|false|[\d.]+)?", o)]
        return (
            f"{wrong[0] if wrong else 'a group'}: a group is chosen by the name of one of its files, as "
            "callbacks=quiet"
        )
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}: line {error.problem_mark.line + 1}: not YAML ({error.problem})"
    if isinstance(error, ConfigCompositionException):
        return _of_file(error)
    return str(error).splitlines()[0] if isinstance(error, HydraException) else None


def _missing(error: MissingConfigException) -> str:
    """A choice of a group that is not there, or a package that would bring it."""
    missing, options = error.missing_cfg_file, error.options
    if options is None or not isinstance(missing, str):
        return str(error).splitlines()[0]
    group, _, name = missing.rpartition("/")
    if name in EXTRAS.get(group, ()):
        return f"{group}={name}: not installed; it is an extra: pip install '{_distribution()}[{name}]'"
    options = [o for o in options if o not in PARTS]
    hint = did_you_mean(name, options)
    return f"no {group} '{name}'{hint}" + ("" if "there are" in hint else f" (choices: {', '.join(options)})")


def _of_key(error: OmegaConfBaseException) -> str:
    """A key that is not there, or a value that does not fit it."""
    key = error.full_key or str(error.key or "")
    parent, text = error.parent_node, said(error)
    if "not in struct" not in text and "not in '" not in text and "not found" not in text.lower():
        return f"{key}: {text}" if key and key not in text else text
    choices = [str(k) for k in parent] if isinstance(parent, DictConfig) else []
    last = key.rpartition(".")[2]
    if last in choices:
        return f"{key}: {text}"
    if key in ("logger._target_", "callbacks._target_"):  # these groups hold several parts by name
        part = key.partition(".")[0]
        return f"{key}: {part} holds several, each under a name: +{part}.<name>._target_=..."
    choices = [c for c in choices if not c.startswith("_") and c != "hydra"]
    return f"no key '{key}'{did_you_mean(last, choices)}"


def _of_file(error: ConfigCompositionException) -> str:
    """A file whose contents do not fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = re.match(r"In '(.+?)':", lines[0])
    if not where or len(lines) < 2:
        return lines[0]
    key = next((line.partition(": ")[2] for line in lines if line.startswith("full_key: ")), "")
    schema = next((line.partition("=")[2] for line in lines if line.startswith("object_type=")), "")
    if re.match(r"Key '.*' (is )?not in", lines[1]):
        known = [f.name for s in SCHEMAS.values() if s.__name__ == schema for f in fields(s)]
        return f"{where[1]}.yaml: no key '{key}'{did_you_mean(key, known)}"
    return f"{where[1]}.yaml: {key + ': ' if key else ''}{lines[1]}"
