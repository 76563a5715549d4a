"""Runs beside each other: the settings in which they differ, their metrics, their curves."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.run_folders import RunFolder
from nif_cli.run_search import settings
from nif_cli.small_files import read_text
from nif_cli.untrusted import shown

# of settings: where a run lies and what watches it says nothing of how it learns
APART = ("output_dir", "resume", "init_from", "name", "tag", "paths", "callbacks", "logger", "device")
CURVES = ("val/loss", "train/loss")
MOST_POINTS = 400  # of a curve in the image
LONGEST = 2**24  # bytes of a metrics.csv that is drawn


def labels(found: list[RunFolder]) -> list[str]:
    """A short name for each run, no two the same."""
    for parts in (1, 2, 3, 4):
        names = [run.name or "/".join(run.path.parts[-parts:]) for run in found]
        if len(set(names)) == len(names):
            return [shown(name, 40) for name in names]
    return [shown(run.path, 60) for run in found]


def differences(found: list[RunFolder]) -> list[tuple[str, ...]]:
    """Rows of (key, value in each run) for each setting that is not the same in all."""
    flat = [dict(_flattened(settings(run))) for run in found]
    rows = []
    for key in dict.fromkeys(k for own in flat for k in own):
        values = [own.get(key) for own in flat]
        if key.split(".")[0] not in APART and any(v != values[0] for v in values):
            rows.append(
                (
                    shown(key),
                    *("" if key not in own else _text(own[key]) for own in flat),
                )
            )
    return rows


def metrics(found: list[RunFolder]) -> list[tuple[str, ...]]:
    """Rows of (metric, value in each run), steps and seconds first."""
    rows: list[tuple[str, ...]] = [
        ("steps", *(f"{run.steps:,}" if run.steps is not None else "" for run in found)),
        ("seconds", *(f"{run.seconds:.0f}" if run.seconds is not None else "" for run in found)),
    ]
    for name in dict.fromkeys(n for run in found for n in run.metrics):
        rows.append((name, *(f"{run.metrics[name]:.5g}" if name in run.metrics else "" for run in found)))
    return rows


def curves_png(
    found: list[RunFolder], metric: str | None = None, names: list[str] | None = None
) -> bytes | None:
    """The curves of `metric` (None: of the held-out loss and of the training's) as a PNG; None where there
    are none. `names`: what the runs are called in it. NifError for a metric that no run has noted."""
    import numpy as np
    from PIL import Image

    from nif_cli.rendering.charts import chart

    names = names or labels(found)
    columns = [read_columns(run.path / "metrics.csv") for run in found]
    if metric is not None and not any(metric in own for own in columns):
        known = ", ".join(dict.fromkeys(n for own in columns for n in own)) or "nothing"
        raise NifError(f"metric={shown(metric)}: metrics.csv of these runs has {shown(known, 300)}")
    charts = []
    for wanted in [metric] if metric else CURVES:
        curves = {name: own[wanted] for name, own in zip(names, columns, strict=True) if wanted in own}
        if curves:
            charts.append(chart(curves, "steps", wanted, 960, 480))
    if not charts:
        return None
    file = io.BytesIO()
    Image.fromarray(np.concatenate(charts)).save(file, "PNG")
    return file.getvalue()


def read_columns(path: Path) -> dict[str, dict[int, float]]:
    """Value by step for each column of a metrics.csv; rows that are damaged are left out."""
    text = read_text(path, LONGEST)
    found: dict[str, dict[int, float]] = {}
    rows = csv.reader((text or "").replace("\0", "").splitlines())
    try:
        columns = next(rows, [])
        if not columns or columns[0] != "step":
            return {}
        for row in rows:
            if len(row) != len(columns) or (step := _number(row[0])) is None or not 0 <= step < 2**53:
                continue
            for name, cell in zip(columns[1:], row[1:], strict=True):
                value = _number(cell)
                if value is not None:
                    found.setdefault(shown(name), {})[int(step)] = value
    except csv.Error:
        pass
    return {name: _thinned(curve) for name, curve in found.items()}


def _thinned(curve: dict[int, float]) -> dict[int, float]:
    steps = sorted(curve)
    stride = -(-len(steps) // MOST_POINTS)
    return {k: curve[k] for n, k in enumerate(steps) if n % stride == 0 or k == steps[-1]}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _flattened(node: Any, prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    if isinstance(node, dict) and depth < 20:
        return [
            pair
            for key, value in node.items()
            for pair in _flattened(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
        ]
    return [(prefix, node)]


def _text(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value, default=str), 40)
