"""transforms.json of instant-ngp and of nerfstudio: frames with poses, one lens for all or one for each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.formats.photos import SUFFIXES, mask, photo_size, read_json, view
from nif_cli.data.posing import around_cameras, cube, every_eighth, farthest, mean_up, normalised, rigid
from nif_cli.data.scene import Background, Scene, View
from nif_cli.data.views import Views, each
from nif_cli.geometry.mesh import Transform
from nif_cli.rendering.lenses import Camera

MODELS = {"OPENCV": False, "PINHOLE": False, "SIMPLE_PINHOLE": False, "SIMPLE_RADIAL": False, "RADIAL": False}
MODELS |= {"OPENCV_FISHEYE": True}


class TransformsViews(Views):
    """`root`: a folder with transforms.json, the file itself, or a list of them, a scene each.

    Files of instant-ngp are normalised as instant-ngp does it (its unit cube becomes [-1, 1]^3, `aabb_scale` the half side
    of the bounds); in others the point that all cameras look at is the centre and the farthest camera is at distance 1.
    Where the file names no test views, `hold_out`: every such view, by name, is held out.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        downscale: int = 1,
        hold_out: int = 8,
        aabb_scale: float | None = None,
        near: float = 0.1,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or hold_out < 0 or not near > 0:
            raise ValueError(f"downscale={downscale}, hold_out={hold_out}, near={near}: at least 1, at least 0, positive")
        if aabb_scale is not None and not 0 < aabb_scale <= 128:
            raise ValueError(f"aabb_scale={aabb_scale}: the half side of the scene's box, above 0 and at most 128")
        self.root, self.downscale, self.hold_out, self.aabb_scale, self.near = root, downscale, hold_out, aabb_scale, near

    def read(self) -> list[Scene]:
        return each(self.root, "transforms.json", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        path = root if root.is_file() else root / "transforms.json"
        if not path.is_file() and (path.parent / "transforms_train.json").is_file():
            raise NifError(f"{path}: no such file; this folder is for data=blender (it has transforms_train.json)")
        file = read_json(path)
        frames = frames_of(file, path)
        poses = np.stack([rigid(f.get("transform_matrix"), f"{path}: frame {name_of(f)}") for f in frames])
        ngp = "camera_model" not in file and "applied_transform" not in file
        if ngp:
            scale, offset = number(file, "scale", path, 0.33), np.asarray(file.get("offset", [0.5] * 3), np.float64)
            if offset.shape != (3,) or not np.isfinite(offset).all() or not scale > 0:
                raise NifError(f"{path}: scale={scale}, offset={offset.tolist()}: a positive number, and three numbers")
            x, y, z = ((offset - 0.5) / scale).tolist()
            transform, half = Transform((x, y, z), 2 * scale), number(file, "aabb_scale", path, 1.0)
        else:
            transform, half = around_cameras(poses), 4.0
        half = self.aabb_scale or half
        moved = [normalised(pose, transform) for pose in poses]
        views, missing = read_frames(file, frames, path, moved, self.downscale)
        train, test = split(file, views, self.hold_out)
        bounds, side = cube(half), 2 * half / transform.scale
        lost = f", {missing} of {len(frames)} frames without a picture" if missing else ""
        return Scene(
            id,
            transform,
            bounds,
            self.near,
            farthest(moved, bounds),
            train,
            test,
            background=self.background,
            up=mean_up(poses),
            protocol="llff",
            report=f"{describe(views)}{lost}; box +-{half:g} ({side:.3g} of the file's units), near {self.near:g}",
        )


def frames_of(file: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The frames that have a file. NifError where there are none."""
    frames = file.get("frames")
    if not isinstance(frames, list) or not all(isinstance(f, dict) and isinstance(f.get("file_path"), str) for f in frames):
        raise NifError(f"{path}: it has no 'frames', a list of objects with 'file_path' and 'transform_matrix'")
    if not frames:
        raise NifError(f"{path}: 'frames' is empty")
    return frames


def name_of(frame: dict[str, Any]) -> str:
    path = Path(frame["file_path"])
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix().lstrip("./")


def number(file: dict[str, Any], key: str, path: Path, default: float) -> float:
    value = file.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NifError(f"{path}: '{key}' is {value!r}; it must be a number")
    return float(value)


def picture_of(frame: dict[str, Any], folder: Path) -> Path | None:
    """The file of a frame, named with or without its suffix; None where there is none."""
    path = folder / frame["file_path"]
    names = [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)]
    return next((p for p in names if p.is_file()), None)


def camera_of(frame: dict[str, Any], file: dict[str, Any], path: Path, size: tuple[int, int]) -> Camera:
    """The lens of a frame, by its own keys or those of the file; `size` where neither says."""
    keys = {**file, **frame}

    def get(key: str, default: float) -> float:
        return number(keys, key, path, default)

    width, height = round(get("w", size[0])), round(get("h", size[1]))

    def focal(which: str, pixels: int) -> float | None:
        if f"fl_{which}" in keys:
            return get(f"fl_{which}", 0.0)
        angle = get(f"camera_angle_{which}", 0.0) or math.radians(get(f"{which}_fov", 0.0))
        return 0.5 * pixels / math.tan(angle / 2) if angle else None

    fx, fy = focal("x", width), focal("y", height)
    if fx is None and fy is None:
        raise NifError(f"{path}: no focal length; give fl_x, camera_angle_x (radians) or x_fov (degrees)")
    model = keys.get("camera_model", "OPENCV")
    if model not in MODELS:
        raise NifError(f"{path}: camera_model={model}: there are {', '.join(MODELS)}")
    fisheye = bool(keys.get("is_fisheye", False)) or MODELS[model]
    distortion = {k: get(k, 0.0) for k in ("k1", "k2", "k3", "k4", "p1", "p2")}
    if not fisheye:
        distortion["k4"] = 0.0  # as instant-ngp and nerfstudio: of a fisheye only
    try:
        x, y = fx or fy, fy or fx
        assert x is not None
        assert y is not None
        return Camera(width, height, x, y, get("cx", width / 2), get("cy", height / 2), **distortion, fisheye=fisheye)
    except ValueError as error:
        raise NifError(f"{path}: frame {name_of(frame)}: {error}") from error


def read_frames(
    file: dict[str, Any], frames: list[dict[str, Any]], path: Path, poses: list[Tensor], downscale: int
) -> tuple[list[View], int]:
    """The views of the frames whose pictures exist, and how many do not. NifError when none does."""
    views = []
    for frame, pose in zip(frames, poses, strict=True):
        picture = picture_of(frame, path.parent)
        if picture is None:
            continue
        camera = camera_of(frame, file, path, photo_size(picture))
        views.append(view(name_of(frame), picture, pose, camera, downscale, masks_of(frame, path.parent, picture)))
    if not views:
        raise NifError(f"{path}: none of its {len(frames)} pictures exists (the first: {path.parent / frames[0]['file_path']})")
    return views, len(frames) - len(views)


def masks_of(frame: dict[str, Any], folder: Path, picture: Path) -> Callable[[tuple[int, int]], np.ndarray] | None:
    """nerfstudio's mask_path (black is ignored), instant-ngp's dynamic_mask_<name>.png (what is not black is ignored)."""
    if isinstance(frame.get("mask_path"), str):
        return functools.partial(mask, folder / frame["mask_path"], counts=True)
    dynamic = picture.with_name(f"dynamic_mask_{picture.stem}.png")
    return functools.partial(mask, dynamic, counts=False) if dynamic.is_file() else None


def split(file: dict[str, Any], views: list[View], hold_out: int) -> tuple[list[View], list[View]]:
    """By the file's own lists, else every `hold_out`-th."""
    named = {part: file.get(f"{part}_filenames") for part in ("train", "val", "test")}
    if not isinstance(named["train"], list):
        return every_eighth(views, hold_out)
    test = named["test"] or named["val"] or []
    names = [{name_of({"file_path": str(n)}) for n in part} for part in (named["train"], test)]
    return [v for v in views if v.name in names[0]], [v for v in views if v.name in names[1]]


def describe(views: list[View]) -> str:
    """How many, how large, through which lens."""
    cameras = list(dict.fromkeys(v.camera for v in views))
    sizes = list(dict.fromkeys((c.width, c.height) for c in cameras))
    first = cameras[0]
    bent = [n for n in ("k1", "k2", "k3", "k4", "p1", "p2") if getattr(first, n)]
    lens = f"f {first.fx:.5g}" + (" fisheye" if first.fisheye else "") + (f", {' '.join(bent)} undone" if bent else "")
    size = f"{sizes[0][0]} x {sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes, up to {max(sizes)[0]} x {max(sizes)[1]}"
    lenses = lens if len(cameras) == 1 else f"{len(cameras)} lenses, the first {lens}"
    masked = sum(v.read_mask is not None for v in views)
    return f"{len(views)} pictures of {size} pixels ({lenses})" + (f", {masked} with masks" if masked else "")
