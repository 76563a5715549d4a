"""nif render, of radiance fields: new views of a scene, its test views, films."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.commands.of_run import OpenRun
from nif_cli.config import blame, did_you_mean
from nif_cli.data.formats.photos import read_json
from nif_cli.data.posing import normalised, rigid
from nif_cli.data.scene import Scene, View
from nif_cli.rendering.lenses import Camera
from nif_cli.rendering.paths import focus, mean_pose, one_sided, orbit, spiral, through
from nif_cli.rendering.photographs import CHANNELS, Photograph
from nif_cli.rendering.pictures import gif_bytes, png_bytes, scaled, sheet, write_mp4

CAMERAS = ("turntable", "spiral", "test", "train", "path")
LARGEST = 400  # pixels along the longest side, where the user does not say


def render_views(run: OpenRun, folder: Path) -> None:
    config, channels = run.config, channels_of(run.config["channels"])
    for key in ("interpolate", "sample", "crop"):
        if config[key] is not None:
            raise NifError(f"{key}: is for shapes and pictures; this run is of scenes learned from views")
    shape, appearance = (_known(run, config[key], key) for key in ("shape", "appearance"))
    mixed = shape is not None or appearance is not None
    for id in run.instances[:1] if mixed else run.instances:
        began = time.monotonic()
        scene = run.model.instances[shape or id].scene
        assert scene is not None
        given = {"shape": shape, "appearance": appearance} if mixed else {}
        field: Any = run.model.field(id, **given)
        name = runs.safe_name(f"{shape or id}--{appearance or id}".replace("/", "_") if mixed else id)
        camera, views, near = _views(scene, config)
        frames: list[Photograph] = []
        for view in tqdm(views, desc=id, unit=" view", leave=False, disable=not sys.stderr.isatty(), delay=1):
            frames.append(scene.photograph(field, view, run.device, near=near, normals="normal" in channels))
        seconds = time.monotonic() - began
        size = f"{views[0].camera.width} x {views[0].camera.height}"
        note = ", empty: nothing in view" if all(float(f.opacity.max()) < 0.01 for f in frames) else ""
        for channel in channels:
            suffix = "" if channel == "rgb" else f"_{channel}"
            if camera in ("test", "train") and config["format"] == "png":
                path = folder / name
                for view, frame in zip(views, frames, strict=True):
                    runs.write(path / f"{runs.safe_name(view.name)}{suffix}.png", png_bytes(frame.picture(channel)))
            else:
                path = folder / f"{name}{suffix}.{config['format']}"
                write_frames(path, frames, channel, config["format"])
            print(f"{path}  {channel}: {len(frames)} views ({camera}) of {size}, {seconds:.1f} s{note}")


def write_frames(path: Path, frames: list[Photograph], channel: str, format: str) -> None:
    """All frames of a channel in one file; depths on one scale."""
    if format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.stack([f.values(channel) for f in frames]))
        runs.write(path, buffer.getvalue())
        return
    ranges = [f.range() for f in frames if torch.isfinite(f.depth).any()] or [(0.0, 1.0)]
    limits = min(low for low, _ in ranges), max(high for _, high in ranges)
    pictures = [f.picture(channel, limits) for f in frames]
    if format == "mp4":
        runs.write(path, lambda temporary: write_mp4(temporary, pictures))
    else:
        runs.write(path, gif_bytes(pictures) if format == "gif" else png_bytes(sheet(pictures)))


def channels_of(asked: Any) -> list[str]:
    """What channels= names, each once. NifError for what is none."""
    names = asked if isinstance(asked, list) else [asked]
    if not names:
        raise NifError(f"channels=[]: give some of {', '.join(CHANNELS)}")
    for name in names:
        if name not in CHANNELS:
            raise NifError(f"channels={name}: {did_you_mean(str(name), CHANNELS).removeprefix('; ')}")
    return list(dict.fromkeys(names))


def _known(run: OpenRun, id: str | None, key: str) -> str | None:
    known = list(run.model.instances)
    if id is not None and id not in known:
        raise NifError(f"{key}={id}: no such instance in this run{did_you_mean(str(id), known[:20])}")
    return id


def _views(scene: Scene, config: dict[str, Any]) -> tuple[str, list[View], float]:
    """The kind of camera, its views and how near they look."""
    training = scene.train or scene.test
    poses = np.stack([v.pose.double().numpy() for v in training])
    camera = config["camera"]
    if camera is None:
        camera = "spiral" if one_sided(poses) else "turntable"
    if camera in ("test", "train"):
        views = scene.test if camera == "test" else scene.train
        if not views:
            raise NifError(f"camera=test: {scene.id} has no held-out views; camera=train has the {len(scene.train)} others")
        with blame("size"):
            return camera, [v.resized(config["size"]) for v in views], scene.near
    with blame("size"):
        lens = _pinhole(training[0].camera, config["size"])
    frames, near = config["frames"], scene.near
    with blame("camera"):
        if camera == "path":
            made, lens = _path(scene, config, lens)
            made = through(made, frames or len(made))
            near = scene.near if scene.ndc is not None else min(scene.near, 0.05)  # it may go where no picture was taken
        elif camera == "turntable":
            made = orbit(poses, frames, config["elevation"], np.asarray(scene.up))
        else:
            middle = mean_pose(poses)
            depth = float((focus(poses) - middle[:, 3]) @ -middle[:, 2])
            # LLFF's mean of disparities, a quarter of it that of the near bound (1 / 0.75), the rest at infinity
            made = spiral(poses, frames, 4 * 0.9 / 0.75 if scene.ndc is not None else depth if depth > 0 else 1.0)
    return camera, [View(f"{k:03d}", torch.from_numpy(p).float(), lens) for k, p in enumerate(made)], near


def _pinhole(camera: Camera, size: int | None) -> Camera:
    """The same angle of view, without distortion."""
    size = size or min(LARGEST, max(camera.width, camera.height))
    width, height = scaled(camera.width, camera.height, size)
    focal = camera.fx * width / camera.width
    return Camera(width, height, focal, focal, width / 2, height / 2)


def _path(scene: Scene, config: dict[str, Any], lens: Camera) -> tuple[Float[np.ndarray, "V 3 4"], Camera]:
    """Poses (the user's world, brought to normalised space) and lens of a file: transforms.json, or nerfstudio's
    camera_path.json."""
    if config["path"] is None:
        raise NifError("camera=path: give path=<file>: JSON with 'frames' (transform_matrix) or 'camera_path' (camera_to_world)")
    path = Path(config["path"]).expanduser()
    file = read_json(path)
    listed = file.get("camera_path") or file.get("frames")
    if not isinstance(listed, list) or not listed or not all(isinstance(f, dict) for f in listed):
        raise NifError(f"{path}: it has neither 'frames' nor 'camera_path', a list of objects with a pose each")
    poses = []
    for k, frame in enumerate(listed):
        matrix = frame.get("transform_matrix") or frame.get("camera_to_world")
        if isinstance(matrix, list) and len(matrix) == 16:
            matrix = [matrix[i : i + 4] for i in range(0, 16, 4)]
        poses.append(normalised(rigid(matrix, f"{path}: frame {k}"), scene.transform).double().numpy())
    try:
        fov = float(listed[0].get("fov") or 0)
        angle = float(file.get("camera_angle_x") or 0)
        if 0 < fov < 179:
            focal = 0.5 * lens.height / np.tan(np.radians(fov) / 2)
            lens = Camera(lens.width, lens.height, focal, focal, lens.width / 2, lens.height / 2)
        elif 0 < angle < 3.1:
            focal = 0.5 * lens.width / np.tan(angle / 2)
            lens = Camera(lens.width, lens.height, focal, focal, lens.width / 2, lens.height / 2)
    except (TypeError, ValueError) as error:
        raise NifError(f"{path}: fov or camera_angle_x is no number") from error
    return np.stack(poses), lens
