"""nif render: pictures of the surfaces of a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.commands.of_run import open_run
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
    first_views = []
    for id in run.instances:
        began = time.monotonic()
        field = run.model.field(id)
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
