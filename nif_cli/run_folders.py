"""What the folders of runs say of themselves, by their small files only: neither torch nor YAML is loaded,
and ten thousand runs are looked through in a second or two. The files may be a stranger's, damaged, or being
written now."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nif_cli.files import lock
from nif_cli.small_files import bytes_of, entries_of, is_whole_zip, last_row, read_small, read_text, size_of
from nif_cli.untrusted import shown

OUTPUTS = Path("outputs")
ABOUT = "run.json"  # what training writes of a run beside config.yaml: provenance, settings, its end
FORMAT = 1  # of run.json; raised when an older nif could not read it
MANY_FOLDERS = 300_000
CHECKPOINTS = ("last.ckpt", "best.ckpt")
MEASURED = ("overrides", "steps", "seconds", "parameters", "bytes", "error")  # of a summary, but no metrics
LOSSES = ("train/loss", "val/loss", "val/loss best")


@dataclass
class RunFolder:
    """A run as its folder shows it; what costs time is looked at when it is asked for."""

    path: Path
    entries: dict[str, bool] = field(default_factory=dict)  # its names, and whether they are folders

    @cached_property
    def about(self) -> dict[str, Any]:
        """run.json; empty where there is none (older runs) or it is damaged."""
        found = read_small(self.path / ABOUT) if ABOUT in self.entries else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def summary(self) -> dict[str, Any]:
        found = read_small(self.path / "summary.json") if "summary.json" in self.entries else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def kind(self) -> tuple[str, str]:
        """Model and data as they were chosen; of older runs as the folder is called, or their classes."""
        own = self.about.get("model"), self.about.get("data")
        if all(isinstance(k, str) for k in own):
            return shown(own[0], 24), shown(own[1], 24)
        parts = self.path.parent.name.split("-")
        if len(parts) == 2 and re.match(r"\d{4}-\d\d-\d\d_", self.path.name):
            return shown(parts[0], 24), shown(parts[1], 24)
        text = read_text(self.path / "config.yaml") or ""
        found = []
        for group in ("model", "data"):
            node = re.search(rf"^{group}:\n((?:[ -].*\n)*)", text, re.MULTILINE)
            target = re.search(r"^  _target_: (?:\w+\.)*(\w+)$", node[1], re.MULTILINE) if node else None
            found.append(shown(target[1].lower(), 24) if target else "?")
        return found[0], found[1]

    @property
    def name(self) -> str | None:
        name = self.about.get("name")
        return shown(name) if isinstance(name, str) else None

    @property
    def tags(self) -> list[str]:
        tags = self.about.get("tags")
        return [shown(t) for t in tags if isinstance(t, str)] if isinstance(tags, list) else []

    @cached_property
    def begun(self) -> float:
        """Seconds since 1970 when it was last started or resumed."""
        told = self.about.get("begun")
        if isinstance(told, int | float) and 0 < told < time.time() + 86400:
            return float(told)
        for name in ("config.yaml", "checkpoints", "."):
            try:
                return (self.path / name).stat().st_mtime
            except OSError:
                continue
        return 0.0

    @cached_property
    def running(self) -> bool:
        """Whether a living process holds it."""
        if ".lock" not in self.entries or self.entries[".lock"]:
            return False
        try:
            with open(self.path / ".lock", "rb") as handle:
                return lock(handle) is False
        except OSError:
            return False

    @cached_property
    def saved(self) -> list[Path]:
        """Its checkpoints, last before best."""
        if not self.entries.get("checkpoints"):
            return []
        return [p for p in (self.path / "checkpoints" / name for name in CHECKPOINTS) if p.is_file()]

    @cached_property
    def damage(self) -> str | None:
        """What is broken, in a few words; None where nothing is seen without unpacking anything."""
        if "config.yaml" not in self.entries or not bytes_of(self.path / "config.yaml"):
            return "config.yaml is " + ("empty" if "config.yaml" in self.entries else "missing")
        for name, found in ((ABOUT, self.about), ("summary.json", self.summary)):
            if name in self.entries and not found:
                return f"{name} cannot be read"
        if self.saved:
            return next((f"{p.name} is cut short" for p in self.saved if not is_whole_zip(p)), None)
        return "its checkpoints are missing" if self.summary and "error" not in self.summary else None

    @cached_property
    def state(self) -> str:
        """running, done, stopped, failed, unfinished (killed, or its power went), damaged or newer."""
        form = self.about.get("format", FORMAT)
        if not isinstance(form, int) or form > FORMAT:
            return "newer"
        if self.running:
            return "running"
        if "error" in self.summary or str(self.about.get("end", "")).startswith("failed"):
            return "failed"
        if self.damage:
            return "damaged"
        if str(self.about.get("end", "")).startswith("stopped"):
            return "stopped"
        if self.about.get("end", "done" if self.summary or "nif" not in self.about else None) is None:
            return "unfinished"
        return "done" if self.summary or (self.saved and "metrics.csv" not in self.entries) else "unfinished"

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of its summary that say how good it is, by name."""
        return {
            shown(name): float(value)
            for name, value in self.summary.items()
            if name not in MEASURED
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) < 1e300
        }

    @cached_property
    def progress(self) -> dict[str, float]:
        """The last row of metrics.csv: of a run that has no summary yet, or goes on."""
        return last_row(self.path / "metrics.csv") if "metrics.csv" in self.entries else {}

    @property
    def steps(self) -> int | None:
        return _whole(self.progress.get("step") if self._going_on else self.summary.get("steps"))

    @property
    def seconds(self) -> float | None:
        value = self.progress.get("train/seconds") if self._going_on else self.summary.get("seconds")
        return float(value) if isinstance(value, int | float) and 0 <= value < 1e12 else None

    @property
    def result(self) -> tuple[str, float] | None:
        """The metric that says most: what its model measures of itself, else the held-out loss."""
        found = {k: v for k, v in self.progress.items() if k in LOSSES} if self._going_on else self.metrics
        names = [k for k in found if k not in LOSSES] + [
            k for k in ("val/loss best", "val/loss", "train/loss") if k in found
        ]
        return (names[0], found[names[0]]) if names else None

    @property
    def _going_on(self) -> bool:
        return self.running or not self.summary

    @cached_property
    def size(self) -> int:
        """Bytes on the disk."""
        return size_of(self.path)


def is_run(folder: str | Path, entries: dict[str, bool]) -> bool:
    """Whether a folder with these entries is a run, or what is left of one."""
    if entries.get("config.yaml") is False or entries.get(ABOUT) is False:
        return True
    return bool(entries.get("checkpoints")) and any(
        os.path.isfile(os.path.join(folder, "checkpoints", name)) for name in CHECKPOINTS
    )


def opened(path: Path) -> RunFolder | None:
    """The run in this folder; None if it is none."""
    entries = entries_of(path)
    return RunFolder(path, entries) if is_run(path, entries) else None


def all_runs(root: Path = OUTPUTS) -> list[RunFolder]:
    """The runs in a folder (itself, if it is one) and below it, newest first."""
    return sorted(_walk(root), key=lambda run: run.begun, reverse=True)


def _walk(root: Path) -> Iterator[RunFolder]:
    waiting, seen = [str(root)], 0
    while waiting and seen < MANY_FOLDERS:
        folder = waiting.pop()
        entries, seen = entries_of(folder), seen + 1
        inside = [name for name, is_folder in entries.items() if is_folder and not name.startswith(".")]
        if is_run(folder, entries):
            yield RunFolder(Path(folder), entries)
            inside = [name for name in inside if name == "reconstructions"]  # may hold runs: save=run
        waiting += [os.path.join(folder, name) for name in inside]


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**62 else None
