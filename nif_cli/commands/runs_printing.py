"""How `nif runs` prints."""

from __future__ import annotations

import time
from typing import Any

from nif_cli.run_folders import RunFolder
from nif_cli.untrusted import shown
from nif_cli.words import paste


def run_lines(run: RunFolder) -> list[str]:
    about, summary = run.about, run.summary
    lines = [f"{paste(str(run.path))}: {' on '.join(run.kind)}, {state(run)}"]

    def add(name: str, text: Any) -> None:
        if text not in (None, "", [], {}):
            lines.append(f"  {name:<14} {text}")

    add("started", when(about.get("started", run.begun)))
    for again in _list_of_dicts(about.get("resumed")):
        add("resumed", f"{when(again.get('when'))}  {shown(again.get('command'), 300)}")
    add("ended", when(about.get("ended")))
    if isinstance(about.get("end"), str) and about["end"] != "done":
        add("", shown(about["end"], 300))
    add("command", shown(about["command"], 2000) if "command" in about else None)
    add("tags", " ".join(run.tags))
    overrides = summary.get("overrides") if "command" not in about else None
    add("overrides", " ".join(shown(o, 200) for o in overrides) if isinstance(overrides, list) else None)
    add("nif", shown(about.get("nif", ""), 20))
    add("torch", shown(about.get("torch", ""), 40))
    machine = about.get("machine")
    add("machine", shown(", ".join(map(str, machine.values())), 300) if isinstance(machine, dict) else None)
    add("folder", shown(about["folder"], 300) if "folder" in about else None)
    add("git commit", shown(about["git"], 60) if about.get("git") else None)
    paths = about.get("paths")
    for key, path in paths.items() if isinstance(paths, dict) else ():
        if isinstance(path, dict):
            marks = [shown(path[m], 80) for m in ("files", "bytes", "sha256") if m in path]
            add(shown(key, 40), f"{shown(path.get('absolute'), 300)}  ({_marks(marks)})")
    steps = f"{run.steps:,} steps" if run.steps is not None else ""
    add("trained", ", ".join(filter(None, (steps, duration(run.seconds)))))
    if "parameters" in summary:
        add("parameters", shown(summary["parameters"], 20))
    for name, value in run.metrics.items():
        add(name, f"{value:.6g}")
    if "error" in summary:
        add("error", shown(summary["error"], 300))
    add("size", f"{size_text(run.size)}  ({', '.join(sorted(run.entries))})")
    return lines


def _marks(marks: list[str]) -> str:
    names = ("files", "bytes")
    told = [f"{m} {n}" for m, n in zip(marks, names, strict=False)]
    return ", ".join([*told, *(f"sha256 {m}" for m in marks[2:])])


def _list_of_dicts(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def state(run: RunFolder) -> str:
    parts = [f"damaged: {run.damage}" if run.state == "damaged" else run.state]
    if run.state == "newer":
        parts = [f"of a newer nif ({shown(run.about.get('nif'), 20)})"]
    if run.about.get("pruned") is True:
        parts.append("pruned")
    return ", ".join(parts + [f"name={run.name}"] * (run.name not in (None, run.path.name)))


def when(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


def size_text(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def table(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if k in right else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
