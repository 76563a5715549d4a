"""nif runs: the runs on this disk, listed, shown, compared, made smaller, removed. Its words are read here,
for it takes names beside key=value."""

from __future__ import annotations

from pathlib import Path

from nif_cli import NifError

USAGE = """\
usage: nif runs [what] [run ...] [key=value ...]

The runs under ./outputs (or in the folders that are named), newest first.

what:
  list         the default: run, model, data, when, for how long, steps, result, size, state
  show         where a run comes from: command, versions, machine, data, commit; its settings and metrics
  compare      of two runs or more: the settings that differ, the metrics, and their curves as an image
  best         the best finished run of each model and data; metric=psnr, "metric=val/loss", ...
  rm           remove runs; asks first
  prune        keep the weights only: a third of the size, but no run to be resumed; asks first

run:           a folder, a name, a glob ('deepsdf-*'), latest, best, or a sweep's folder

keys:
  model= data= name= tag= state=      only those (globs; a,b: either); so does every setting, as model.lr=1e-3
  n=30         how many are listed; n=all
  metric=null  of best and compare; by default the held-out loss
  output=null  of compare: its image, by default ./compare.png
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
    from nif_cli.commands import run_actions

    does = {
        "list": run_actions.list_runs,
        "show": run_actions.show_runs,
        "compare": run_actions.compare_runs,
        "best": run_actions.best_runs,
        "rm": run_actions.remove_runs,
        "prune": run_actions.prune_runs,
    }
    return does[what](words, keys, options)
