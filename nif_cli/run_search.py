"""Which run is meant: a folder, a name, a glob, the latest, the best, a sweep."""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import re
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.run_folders import OUTPUTS, RunFolder, all_runs, opened
from nif_cli.run_paths import MANY_FILES
from nif_cli.small_files import entries_of
from nif_cli.untrusted import shown

HIGHER = re.compile(r"psnr|ssim|iou|f-?score|consistency", re.IGNORECASE)  # metrics of which more is better
LOSS = "val/loss best"
MANY = 5  # runs that a message names


def find(run: str | None, key: str = "run") -> Path:
    """The folder of a run: the one named; (None, 'latest') the latest started under ./outputs that has a
    checkpoint; 'best'; the one that a name or a glob means; of a sweep's folder its best job. To be resumed
    a run needs no checkpoint: what was stopped before the first begins again."""
    if run is None or run == "latest":
        found = next((r for r in all_runs() if key == "resume" or r.saved), None)
        if found is None:
            raise NifError(
                f"no run with a checkpoint under ./{OUTPUTS}; train one (nif train), or name one: "
                f"{key}=<folder>"
            )
        return _without_ways_out(found.path, key)
    path = Path(run).expanduser()
    if run == "best":
        path = _best_of_latest(key)
    elif not path.exists():
        path = _meant(run, key)
    elif path.is_dir() and not opened(path) and (jobs := jobs_of(path)):
        path = _best_job(path, jobs, key)
    elif path.is_dir() and not any((path / part).exists() for part in ("config.yaml", "checkpoints")):
        # a folder of the data may have the run's name
        path = next((r.path for r in all_runs() if r.name == run), path)
    return _checked(path, run, key)


def _checked(path: Path, run: str, key: str) -> Path:
    """The run in this folder, if it can be worked on."""
    saved = any((path / "checkpoints" / f"{which}.ckpt").is_file() for which in ("last", "best"))
    if (path / "checkpoints").is_dir() and (saved or not (path / "config.yaml").is_file()):
        return _without_ways_out(path, key)
    if not (path / "config.yaml").is_file():
        raise NifError(
            f"{key}={run}: not a run (it has no checkpoints folder); a run is what 'nif train' makes"
        )
    if key != "resume":
        raise NifError(
            f"{key}={run}: a run that was stopped before anything was saved; nif train resume={run} begins "
            "it again"
        )
    return _without_ways_out(path, key)


def _without_ways_out(run: Path, key: str) -> Path:
    """The run, if none of its links leads out of it: results, checkpoints and logs would be written through
    them."""
    home, seen = os.path.realpath(run), 0
    for folder, folders, files in os.walk(run):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path) and os.path.commonpath([home, os.path.realpath(path)]) != home:
                raise NifError(
                    f"{key}={shown(run, 300)}: its {os.path.relpath(path, run)} is a link out of it; put a "
                    "copy there"
                )
        seen += len(folders) + len(files)
        if seen > MANY_FILES:
            break
    return run


def matching(word: str, known: list[RunFolder]) -> list[RunFolder]:
    """The runs that a name, a folder (as seen from here or from ./outputs) or a glob of them means."""
    exact = [r for r in known if word in (r.name, *_names(r))]
    return exact or [r for r in known if any(fnmatch.fnmatchcase(n, word) for n in (r.name, *_names(r)) if n)]


def _names(run: RunFolder) -> tuple[str, ...]:
    path = run.path.as_posix()
    return path, path.removeprefix(f"{OUTPUTS}/"), run.path.name


def _meant(run: str, key: str) -> Path:
    found = [r.path for r in matching(run, all_runs())]
    if not found and glob.has_magic(run):
        folders = glob.glob(os.path.expanduser(run), recursive=True)
        found = [Path(p) for p in folders if os.path.isdir(p) and (opened(Path(p)) or jobs_of(Path(p)))]
    if not found:
        raise NifError(f"{key}={run}: no such folder, and no run of this name under ./{OUTPUTS} (nif runs)")
    sweep = found[0].parent
    if len(found) > 1 and {p.parent for p in found} == {sweep} and fnmatch.fnmatchcase(sweep.as_posix(), run):
        found = [sweep]
    if len(found) > 1:
        some = ", ".join(shown(p, 100) for p in found[:MANY]) + ", ..." * (len(found) > MANY)
        raise NifError(f"{key}={run}: {len(found):,} runs are called so ({some}); name one")
    jobs = [] if opened(found[0]) else jobs_of(found[0])
    return _best_job(found[0], jobs, key) if jobs else found[0]


def jobs_of(sweep: Path) -> list[RunFolder]:
    """The jobs of a sweep, in their order; empty for a folder that is none."""
    entries = entries_of(sweep)
    jobs = sorted((n for n, is_folder in entries.items() if is_folder and n.isdecimal()), key=int)
    # a job that failed may have left nothing but its summary
    return [
        RunFolder(sweep / name, found)
        for name in jobs
        if {"summary.json", "config.yaml"} & (found := entries_of(sweep / name)).keys()
    ]


def _best_job(sweep: Path, jobs: list[RunFolder], key: str) -> Path:
    found = best([job for job in jobs if job.saved], LOSS)
    if found is None:
        raise NifError(
            f"{key}={sweep}: a sweep, none of whose {len(jobs)} jobs has finished; name one of them"
        )
    print(f"{found.path}: the best of {len(jobs)} jobs ({LOSS} {found.metrics[LOSS]:.5g})")
    return found.path


def _best_of_latest(key: str) -> Path:
    """The best of the kind that the latest run is: losses of different models or data say nothing beside each
    other."""
    finished = [r for r in all_runs() if r.saved and LOSS in r.metrics]
    if not finished:
        raise NifError(f"{key}=best: no finished run under ./{OUTPUTS}")
    alike = [r for r in finished if r.kind == finished[0].kind]
    found = best(alike, LOSS)
    assert found is not None
    print(
        f"{found.path}: the best of {len(alike)} runs of {' on '.join(found.kind)} ({LOSS} "
        f"{found.metrics[LOSS]:.5g})"
    )
    return found.path


def best(known: list[RunFolder], metric: str) -> RunFolder | None:
    """The run whose metric is lowest, or highest where more is better; None if none has it. Of equal ones the
    first."""
    sign = -1 if HIGHER.search(metric) else 1
    return min(
        (r for r in known if metric in r.metrics), key=lambda r: sign * r.metrics[metric], default=None
    )


def chosen(words: list[str], filters: dict[str, str]) -> list[RunFolder]:
    """The runs that words (none: all under ./outputs) and filters leave, newest first. NifError for a word
    that means none."""
    found: dict[Path, RunFolder] = {}
    known = all_runs()
    for word in words:
        path = Path(word).expanduser()
        if word == "latest":
            some = known[:1]
        elif word == "best":
            some = [r for r in known if r.path == _best_of_latest("run")]
        else:
            some = all_runs(path) if path.is_dir() else []
            some = some or matching(word, known)  # a folder of the data may have the run's name
        if not some:
            raise NifError(f"{word}: no run, no folder with runs, and no run of this name under ./{OUTPUTS}")
        found |= {run.path: run for run in some}
    left = [r for r in (found.values() if words else known) if passes_filters(r, filters)]
    return sorted(left, key=lambda run: run.begun, reverse=True)


def passes_filters(run: RunFolder, filters: dict[str, str]) -> bool:
    return all(_is(_value(run, key), wanted) for key, wanted in filters.items())


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, list):
        return any(_is(v, wanted) for v in value)
    if not _plain(value):
        return False
    text = value if isinstance(value, str) else json.dumps(value)
    return any(fnmatch.fnmatchcase(text, w) or _same_number(text, w) for w in wanted.split(","))


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _same_number(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def _value(run: RunFolder, key: str) -> Any:
    """What a run says of a key: of itself, else of its settings."""
    own: dict[str, Any] = {
        "model": run.kind[0],
        "data": run.kind[1],
        "name": run.name,
        "tag": run.tags,
    }
    if key in own:
        return own[key]
    if key == "state":
        return run.state
    node: Any = settings(run)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return ""
        node = node[part]
    return node


def settings(run: RunFolder) -> dict[str, Any]:
    """A run's whole configuration; of older runs it is read from config.yaml."""
    found = run.about.get("settings")
    if isinstance(found, dict):
        return found
    from nif_cli.yaml_files import read_plain

    try:
        plain = read_plain(run.path / "config.yaml")
    except NifError:
        return {}
    return plain if isinstance(plain, dict) else {}
