"""The folder of a new run: nobody else's, now and until it ends; and its name."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.files import Claim
from nif_cli.run_folders import OUTPUTS, all_runs
from nif_cli.schemas import Train
from nif_cli.words import paste

RESERVED = ("latest", "best", "null", "auto")  # mean something else where a run is named


def claimed(config: Train, hydra: Any, sweeping: bool) -> Claim:
    """The folder that output_dir= or name= says, or one of its own by the date."""
    if config.name is not None and sweeping:  # the jobs of a sweep are numbered
        config.name = f"{config.name}-{hydra.job.num}"
    if config.name is not None:
        _check_name(config.name)
    if sweeping:
        return Claim(Path(hydra.runtime.output_dir), str(hydra.runtime.output_dir))
    if config.output_dir:
        folder = Path(config.output_dir).expanduser()
        claim = Claim(folder, f"output_dir={folder}")
        if (folder / "config.yaml").exists() or (folder / "checkpoints").exists():
            claim.release()
            raise NifError(
                f"output_dir={folder}: there is a run already; {paste(f'resume={folder}')} goes on with it"
            )
        return claim
    if config.name is not None:
        folder = OUTPUTS / config.name
        try:
            return Claim(folder, f"name={config.name}", new=True)
        except FileExistsError:
            raise NifError(
                f"name={config.name}: there is a folder {folder} already; choose another name"
            ) from None
    choices = hydra.runtime.choices
    base = OUTPUTS / f"{choices.model}-{choices.data}" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder, n = base, 1
    while True:
        try:
            return Claim(folder, f"output_dir={folder}", new=True)
        except FileExistsError:
            folder, n = base.with_name(f"{base.name}_{n}"), n + 1


def _check_name(name: str) -> None:
    """NifError unless it can be a name, and no run under ./outputs has it."""
    if not 1 <= len(name) <= 100 or any(not (c.isalnum() or c in "_.+@-") for c in name):
        raise NifError(f"name={name}: letters, digits and _ . + @ - make a name, 100 at most")
    if name in RESERVED or name[0] in ".-":
        raise NifError(f"name={name}: means something else where a run is named; choose another")
    taken = next((run.path for run in all_runs() if name in (run.name, run.path.name)), None)
    if taken is not None:
        raise NifError(
            f"name={name}: the run {taken} has it; choose another, or go on with it: nif train "
            f"{paste(f'resume={taken}')}"
        )
