"""nif runs: the runs on this disk, listed, shown, compared, made smaller, removed. Its words are read here,
for it takes names beside key=value."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.words import paste

USAGE = """\
usage: nif runs [what] [run ...] [key=value ...]

The runs under ./outputs (or in the folders that are named), newest first.

what:
  list         the default: run, model, data, when, for how long, steps, result, size, state
  show         where a run comes from: command, versions, machine, data, commit; its settings and metrics
  compare      of two runs or more: the settings that differ, the metrics, and their curves as a picture
  best         the best finished run of each model and data; metric=psnr, "metric=val/loss", ...
  rm           remove runs; asks first
  prune        keep the weights only: a third of the size, but no run to be resumed; asks first

run:           a folder, a name, a glob ('deepsdf-*'), latest, best, or a sweep's folder

keys:
  model= data= name= tag= state=      only those (globs; a,b: either); so does every setting, as model.lr=1e-3
  n=30         how many are listed; n=all
  metric=null  of best and compare; by default the held-out loss
  output=null  of compare: its picture, by default ./compare.png
  yes=false    of rm and prune: do not ask

examples:
  nif runs
  nif runs model=deepsdf tag=paper n=all
  nif runs show latest
  nif runs compare outputs/sweeps/2026-01-31_12-00-00/0 outputs/sweeps/2026-01-31_12-00-00/1
  nif runs best metric=psnr model=image
  nif runs rm state=failed yes=true
"""
WHAT = ("list", "show", "compare", "best", "rm", "prune")
KEYS = ("n", "metric", "output", "yes")


def main(args: list[str]) -> int:
    """The exit code. NifError for what the user can mend."""
    if any(a in ("-h", "--help", "help") for a in args):
        print(USAGE, end="")
        return 0
    what, args = (args[0], args[1:]) if args and args[0] in WHAT else ("list", args)
    words = [a for a in args if "=" not in a or Path(a).exists()]
    flags = [w for w in words if w.startswith("-")]
    if flags:
        raise NifError(f"{flags[0]}: nif runs takes runs and key=value; nif runs --help shows them")
    keys = dict(a.split("=", 1) for a in args if a not in words)
    options = {key: keys.pop(key) for key in KEYS if key in keys}
    return {"list": _list, "show": _show}[what](words, keys, options)


def _list(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    from nif_cli.run_search import chosen

    found = chosen(words, filters)
    if not found:
        narrow = " that fits" if words or filters else " under ./outputs; nif train makes one"
        print(f"no run{narrow}")
        return 0
    most = _count(options.get("n", "30"), len(found))
    rows = [("run", "model", "data", "when", "time", "steps", "result", "size", "state")]
    for run in found[:most]:
        result = run.result
        rows.append(
            (
                paste(str(run.path)),
                *run.kind,
                _when(run.begun),
                _duration(run.seconds),
                f"{run.steps:,}" if run.steps is not None else "",
                f"{result[0]} {result[1]:.4g}" if result else "",
                _bytes(run.size),
                _state(run),
            )
        )
    print(_table(rows, right=(4, 5, 7)))
    if most < len(found):
        print(f"... and {len(found) - most:,} older; n=all lists them")
    return 0


def _state(run: Any) -> str:
    parts = [f"damaged: {run.damage}" if run.state == "damaged" else run.state]
    if run.state == "newer":
        from nif_cli.untrusted import shown

        parts = [f"of a newer nif ({shown(run.about.get('nif'), 20)})"]
    if run.about.get("pruned") is True:
        parts.append("pruned")
    return ", ".join(parts + [f"name={run.name}"] * bool(run.name) + [f"tag={t}" for t in run.tags])


def _show(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    from nif_cli.run_search import chosen

    if not words and not filters:
        words = ["latest"]
    found = chosen(words, filters)
    if not found:
        raise NifError("no run that fits")
    for number, run in enumerate(found):
        print("\n" * bool(number) + "\n".join(_told(run)))
    return 0


def _told(run: Any) -> list[str]:
    from nif_cli.untrusted import shown

    about, summary = run.about, run.summary
    lines = [f"{paste(str(run.path))}: {' on '.join(run.kind)}, {_state(run)}"]

    def add(name: str, text: Any) -> None:
        if text not in (None, "", [], {}):
            lines.append(f"  {name:<12} {text}")

    add("started", _when(about.get("started", run.begun)))
    for again in _list_of_dicts(about.get("resumed")):
        add("resumed", f"{_when(again.get('when'))}  {shown(again.get('command'), 300)}")
    add("ended", _when(about.get("ended")))
    if isinstance(about.get("end"), str) and about["end"] != "done":
        add("", shown(about["end"], 300))
    add("command", shown(about["command"], 2000) if "command" in about else None)
    overrides = about.get("overrides") or summary.get("overrides")
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
    add("trained", ", ".join(filter(None, (steps, _duration(run.seconds)))))
    if "parameters" in summary:
        add("parameters", shown(summary["parameters"], 20))
    for name, value in run.metrics.items():
        add(name, f"{value:.6g}")
    if "error" in summary:
        add("error", shown(summary["error"], 300))
    add("size", f"{_bytes(run.size)}  ({', '.join(sorted(run.entries))})")
    return lines


def _marks(marks: list[str]) -> str:
    names = ("files", "bytes")
    told = [f"{m} {n}" for m, n in zip(marks, names, strict=False)]
    return ", ".join([*told, *(f"sha256 {m}" for m in marks[2:])])


def _list_of_dicts(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _count(text: str, most: int) -> int:
    if text == "all":
        return most
    if not text.isdecimal() or int(text) < 1:
        raise NifError(f"n={text}: must be a whole number from 1, or all")
    return int(text)


def _when(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _table(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if k in right else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def asked(question: str, options: dict[str, str]) -> bool:
    """Whether the user says yes; NifError where nobody can be asked."""
    yes = options.get("yes", "false").lower()
    if yes not in ("true", "false"):
        raise NifError(f"yes={options['yes']}: must be true or false")
    if yes == "true":
        return True
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise NifError(f"{question} Nobody can be asked here: yes=true says so")
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
