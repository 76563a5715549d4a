"""Runs of earlier versions give today the fields, meshes, images and numbers that they gave then."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from golden.make import HERE, measure

from nif_cli.config import build, check_node, locate
from nif_cli.moved import KEYS, MOVED

GOLDEN = sorted(path.parent.name for path in HERE.glob("*/expected.json"))
# tolerances, relative to the number, or to the largest of a field's values or of an image's: machines differ
# in the last bits, a mesh by a vertex where its field touches a grid point, and a metric of samples by the
# few that a border divides
NEAR = {
    "level": 1e-3,
    "values": 1e-4,
    "colors": 1e-4,
    "radiance": 1e-3,
    "meshes": 2e-3,
    "curves": 1e-2,
    "renders": 2e-3,
}
NEAR |= {"metrics": 1e-2, "reconstruction": 1e-2}


def numbers(part: Any) -> list[float]:
    if isinstance(part, dict):
        return [n for key in sorted(part) for n in numbers(part[key])]
    if isinstance(part, list):
        return [n for item in part for n in numbers(item)]
    return [float(part)]


def targets(node: Any) -> list[str]:
    if isinstance(node, list):
        return [t for item in node for t in targets(item)]
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [t for value in node.values() for t in targets(value)]


def close(found: Any, expected: Any, near: float, key: str) -> None:
    """Every group of numbers near to what it was, in the measure of its largest."""
    if isinstance(expected, dict) and any(isinstance(value, dict | list) for value in expected.values()):
        assert sorted(found) == sorted(expected), key
        for name in expected:
            close(found[name], expected[name], near, f"{key}.{name}")
        return
    a, b = np.array(numbers(found)), np.array(numbers(expected))
    assert a.shape == b.shape, key
    finite = np.isfinite(b)
    assert (np.isfinite(a) == finite).all(), key
    scale = np.abs(b[finite]).max(initial=0.0)
    far = np.abs(a - b)[finite] > near * (
        scale if key.startswith(("values", "colors", "radiance", "renders")) else np.abs(b[finite])
    )
    # a pixel on an outline may see past it
    allowed = len(b) // 16 if key.startswith("renders") else 0
    assert far.sum() <= allowed, f"{key}: {a[finite][far][:4]}, it was {b[finite][far][:4]}"


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_run_is_what_it_was(name: str, tmp_path: Path):
    run = Path(shutil.copytree(HERE / name, tmp_path / "runs" / name))
    expected = json.loads((run / "expected.json").read_text())
    found = measure(run)
    assert found.keys() == expected.keys()
    assert found["instances"] == expected["instances"]
    for key, near in NEAR.items():
        if key in expected:
            close(found[key], expected[key], near, key)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_configuration_is_still_one(name: str):
    """What resume= and init_from= read: every class is found, every key is known."""
    config = yaml.safe_load((HERE / name / "config.yaml").read_text())
    for target in targets(config):
        assert isinstance(locate(target), type)
    check_node(config, "")


@pytest.mark.parametrize("old", MOVED)
def test_what_moved_is_found_by_its_old_name(old: str):
    """Each old path leads to a class of today, in one step: chains would have to be followed."""
    assert MOVED[old] not in MOVED
    found = locate(old)
    assert f"{found.__module__}.{found.__qualname__}" == MOVED[old]


@pytest.mark.parametrize(("target", "old"), KEYS)
def test_a_key_that_moved_is_known_by_its_old_name(target: str, old: str):
    check_node({"_target_": target}, "")
    assert target not in MOVED, "by today's path of its class"


def test_a_class_and_a_key_that_moved(monkeypatch: pytest.MonkeyPatch):
    """By example: both are built from a configuration that names neither as today."""
    monkeypatch.setitem(MOVED, "nif_cli.long.ago.Waves", "nif_cli.fields.siren.Siren")
    monkeypatch.setitem(KEYS, ("nif_cli.fields.siren.Siren", "breadth"), "width")
    node = {"_target_": "nif_cli.long.ago.Waves", "_partial_": True, "breadth": 7}
    check_node(node, "field")
    made = build(node, "field")
    assert made.func.__name__ == "Siren"
    assert made.keywords == {"width": 7}
    assert build({**node, "width": 8}, "field").keywords == {"width": 8}, "today's key wins"


def test_a_run_is_opened_without_the_compiler_of_torch():
    """torch's compiler and its symbolic mathematics take a second to load, for nothing."""
    code = (
        "import sys; from pathlib import Path; from nif_cli import runs; "
        "[runs.load_model(Path(p)) for p in sys.argv[1:]]; "
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])"
    )
    golden = [str(path.parent) for path in sorted(HERE.glob("*/config.yaml"))]
    done = subprocess.run([sys.executable, "-c", code, *golden], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
