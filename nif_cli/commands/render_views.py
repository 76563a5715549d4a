"""nif render, of radiance fields: new views of a scene, its test views, films."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nif_cli import NifError, runs
from nif_cli.config import blame, did_you_mean
from nif_cli.data.scenes.formats.camera_paths import read_camera_path
from nif_cli.data.scenes.poses import normalised
from nif_cli.data.scenes.scene import Scene, View
from nif_cli.inference.open_run import OpenRun
from nif_cli.progress import busy, watched
from nif_cli.rendering.backgrounds import colour_of, cut_out, over, transparent_sheet
from nif_cli.rendering.camera_paths import focus, mean_pose, one_sided, orbit, spiral
from nif_cli.rendering.cameras import Camera
from nif_cli.rendering.image_files import amid, gif_bytes, png_bytes, scaled, sheet, write_mp4
from nif_cli.rendering.volume_view import Photograph
from nif_cli.schemas import Render

LARGEST = 400  # pixels along the longest side, where the user does not say
FRAMES = 8  # where the user does not say, of all but a path, which has as many as it has


def render_views(run: OpenRun, folder: Path) -> None:
    config = run.config
    assert isinstance(config, Render)
    channels, behind = channels_of(config.channels), check_background(config)
    for key in ("interpolate", "sample", "crop"):
        if getattr(config, key) is not None:
            raise NifError(f"{key}: is for shapes and images; this run is of scenes learned from views")
    shape, appearance = (_known(run, getattr(config, key), key) for key in ("shape", "appearance"))
    mixed = shape is not None or appearance is not None
    for id in run.instances[:1] if mixed else run.instances:
        began = time.monotonic()
        scene = run.model.instances[shape or id].scene
        assert scene is not None
        given = {"shape": shape, "appearance": appearance} if mixed else {}
        with busy(f"{id}: opening"):
            field: Any = run.model.field(id, **given)
        name = runs.safe_name(f"{shape or id}--{appearance or id}".replace("/", "_") if mixed else id)
        camera, views, near, seconds_long = views_of(scene, config)
        was = 1.0 if scene.background in ("white", "random") else 0.0
        frames: list[Photograph] = []
        for view in watched(views, id, "view"):
            frame = scene.photograph(field, view, run.device, near=near, normals="normal" in channels)
            if behind is not None:
                frame = replace(frame, color=over(frame.color, frame.opacity, behind, was))
            frames.append(frame)
        seconds = time.monotonic() - began
        sizes = list(dict.fromkeys((v.camera.width, v.camera.height) for v in views))
        size = " and ".join(f"{w} x {h}" for w, h in sizes[:2]) + (" and others" if len(sizes) > 2 else "")
        rate = None if seconds_long is None else min(120.0, max(0.1, len(frames) / seconds_long))
        note = ", empty: nothing in view" if all(float(f.opacity.max()) < 0.01 for f in frames) else ""
        for channel in channels:
            suffix = "" if channel == "rgb" else f"_{channel}"
            with busy(f"{id}: writing"):
                if camera in ("test", "train") and config.format == "png":
                    paths = [folder / name]
                    for view, frame in zip(views, frames, strict=True):
                        runs.write(
                            paths[0] / f"{runs.safe_name(view.name)}{suffix}.png",
                            png_bytes(_alone(frame, channel, was if config.transparent else None)),
                        )
                else:
                    parts = _by_size(folder / f"{name}{suffix}.{config.format}", frames, config.format)
                    paths = [path for path, _ in parts]
                    for path, part in parts:
                        if config.transparent and channel == "rgb":
                            cut = [_alone(f, channel, was) for f in part]
                            runs.write(path, png_bytes(transparent_sheet(cut)))
                            continue
                        write_frames(path, part, channel, config.format, rate)
            written = ", ".join(map(str, paths))
            print(f"{written}  {channel}: {len(frames)} views ({camera}) of {size}, {seconds:.1f} s{note}")


def _alone(frame: Photograph, channel: str, was: float | None) -> np.ndarray:
    """One image; its colours without the grey `was` that they lie on, unless that is None."""
    if channel != "rgb" or was is None:
        return frame.image(channel)
    return cut_out(frame.color, frame.opacity, was)


def _by_size(path: Path, frames: list[Photograph], format: str) -> list[tuple[Path, list[Photograph]]]:
    """Values of images of different sizes go to a file for each size; images go together."""
    sizes = list(dict.fromkeys(f.depth.shape for f in frames))
    if format != "npy" or len(sizes) == 1:
        return [(path, frames)]
    parts = []
    for height, width in sizes:
        part = [f for f in frames if f.depth.shape == (height, width)]
        parts.append((path.with_name(f"{path.stem}_{width}x{height}{path.suffix}"), part))
    return parts


def write_frames(
    path: Path, frames: list[Photograph], channel: str, format: str, rate: float | None = None
) -> None:
    """All frames of a channel in one file, `rate` a second; depths on one scale. Of films smaller frames lie
    on white."""
    if format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.stack([f.values(channel) for f in frames]))
        runs.write(path, buffer.getvalue())
        return
    ranges = [f.range() for f in frames if torch.isfinite(f.depth).any()] or [(0.0, 1.0)]
    limits = min(low for low, _ in ranges), max(high for _, high in ranges)
    images = [f.image(channel, limits) for f in frames]
    if format == "png":
        runs.write(path, png_bytes(sheet(images)))
        return
    images = amid(images)
    if format == "mp4":
        runs.write(path, lambda temporary: write_mp4(temporary, images, rate or 24))
    else:
        runs.write(path, gif_bytes(images, rate or 15))


def check_background(config: Render) -> torch.Tensor | None:
    """The colour behind everything, where there is to be another one."""
    if config.transparent and config.format != "png":
        raise NifError(f"transparent: goes with format=png, not {config.format}")
    if config.transparent and config.background is not None:
        raise NifError("transparent and background: give one of them")
    if config.interpolate is not None and (config.transparent or config.background is not None):
        raise NifError("transparent, background: go with single shapes, not with interpolate")
    return None if config.background is None else colour_of(config.background)


def channels_of(asked: str | Sequence[str]) -> list[str]:
    """What channels= names, each once."""
    return list(dict.fromkeys([asked] if isinstance(asked, str) else asked))


def _known(run: OpenRun, id: str | None, key: str) -> str | None:
    known = list(run.model.instances)
    if id is not None and id not in known:
        raise NifError(f"{key}={id}: no such instance in this run{did_you_mean(str(id), known[:20])}")
    return id


def views_of(scene: Scene, config: Render) -> tuple[str, list[View], float, float | None]:
    """The kind of camera, its views, how near they look, and how many seconds they last where a file says
    so."""
    training = scene.train or scene.test
    poses = np.stack([v.pose.double().numpy() for v in training])
    camera = config.camera
    if camera is None:
        camera = "spiral" if one_sided(poses) else "turntable"
    if camera in ("test", "train"):
        views = scene.test if camera == "test" else scene.train
        if not views:
            raise NifError(
                f"camera=test: {scene.id} has no held-out views; camera=train has the {len(scene.train)} "
                "others"
            )
        with blame("size"):
            return camera, [v.resized(config.size) for v in views], scene.near, None
    with blame("size"):
        lens = _pinhole(training[0].camera, config.size)
    frames = FRAMES if config.frames is None else config.frames
    with blame("camera"):
        if camera == "path":
            return camera, *_path(scene, config, lens)
        if camera == "turntable":
            made = orbit(poses, frames, config.elevation, np.asarray(scene.up))
        else:
            middle = mean_pose(poses)
            depth = float((focus(poses) - middle[:, 3]) @ -middle[:, 2])
            # LLFF's mean of disparities, a quarter of it that of the near bound (1 / 0.75), the rest at
            # infinity
            made = spiral(
                poses, frames, 4 * 0.9 / 0.75 if scene.ndc is not None else depth if depth > 0 else 1.0
            )
    return (
        camera,
        [View(f"{k:03d}", torch.from_numpy(p).float(), lens) for k, p in enumerate(made)],
        scene.near,
        None,
    )


def _pinhole(camera: Camera, size: int | None) -> Camera:
    """The same angle of view, without distortion."""
    size = size or min(LARGEST, max(camera.width, camera.height))
    width, height = scaled(camera.width, camera.height, size)
    focal = camera.fx * width / camera.width
    return Camera(width, height, focal, focal, width / 2, height / 2)


def _path(scene: Scene, config: Render, lens: Camera) -> tuple[list[View], float, float | None]:
    """The views of a file (the user's world, brought to normalised space), how near they look and how long
    they last."""
    if config.path is None:
        raise NifError(
            "camera=path: give path=<file>: JSON with 'frames' (transform_matrix) or 'camera_path' "
            "(camera_to_world)"
        )
    path = Path(config.path).expanduser()
    found = read_camera_path(path, lens, config.size, LARGEST, applied=scene.protocol == "llff").sampled(
        config.frames
    )
    for note in found.notes:
        print(f"{path}: {note}")
    poses = [normalised(pose, scene.transform) for pose in found.poses]
    # it may go where no image was taken
    near = scene.near if scene.ndc is not None else min(scene.near, 0.05)
    views = [View(f"{k:03d}", p, c) for k, (p, c) in enumerate(zip(poses, found.cameras, strict=True))]
    return views, near, found.seconds
