"""Runs made smaller, and removed; never what nif has not written, or what another nif works on."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.files import Claim, DiskError, disk_says, write
from nif_cli.run_folders import ABOUT, CHECKPOINTS, opened
from nif_cli.run_search import jobs_of
from nif_cli.small_files import entries_of, read_text, size_of
from nif_cli.untrusted import shown

OF_RUN = re.compile(
    r"config\.yaml|run\.json|summary\.json|metrics(\.damaged-\d+)?\.csv|train\.log|preview\.png|hparams\.yaml"
    r"|events\.out\.tfevents\..*|evaluation.*|adaptation(_shapes)?\.(json|png)|checkpoints|meshes|renders"
    r"|reconstructions|export(ed)?|wandb|mlflow\.db(-\w+)?|mlartifacts|\.lock|\..+\.part-\w{8}(\..*)?"
)
OF_SWEEP = re.compile(r"\d+|sweep\.(csv|png)|contact\.png|multirun\.yaml|\.lock|\..+\.part-\w{8}(\..*)?")
KEPT = ("state_dict", "nif", "global_step", "epoch", "pytorch-lightning_version")  # of a pruned checkpoint
SEARCHED = 2**20  # bytes of a checkpoint in which its configuration stands


def check_removable(path: Path) -> None:
    """NifError unless this folder is a run, or a sweep, and holds nothing but what nif has written."""
    if path.is_symlink():
        raise NifError(f"{shown(path, 300)}: a link; name the folder that it leads to")
    here, real = os.path.realpath("."), os.path.realpath(path)
    if os.path.commonpath([here, real]) == real:
        raise NifError(f"{shown(path, 300)}: the working folder is in it; go elsewhere first")
    run = opened(path)
    jobs = [] if run else jobs_of(path)
    if run is None and not jobs:
        raise NifError(f"{shown(path, 300)}: not a run, and not a sweep; nothing is removed")
    if run is not None and not _by_nif(path):
        raise NifError(f"{shown(path, 300)}: nif has not made it, or so its files say; nothing is removed")
    known = OF_RUN if run else OF_SWEEP
    others = sorted(name for name in entries_of(path) if not known.fullmatch(name))
    if others:
        some = shown(", ".join(others[:4]), 200) + ", ..." * (len(others) > 4)
        raise NifError(
            f"{shown(path, 300)}: holds what nif has not written ({some}): nothing is removed, move that "
            "away first"
        )
    for job in jobs:
        if opened(job.path) is not None:
            check_removable(job.path)


def _by_nif(path: Path) -> bool:
    """Whether run.json, config.yaml or a checkpoint say that they are of nif."""
    about = opened(path)
    if about is not None and {"nif", "settings"} <= about.about.keys():
        return True
    if "nif_cli." in (read_text(path / "config.yaml") or ""):
        return True
    for name in CHECKPOINTS:
        try:
            with open(path / "checkpoints" / name, "rb") as file:
                if b"nif_cli." in file.read(SEARCHED):
                    return True
        except OSError:
            continue
    return False


def remove(path: Path) -> None:
    """Remove a run or a sweep. It vanishes at once: no half of it is ever seen. NifError where it may not be,
    is in use, or the disk says no."""
    check_removable(path)
    claims = [Claim(path, str(path))]
    try:
        if opened(path) is None:
            claims += [Claim(job.path, str(job.path)) for job in jobs_of(path)]
        away = path.with_name(f".{path.name}.removed-{os.getpid()}")
        try:
            os.rename(path, away)
        except OSError as error:
            raise DiskError(f"{path}: cannot be removed: {disk_says(error)}") from error
        shutil.rmtree(away, ignore_errors=True)
        if away.exists():
            raise DiskError(f"{path}: removed, but for files that are not yours: {away}")
    finally:
        for claim in claims:
            claim.release()
    for parent in (path.parent, path.parent.parent):  # outputs/<model>-<data>, when it was the last there
        if parent.name in ("", ".", "outputs") or "outputs" not in parent.parts:
            break
        try:
            parent.rmdir()
        except OSError:
            break


def prune(path: Path) -> int:
    """Keep of a run its weights and settings only: no optimizer states, no preview, no TensorBoard files
    where metrics.csv has the numbers. It can be extracted and started from, not resumed. Returns the bytes
    that are saved. NifError where it is in use, damaged, or the disk says no."""
    import torch

    from nif_cli.runs import read_checkpoint

    run = opened(path)
    if run is None or path.is_symlink():
        raise NifError(f"{shown(path, 300)}: not a run")
    if not run.saved:
        raise NifError(f"{shown(path, 300)}: it has no checkpoint; nothing is pruned")
    claim = Claim(path, str(path))
    try:
        before = size_of(path)
        # all are read before any is written: a damaged one leaves the run as it is
        for saved in run.saved:  # snapshots are weights only
            if saved.is_symlink():
                raise NifError(f"{shown(saved, 300)}: a link; nothing is pruned")
            read_checkpoint(saved)
        for saved in run.saved:
            checkpoint = read_checkpoint(saved)
            if checkpoint.keys() <= {*KEPT, "pruned"}:
                continue
            kept: dict[str, Any] = {key: checkpoint[key] for key in KEPT if key in checkpoint}
            kept["pruned"] = True
            del checkpoint
            write(saved, lambda file, kept=kept: torch.save(kept, file))
        for name, is_folder in run.entries.items():
            event = name.startswith("events.out.tfevents.") and "metrics.csv" in run.entries
            if not is_folder and (event or name == "preview.png"):
                (path / name).unlink(missing_ok=True)
        if run.about:
            write(path / ABOUT, json.dumps({**run.about, "pruned": True}, indent=1) + "\n")
        return before - size_of(path)
    except OSError as error:
        raise DiskError(f"{path}: cannot be pruned: {disk_says(error)}") from error
    finally:
        claim.release()
