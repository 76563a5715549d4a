"""The table at the end of a sweep (nif train -m ...)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Prints a row for each job, best first, and writes sweep.csv in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = []
        for path in sorted(folder.glob("*/summary.json"), key=lambda p: (len(p.parent.name), p.parent.name)):
            summary = json.loads(path.read_text())
            settings = dict(o.lstrip("+").split("=", 1) for o in summary.pop("overrides"))
            rows.append({"run": str(path.parent), **settings, **summary})
        if not rows:
            return
        varied = [k for k in dict.fromkeys(k for r in rows for k in r) if len({str(r.get(k)) for r in rows}) > 1 or k == "run"]
        everything = list(dict.fromkeys(k for r in rows for k in r))
        rows.sort(key=lambda r: r["val/loss best"] if isinstance(r.get("val/loss best"), float) else float("inf"))
        text = io.StringIO()
        writer = csv.DictWriter(text, everything)
        writer.writeheader()
        writer.writerows(rows)
        from nif_cli import runs

        runs.write(folder / "sweep.csv", text.getvalue())
        cells = [varied] + [[_short(r.get(k)) for k in varied] for r in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(varied))]
        print()
        for row in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(f"table: {folder / 'sweep.csv'}")


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
