"""nif render: pictures of the surfaces of a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.commands.of_run import OpenRun, open_run, pair_name
from nif_cli.config import blame, check
from nif_cli.rendering.cameras import turntable
from nif_cli.rendering.pictures import gif_bytes, picture, png_bytes, sheet, write_mp4
from nif_cli.rendering.sphere_tracing import EmptySpace


def main(cfg: DictConfig) -> None:
    config = check(cfg, "render")
    format, size = config["format"], config["size"]
    if config["camera"] != "turntable":
        raise NifError(f"camera={config['camera']}: there is turntable")
    if format not in ("png", "gif", "mp4"):
        raise NifError(f"format={format}: must be png, gif or mp4")
    if not 8 <= size <= 8192:
        raise NifError(f"size={size}: must be between 8 and 8192 pixels")
    with blame("camera"):
        poses = turntable(config["frames"], config["elevation"], config["up"])
    run = open_run(config)
    folder = Path(config["output"]).expanduser() if config["output"] else run.path / "renders"
    if config["interpolate"] is not None:
        _interpolation(run, folder, poses, config)
        return
    first_views = []
    for id, field, _ in run.fields():
        began = time.monotonic()
        empty = EmptySpace(field, device=run.device)
        views = tqdm(poses, desc=id, unit=" view", leave=False, disable=not sys.stderr.isatty(), delay=1)
        frames = [picture(field, pose, size, run.device, empty=empty) for pose in views]
        path = folder / f"{runs.safe_name(id)}.{format}"
        if format == "mp4":
            runs.write(path, lambda temporary, frames=frames: write_mp4(temporary, frames))
        else:
            runs.write(path, gif_bytes(frames) if format == "gif" else png_bytes(sheet(frames)))
        first_views.append(frames[0])
        note = ", empty: no surface in view" if all((frame == 255).all() for frame in frames) else ""
        print(f"{path}  {len(frames)} views of {size} x {size}, {time.monotonic() - began:.1f} s{note}")
    if len(first_views) > 1:
        path = folder / "overview.png"
        runs.write(path, png_bytes(sheet(first_views)))
        print(f"{path}  the first view of each")


def _interpolation(run: OpenRun, folder: Path, poses: torch.Tensor, config: dict[str, Any]) -> None:
    """One animation (or one sheet) of the shapes between two: as many frames as shapes; frames=1 keeps the camera still,
    otherwise it goes round once."""
    began, steps = time.monotonic(), config["interpolate"]
    views = turntable(steps, config["elevation"], config["up"]) if len(poses) > 1 else poses.expand(steps, -1, -1)
    bar = tqdm(total=steps, desc="interpolation", unit=" shape", leave=False, disable=not sys.stderr.isatty(), delay=1)
    frames = []
    with bar:
        for (_, field, _), pose in zip(run.fields(), views, strict=True):
            frames.append(picture(field, pose, config["size"], run.device))
            bar.update()
    first, second = run.instances
    path = folder / "interpolation" / f"{runs.safe_name(pair_name(first, second))}.{config['format']}"
    if config["format"] == "mp4":
        runs.write(path, lambda temporary: write_mp4(temporary, frames))
    else:
        runs.write(path, gif_bytes(frames) if config["format"] == "gif" else png_bytes(sheet(frames)))
    print(f"{path}  {steps} shapes from {first} to {second}, {time.monotonic() - began:.1f} s")
