"""What `nif runs` does."""

from __future__ import annotations

import sys
from pathlib import Path

from nif_cli import NifError
from nif_cli.commands.runs_printing import duration, run_lines, size_text, state, table, when
from nif_cli.files import write
from nif_cli.progress import busy, watched
from nif_cli.run_comparison import curves_png, differences, labels, metrics
from nif_cli.run_folders import opened
from nif_cli.run_search import LOSS, best, chosen, jobs_of
from nif_cli.run_upkeep import check_removable, prune, remove
from nif_cli.small_files import size_of
from nif_cli.words import paste

MOST_COMPARED = 12


def list_runs(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    found = chosen(words, filters)
    if not found:
        narrow = " that fits" if words or filters else " under ./outputs; nif train makes one"
        print(f"no run{narrow}")
        return 0
    most = _count(options.get("n", "30"), len(found))
    rows = [("run", "model", "data", "when", "time", "steps", "result", "size", "state", "tags")]
    for run in found[:most]:
        result = run.result
        rows.append(
            (
                paste(str(run.path)),
                *run.kind,
                when(run.begun),
                duration(run.seconds),
                f"{run.steps:,}" if run.steps is not None else "",
                f"{result[0]} {result[1]:.4g}" if result else "",
                size_text(run.size),
                state(run),
                " ".join(run.tags),
            )
        )
    print(table(rows, right=(4, 5, 7)))
    if most < len(found):
        print(f"... and {len(found) - most:,} older; n=all lists them")
    return 0


def show_runs(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    if not words and not filters:
        words = ["latest"]
    found = chosen(words, filters)
    if not found:
        raise NifError("no run that fits")
    for number, run in enumerate(found):
        print("\n" * bool(number) + "\n".join(run_lines(run)))
    return 0


def compare_runs(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    found = chosen(words, filters) if words or filters else []
    if not 2 <= len(found) <= MOST_COMPARED:
        raise NifError(f"compare takes 2 to {MOST_COMPARED} runs; these are {len(found)}")
    found = found[::-1]  # the oldest first, or as they were named
    if not filters and len(found) == len(words):
        order = [chosen([word], {})[0].path for word in words]
        found.sort(key=lambda run: order.index(run.path))
    head = ("", *labels(found))
    differ = differences(found)
    print(table([head, *differ]) if differ else "the same settings in all")
    print()
    print(table([("", *head[1:]), *metrics(found)], right=tuple(range(1, len(head)))))
    drawn = curves_png(found, options.get("metric"))
    if drawn is not None:
        path = Path(options.get("output", "compare.png")).expanduser()
        write(path, drawn)
        print(f"\ncurves: {path}")
    return 0


def best_runs(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    found = [run for run in chosen(words, filters) if run.saved and run.metrics]
    metric = options.get("metric", LOSS)
    known = list(dict.fromkeys(name for run in found for name in run.metrics))
    alike = [name for name in known if metric.lower() in name.lower()]
    if metric not in known:
        if len(alike) != 1:
            what = ", ".join(alike or known) or "nothing: no run has finished"
            raise NifError(f"metric={metric}: " + ("is it " if alike else "there is ") + what)
        metric = alike[0]
    rows = [("run", "model", "data", metric, "of", "when")]
    for kind in dict.fromkeys(run.kind for run in found):
        rivals = [run for run in found if run.kind == kind and metric in run.metrics]
        winner = best(rivals, metric)
        if winner is not None:
            value = f"{winner.metrics[metric]:.5g}"
            rows.append((paste(str(winner.path)), *kind, value, f"{len(rivals)} runs", when(winner.begun)))
    print(table(rows))
    return 0


def _meant(words: list[str], filters: dict[str, str], what: str) -> list[Path]:
    """The folders of runs (and sweeps) that are named; a folder that is neither is refused, whatever is in
    it."""
    if not words and not filters:
        raise NifError(f"nif runs {what} takes runs: names, folders, globs, or filters as state=failed")
    sweeps, names = [], []
    for word in words:
        path = Path(word).expanduser()
        if path.exists() and not opened(path):
            if not jobs_of(path):
                raise NifError(f"{word}: not a run; nothing is done")
            sweeps.append(path)
        else:
            names.append(word)
    if what == "prune" or filters:
        names, sweeps = [*names, *map(str, sweeps)], []
    found = [run.path for run in chosen(names, filters)] if names or not sweeps else []
    return [*sweeps, *found]


def remove_runs(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    paths = _meant(words, filters, "rm")
    for path in paths:
        check_removable(path)
    if not paths:
        print("no run that fits")
        return 0
    sizes = [size_of(path) for path in paths]
    print(table([(paste(str(p)), size_text(s)) for p, s in zip(paths, sizes, strict=True)], right=(1,)))
    if not asked(f"remove {_count_text(len(paths))} ({size_text(sum(sizes))})?", options):
        print("nothing is removed")
        return 1
    for path in watched(paths, "removing", "run"):
        remove(path)
    print(f"removed {_count_text(len(paths))}")
    return 0


def prune_runs(words: list[str], filters: dict[str, str], options: dict[str, str]) -> int:
    paths = _meant(words, filters, "prune")
    if not paths:
        print("no run that fits")
        return 0
    print("\n".join(paste(str(path)) for path in paths))
    if not asked(f"prune {_count_text(len(paths))} to their weights, never to be resumed again?", options):
        print("nothing is pruned")
        return 1
    problems = []
    for path in paths:
        try:
            with busy(f"{path}: pruning"):
                saved = size_text(prune(path))
            print(f"{path}: {saved} saved", flush=True)
        except NifError as error:  # one that is damaged, or in use: the others are pruned
            problems.append(str(error))
    if problems:
        raise NifError(problems[0] + f" (and {len(problems) - 1} more)" * (len(problems) > 1))
    return 0


def _count_text(count: int) -> str:
    return f"{count:,} run" + "s" * (count != 1)


def _count(text: str, most: int) -> int:
    if text == "all":
        return most
    if not text.isdecimal() or int(text) < 1:
        raise NifError(f"n={text}: must be a whole number from 1, or all")
    return int(text)


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
