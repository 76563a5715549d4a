"""Names that have moved. Class paths and keys are a file format: they stand in the configurations and the checkpoints of
runs, and in users' own YAML files. What moves, or changes its name, leaves a line here, and old files stay readable."""

from __future__ import annotations

from typing import Any

# old dotted path of a class: its path today
MOVED: dict[str, str] = {
    "nif_cli.data.shapes.Meshes": "nif_cli.data.meshes.Meshes",
    "nif_cli.data.shapes.ToyShapes": "nif_cli.data.meshes.ToyShapes",
}

# (path of a class today, old key of its configuration): the key today
KEYS: dict[tuple[str, str], str] = {}


def today(target: str) -> str:
    """The path of a class today, by any that it ever had."""
    return MOVED.get(target, target)


def with_todays_keys(target: str, node: dict[str, Any]) -> dict[str, Any]:
    """A configuration node of the class `target` (its path today), old keys renamed; a key that is there stays."""
    old = {key: KEYS[target, key] for key in node if (target, key) in KEYS}
    if not old:
        return node
    return {old.get(key, key): value for key, value in node.items() if old.get(key) not in node}
