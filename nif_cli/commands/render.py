"""nif render: images of the surfaces of a run, and views of its scenes."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.commands.render_views import FRAMES, channels_of, check_background, render_views
from nif_cli.config import blame, check
from nif_cli.data.memory import keep_memory
from nif_cli.field import Field, Signal
from nif_cli.files import available_memory
from nif_cli.geometry.transform import Transform
from nif_cli.inference.open_run import OpenRun, open_run, pair_name
from nif_cli.inference.upright import up_axis_of
from nif_cli.progress import busy, watched
from nif_cli.rendering.backgrounds import cut_out, over, transparent_sheet
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.image_files import RgbImage, displayed, gif_bytes, png_bytes, scaled, sheet, write_mp4
from nif_cli.rendering.images import drawn, image_size, image_values, plane_image, surface_image
from nif_cli.rendering.surface_view import surface_view
from nif_cli.schemas import Render


def main(cfg: DictConfig) -> None:
    config = check(cfg, "render")
    size = 256 if config.size is None else config.size
    check_background(config)
    with blame("camera"):
        poses = _around(config, FRAMES if config.frames is None else config.frames)
    run = open_run(config)
    folder = runs.output_path(config.output, run.path / "renders")
    edited = config.compose is not None or config.offset or config.shell  # of light nothing is known then
    if any(i.scene is not None for i in run.model.instances.values()) and not edited:
        if run.device.type == "cpu":
            keep_memory()
        render_views(run, folder)
        return
    if config.camera not in (None, "turntable"):
        raise NifError(
            f"camera={config.camera}: there is turntable; the others are for scenes learned from views"
        )
    for key in ("shape", "appearance", "path"):
        if getattr(config, key) is not None:
            raise NifError(f"{key}: is for scenes learned from views")
    if config.interpolate is not None:
        _interpolation(run, folder, poses, config)
        return
    first_views = []
    for id, field, transform in run.fields():
        began = time.monotonic()
        flat = not isinstance(field, Field) or field.bounds.shape[1] == 2
        if flat and (config.transparent or config.background is not None):
            raise NifError(f"transparent, background: {id} has nothing behind it")
        if not isinstance(field, Field):
            _image(run, id, field, transform, folder, config)
            continue
        if field.bounds.shape[1] == 2:
            path = folder / f"{runs.safe_name(id)}.png"
            with busy(id):
                runs.write(path, png_bytes(plane_image(field, size, run.device)))
            print(f"{path}  {size} x {size} pixels, {time.monotonic() - began:.1f} s")
            continue
        if config.crop is not None:
            raise NifError(f"crop: is for images, and {id} is a shape")
        first_views.append(_views(run, id, field, transform, folder, poses, config))
    if len(first_views) > 1:
        _overview(folder / "overview.png", first_views)


def _overview(path: Path, views: list[Any]) -> None:
    runs.write(path, png_bytes(sheet(views)))
    print(f"{path}  the first view of each")


def _views(
    run: OpenRun,
    id: str,
    field: Field,
    transform: Transform,
    folder: Path,
    poses: torch.Tensor,
    config: Render,
) -> RgbImage:
    """The images of a shape from all poses, a file for each channel; the first view, on white."""
    began, format, size = time.monotonic(), config.format, config.size or 256
    if 100 * size**2 > available_memory():
        raise NifError(f"size={size}: images of {size} x {size} pixels do not fit in memory")
    behind = check_background(config)
    with busy(f"{id}: empty space"):
        empty = EmptySpace(field, device=run.device)
    made: dict[str, list[Any]] = {channel: [] for channel in channels_of(config.channels)}
    first, seen = None, False
    for pose in watched(list(_turned(poses, id, field, run, config)), id, "view"):
        view = surface_view(field, pose, size, run.device, config.antialias, empty, config.shadows)
        seen |= bool(view.opacity.any())
        first = displayed(view.rgb) if first is None else first
        for channel, frames in made.items():
            values = getattr(view, channel)
            if channel == "rgb" and config.transparent:
                frames.append(cut_out(values, view.opacity))
                continue
            if channel == "rgb" and behind is not None:
                values = over(values, view.opacity, behind)
            frames.append(values if format == "npy" or channel == "depth" else drawn(values, channel))
    for channel, frames in made.items():
        if channel == "depth":
            scale = 1.0 if config.frame == "normalised" else transform.scale
            frames = _depths(frames, scale, draw=format != "npy")
        path = folder / f"{runs.safe_name(id)}{'' if channel == 'rgb' else '_' + channel}.{format}"
        with busy(f"{id}: writing"):
            _write(path, frames)
        note = "" if seen else ", empty: no surface in view"
        print(f"{path}  {len(frames)} views of {size} x {size}, {time.monotonic() - began:.1f} s{note}")
    assert first is not None
    return first


def _around(config: Render, frames: int, up: str | None = None) -> torch.Tensor:
    """Poses around the shape; up=auto: as for y, until the shape is known."""
    up = up or ("y" if config.up == "auto" else config.up)
    return turntable(frames, config.elevation, up)


def _turned(poses: torch.Tensor, id: str, field: Field, run: OpenRun, config: Render) -> torch.Tensor:
    """The poses of a shape; with up=auto about the axis that it stands on, which is said."""
    if config.up != "auto":
        return poses
    up, part = up_axis_of(field, run.device)
    print(f"{id}: up={up}" + (f", it stands on {part:.0%} of its footprint" if part > 0.02 else ""))
    return poses if up == "y" else _around(config, len(poses), up)


def _depths(frames: list[torch.Tensor], scale: float, draw: bool) -> list[Any]:
    """Depths in the user's units, or all of them drawn from one nearest to one farthest."""
    frames = [depth / scale for depth in frames]
    if not draw:
        return frames
    finite = torch.cat([depth[torch.isfinite(depth)] for depth in frames])
    nearest, farthest = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return [drawn(depth, "depth", nearest, farthest) for depth in frames]


def _write(path: Path, frames: Sequence[Any]) -> None:
    """Views as what the name of the file ends with: a sheet, a film, or (npy) their values [F, H, W, ...]."""
    if path.suffix == ".mp4":
        runs.write(path, lambda temporary: write_mp4(temporary, frames))
    elif path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, np.stack([np.asarray(frame) for frame in frames]))
        runs.write(path, buffer.getvalue())
    elif path.suffix == ".gif":
        runs.write(path, gif_bytes(frames))
    else:
        runs.write(path, png_bytes((transparent_sheet if frames[0].shape[2] == 4 else sheet)(frames)))


def _image(run: OpenRun, id: str, signal: Signal, transform: Transform, folder: Path, config: Render) -> None:
    """A run's image, or the part of it that crop= names, with size= pixels along its longest side (or its
    own)."""
    began, format, crop = time.monotonic(), config.format, config.crop
    width, height = image_size(transform)
    if format not in ("png", "npy"):
        raise NifError(f"format={format}: {id} is an image: png, or npy for its values as they are")
    crop = [0, 0, width, height] if crop is None else crop
    if (
        not isinstance(crop, list)
        or len(crop) != 4
        or not all(isinstance(n, int | float) for n in crop)
        or min(crop[2:]) <= 0
    ):
        raise NifError(f"crop={crop}: must be [x, y, width, height] in pixels of the image")
    x, y, across, down = crop
    if x < 0 or y < 0 or x + across > width or y + down > height:
        raise NifError(f"crop={crop}: it leaves the image, which is {width} x {height} pixels")
    size = scaled(across, down, config.size or max(1, round(max(across, down))))
    if 16 * size[0] * size[1] > available_memory():
        raise NifError(f"size={config.size}: {size[0]} x {size[1]} pixels do not fit in memory; give a crop=")
    path = folder / f"{runs.safe_name(id)}.{format}"
    with busy(id):
        values = image_values(signal, transform, (x, y, across, down), size, run.device)
        if format == "npy":
            buffer = io.BytesIO()
            np.save(buffer, values.numpy())
            runs.write(path, buffer.getvalue())
        else:
            runs.write(path, png_bytes(displayed(values)))
    print(f"{path}  {size[0]} x {size[1]} pixels, {time.monotonic() - began:.1f} s")


def _interpolation(run: OpenRun, folder: Path, poses: torch.Tensor, config: Render) -> None:
    """One animation (or one sheet) of the shapes between two: as many frames as shapes; frames=1 keeps the
    camera still, otherwise it goes round once."""
    began, steps = time.monotonic(), config.interpolate
    assert steps is not None
    views = _around(config, steps) if len(poses) > 1 else poses.expand(steps, -1, -1)
    frames = []
    shapes = run.fields()
    if config.up == "auto":
        name, first_field, _ = next(run.fields())
        if isinstance(first_field, Field):
            views = _turned(views, name, first_field, run, config)
    for pose in watched(list(views), "interpolation", "shape"):
        _, field, _ = next(shapes)
        assert isinstance(field, Field)
        frames.append(
            surface_image(
                field, pose, config.size or 256, run.device, config.antialias, shadows=config.shadows
            )
        )
    first, second = run.instances
    kind = config.compose or "interpolation"
    path = folder / kind / f"{runs.safe_name(pair_name(first, second))}.{config.format}"
    _write(path, frames)
    print(f"{path}  {steps} shapes from {first} to {second}, {time.monotonic() - began:.1f} s")
