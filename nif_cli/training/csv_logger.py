"""metrics.csv and summary.json of a run."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from nif_cli import NifError, runs
from nif_cli.files import disk_says


class CsvLogger(Logger):
    """metrics.csv in the run folder: a row for each logged step. A resumed run goes on with the same file,
    from its step."""

    def __init__(self, save_dir: str):
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.columns = ["step"]
        self.rows = 0  # that are in the file
        self._opened = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **{k: f"{float(v):.6g}" for k, v in metrics.items() if k != "epoch"}}
        if len(row) == 1:
            return
        if not self._opened:
            self.go_on(lambda rows: rows)
        new = [k for k in row if k not in self.columns]
        try:
            if new or not self.path.exists():
                self._rewrite(self.columns + new, self._read()[1])
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        except OSError as error:
            raise NifError(f"{self.path}: cannot be written: {disk_says(error)}") from error
        self.rows += 1

    def flush(self) -> int:
        """How many rows there are; they are on the disk."""
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError:  # no such file yet, or a file system that cannot
            pass
        return self.rows

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.columns, self.rows = columns, len(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        runs.write(self.path, text.getvalue())

    def _read(self) -> tuple[list[str], list[dict[str, str]], int | None]:
        """Columns, the rows that can be read, and how many of them come before the first damage (None: all is
        well)."""
        if not self.path.is_file():
            return ["step"], [], 0 if os.path.lexists(self.path) else None
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        found: list[dict[str, str]] = []
        damaged = None
        # row by row: an open quote swallows no more than its own line
        parsed = [
            next(csv.reader([line]), []) if "\0" not in line and len(line) < 2**16 else []
            for line in text.splitlines()
        ]
        columns = (
            parsed[0]
            if parsed and parsed[0][:1] == ["step"] and len(set(parsed[0])) == len(parsed[0])
            else []
        )
        if not columns or "\ufffd" in "".join(columns):
            return ["step"], [], None if not text else 0
        for cells in parsed[1:]:
            if len(cells) == len(columns) and all(_is_number(c) for c in cells):
                found.append(dict(zip(columns, cells, strict=True)))
            elif damaged is None:
                damaged = len(found)
        return columns, found, damaged

    def go_on(self, keep: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        """The rows that `keep` chooses stay. A file that is damaged before their end is kept aside, and that
        is said."""
        self._opened = True
        if not os.path.lexists(self.path):
            return
        try:
            columns, rows, damaged = self._read()
            kept = keep(rows)
            if damaged is not None and (damaged < len(kept) or not rows):
                aside = next(
                    p
                    for n in count(1)
                    if not os.path.lexists(p := self.path.with_name(f"metrics.damaged-{n}.csv"))
                )
                os.replace(self.path, aside)
                print(
                    f"{self.path}: damaged; kept as {aside.name}, and the {len(kept)} rows that can be "
                    "read go on"
                )
        except OSError as error:
            raise NifError(f"{self.path}: cannot be read: {disk_says(error)}") from error
        self._rewrite(columns, kept)

    @rank_zero_only
    def forget_after(self, step: int, rows: int | None = None) -> None:
        """Drop what a resumed run is about to write again: all but the first `rows`, which its checkpoint
        knows. Of an older one: those of later steps than `step`, and the training's own of that step."""
        if isinstance(rows, int):  # a stranger's checkpoint may say anything
            self.go_on(lambda found: found[:rows])
        else:
            self.go_on(
                lambda found: [
                    r
                    for r in found
                    if float(r["step"] or 0) < step
                    or (float(r["step"] or 0) == step and not r.get("train/lr"))
                ]
            )


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return text == text.strip()


def write_summary(run: Path, summary: dict[str, Any]) -> None:
    """summary.json: what a sweep's table is made of."""
    runs.write(run / "summary.json", json.dumps(summary, indent=1) + os.linesep)
