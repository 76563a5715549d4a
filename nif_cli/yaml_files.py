"""YAML files as plain data: measured before they are read, for they may be a stranger's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from nif_cli import NifError
from nif_cli.untrusted import one_line, regular, shown
from nif_cli.words import literal

LARGEST = 2**21  # bytes of a YAML file: a hundred times our longest
NODES = 100_000  # values of a YAML file, those behind anchors counted wherever they stand


def checked_yaml(path: Path) -> str:
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
    text = checked_yaml(path)
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
