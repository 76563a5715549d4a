"""Numbers of many instances as a report and as tables."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from nif_cli import __version__, runs
from nif_cli.files import write
from nif_cli.metrics.protocols import Metrics, Protocol


def summary(protocol: Protocol, instances: dict[str, Metrics], empty: list[str]) -> dict[str, Any]:
    """Mean, median and the worst instance of each metric over the shapes that have it."""
    report: dict[str, Any] = {"mean": {}, "median": {}, "worst": {}, "count": {}, "left_out": []}
    for metric in protocol.units:
        found = {
            id: v for id, m in instances.items() if (v := m.get(metric)) is not None and math.isfinite(v)
        }
        if not found:
            report["left_out"].append(metric)
            continue
        pick = min if metric in protocol.larger_is_better else max
        report["mean"][metric] = float(np.mean(list(found.values())))
        report["median"][metric] = float(np.median(list(found.values())))
        report["worst"][metric] = pick(found, key=lambda id: found[id])
        report["count"][metric] = len(found)
    return report | {
        "units": protocol.units,
        "empty": {"instances": empty, "counted": protocol.empty},
        "instances": instances,
    }


def print_tables(report: dict[str, Any], protocols: dict[str, Protocol], total: int) -> None:
    for name, protocol in protocols.items():
        part = report["protocol"][name]
        print(f"\n{name}: {total} shape{'s' * (total != 1)}")
        width = max(len(m) for m in protocol.units)
        for metric, mean in part["mean"].items():
            digits = protocol.decimals
            row = f"  {metric:<{width}}  {mean:.{digits}f}"
            if total > 1:
                worst = part["worst"][metric]
                value = part["instances"][worst][metric]
                row += f"  median {part['median'][metric]:.{digits}f}  worst {value:.{digits}f} {worst}"
            print(f"{row}  [{protocol.units[metric]}]")
        if part["left_out"]:
            print(f"  left out: {', '.join(part['left_out'])} (their truth is missing)")
        if part["empty"]["instances"]:
            ids = part["empty"]["instances"]
            print(
                f"  {len(ids)} without a surface ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}): "
                f"{protocol.empty}"
            )
    print()


def write_report(report: dict[str, Any], output: str | None, run: Path, began: float) -> Path:
    """The report with its seconds (since `began`, of the monotonic clock) and nif's version, where output=
    says or as <run>/evaluation.json; that path."""
    path = runs.output_path(output, run / "evaluation.json")
    ending = {"seconds": round(time.monotonic() - began, 1), "version": __version__}
    write(path, json.dumps({**report, **ending}, indent=1))
    return path
