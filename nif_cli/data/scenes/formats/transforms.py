"""transforms.json of instant-ngp and of nerfstudio: frames with poses, one lens for all or one for each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError, untrusted
from nif_cli.data.scenes.formats.naming import found, label, whereabouts
from nif_cli.data.scenes.formats.photos import depth, mask, photo_size, view
from nif_cli.data.scenes.poses import AXES, rigid, turned
from nif_cli.data.scenes.scene import View
from nif_cli.rendering.cameras import Camera
from nif_cli.untrusted import shown

MODELS = {"OPENCV": False, "PINHOLE": False, "SIMPLE_PINHOLE": False, "SIMPLE_RADIAL": False, "RADIAL": False}
MODELS |= {
    "OPENCV_FISHEYE": True,
    "SIMPLE_RADIAL_FISHEYE": True,
    "RADIAL_FISHEYE": True,
    "SIMPLE_FISHEYE": True,
    "FISHEYE": True,
}
FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov")


def check_placing(axes: Any, place: Any) -> None:
    """ValueError for what a reader of JSON does not know."""
    if axes not in AXES:
        raise ValueError(f"axes={axes}: must be opengl (y up, z back) or opencv (y down, z ahead)")
    if place not in (None, "file", "cameras"):
        raise ValueError(f"place={place}: must be file or cameras")


def frames_of(file: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The frames that have a file. NifError where there are none."""
    frames = file.get("frames")
    if not isinstance(frames, list) or not all(
        isinstance(f, dict) and isinstance(f.get("file_path"), str) for f in frames
    ):
        raise NifError(
            f"{path}: it has no 'frames', a list of objects with 'file_path' and 'transform_matrix'"
        )
    if not frames:
        raise NifError(f"{path}: 'frames' is empty")
    for k, frame in enumerate(frames):
        untrusted.text(frame["file_path"], f"{path}: 'file_path' of frame {k}")
    return frames


def poses_of(frames: list[dict[str, Any]], path: Path, axes: str) -> Float[np.ndarray, "V 3 4"]:
    """Camera to world, OpenGL axes, in the file's units."""
    given = [rigid(f.get("transform_matrix"), f"{path}: frame {shown(name_of(f))}") for f in frames]
    return np.stack([turned(pose, axes) for pose in given])


def name_of(frame: dict[str, Any]) -> str:
    return label(frame["file_path"])


def number_at(
    file: dict[str, Any],
    key: str,
    path: Path,
    default: float,
    low: float = -untrusted.LARGEST,
    high: float = untrusted.LARGEST,
) -> float:
    return untrusted.number(file.get(key, default), f"{path}: '{key}'", low, high)


def camera_of(frame: dict[str, Any], file: dict[str, Any], path: Path, size: tuple[int, int]) -> Camera:
    """The lens of a frame, by its own keys or else those of the file; `size` of its image where neither
    says."""
    named, keys = name_of(frame), {**file, **frame}
    (width, height), ratio = _size_of(frame, file, path, size)
    own = any(key in frame for key in FOCAL)  # its own lens, whatever the key: the file's is another
    source, share = (frame, (1.0, 1.0)) if own else (file, ratio or (1.0, 1.0))

    def focal(axis: int) -> float | None:
        which, pixels = "xy"[axis], (width, height)[axis]
        if f"fl_{which}" in source:
            return number_at(source, f"fl_{which}", path, 0.0) * share[axis]
        angle = number_at(source, f"camera_angle_{which}", path, 0.0, -math.pi, math.pi - 1e-6)
        angle = angle or math.radians(number_at(source, f"{which}_fov", path, 0.0, -180, 179.9999))
        return 0.5 * pixels / math.tan(angle / 2) if angle else None

    fx, fy = focal(0), focal(1)
    if fx is None and fy is None:
        raise NifError(f"{path}: no focal length; give fl_x, camera_angle_x (radians) or x_fov (degrees)")

    def centre(axis: int) -> float:
        key, middle = f"c{'xy'[axis]}", (width, height)[axis] / 2
        if key in frame:
            return number_at(frame, key, path, middle)
        return (
            middle if key not in file or ratio is None else number_at(file, key, path, middle) * ratio[axis]
        )

    model = keys.get("camera_model", "OPENCV")
    if not isinstance(model, str) or model not in MODELS:
        raise NifError(f"{path}: camera_model={shown(model)}: there are {', '.join(MODELS)}")
    bent = keys.get("is_fisheye", False)
    if not isinstance(bent, bool | int):
        raise NifError(f"{path}: 'is_fisheye' is {shown(repr(bent))}; it must be true or false")
    fisheye = bool(bent) or MODELS[model]
    distortion = {k: number_at(keys, k, path, 0.0) for k in ("k1", "k2", "k3", "k4", "p1", "p2")}
    if not fisheye:
        distortion["k4"] = 0.0  # as instant-ngp and nerfstudio: of a fisheye only
    try:
        x, y = fx or fy, fy or fx
        assert x is not None
        assert y is not None
        return Camera(width, height, x, y, centre(0), centre(1), **distortion, fisheye=fisheye)  # type: ignore[arg-type]
    except ValueError as error:
        raise NifError(f"{path}: frame {shown(named)}: {error}") from error


def _size_of(
    frame: dict[str, Any], file: dict[str, Any], path: Path, size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """The size that a frame's lens speaks of, and what the file's pixels are worth in its own: None where the
    frame is of other proportions, and the file's principal point of another image."""

    def given(source: dict[str, Any]) -> tuple[int, int] | None:
        if "w" not in source and "h" not in source:
            return None
        w, h = (number_at(source, k, path, s, 1, 2**16) for k, s in zip("wh", size, strict=True))
        return round(w), round(h)

    own, common = given(frame), given(file)
    if own is not None and common is not None and own != common:
        x, y = own[0] / common[0], own[1] / common[1]
        return own, (x, y) if abs(x - y) <= 0.02 * y else None
    if own is not None or common is not None:
        return own or common or size, (1.0, 1.0)
    keys = {**file, **frame}
    if "cx" not in keys or "cy" not in keys:
        return size, (1.0, 1.0)
    x, y = (2 * number_at(keys, k, path, 0.0) / s for k, s in zip(("cx", "cy"), size, strict=True))
    if min(x, y) > 0 and max(x / y, y / x) < 1.15 and not 0.77 < math.sqrt(x * y) < 1.3:
        ratio = math.sqrt(x * y)  # a principal point is about the middle: the images are smaller prints
        exact = min(
            (n / d for n in range(1, 17) for d in (1, 2, 3, 4, 8, 16)), key=lambda r: abs(r / ratio - 1)
        )
        ratio = exact if abs(exact / ratio - 1) < 0.08 else ratio
        return (max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))), (1.0, 1.0)
    if max(abs(x - 1), abs(y - 1)) > 0.5:
        raise NifError(
            f"{path}: cx={keys['cx']:g}, cy={keys['cy']:g} cannot be of images of {size[0]} x {size[1]} "
            "pixels: give w and h, "
            "the size that they are of"
        )
    return size, (1.0, 1.0)


def read_frames(
    file: dict[str, Any],
    frames: list[dict[str, Any]],
    path: Path,
    poses: Sequence[Tensor],
    downscale: int,
    scale: float = 1.0,
) -> tuple[list[View], str]:
    """The views of the frames whose images exist, and what there is to say of these. NifError where none
    does. `scale`: the file's units in normalised space, for depths."""
    views, images, prints = [], [], 0
    for frame, pose in zip(frames, poses, strict=True):
        image = found(frame["file_path"], path.parent)
        if image is None:
            continue
        size = photo_size(image)
        camera = camera_of(frame, file, path, size)
        prints += (camera.width, camera.height) != size and not {"w", "h"} & {*file, *frame}
        masks, depths = masks_of(frame, path, image), depths_of(frame, file, path, scale)
        views.append(view(name_of(frame), image, pose, camera, downscale, masks, depths))
        images.append((frame["file_path"], image))
    if not views:
        first = shown(frames[0]["file_path"], 300)
        raise NifError(f"{path}: none of its {len(frames)} images exists (the first: {path.parent / first})")
    names = [v.name for v in views]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    views = [replace(v, name=f"{v.name}_{k}") if v.name in twice else v for k, v in enumerate(views)]
    said = whereabouts(images, path.parent, path)
    if prints:
        said += f", {prints} taken for smaller or larger prints by cx and cy"
    return views, said


def masks_of(
    frame: dict[str, Any], path: Path, image: Path
) -> Callable[[tuple[int, int]], np.ndarray] | None:
    """nerfstudio's mask_path (black is ignored), instant-ngp's dynamic_mask_<name>.png (what is not black is
    ignored)."""
    named = frame.get("mask_path")
    if named is not None:
        there = found(untrusted.text(named, f"{path}: 'mask_path'"), path.parent)
        if there is None:
            raise NifError(
                f"{path}: no such mask: {path.parent / shown(named, 300)} (frame {shown(name_of(frame))})"
            )
        return functools.partial(mask, there, counts=True)
    dynamic = image.with_name(f"dynamic_mask_{image.stem}.png")
    return functools.partial(mask, dynamic, counts=False) if dynamic.is_file() else None


def depths_of(
    frame: dict[str, Any], file: dict[str, Any], path: Path, scale: float
) -> Callable[[tuple[int, int]], np.ndarray] | None:
    """nerfstudio's depth_file_path: z-depths, millimetres of the file's units unless depth_unit_scale_factor
    says otherwise."""
    named = frame.get("depth_file_path")
    if named is None:
        return None
    there = found(untrusted.text(named, f"{path}: 'depth_file_path'"), path.parent)
    if there is None:
        raise NifError(
            f"{path}: no such depths: {path.parent / shown(named, 300)} (frame {shown(name_of(frame))})"
        )
    unit = number_at({**file, **frame}, "depth_unit_scale_factor", path, 1e-3, 1e-12)
    return functools.partial(depth, there, unit=unit * scale)


def describe(views: list[View]) -> str:
    """How many, how large, through which lens."""
    cameras = list(dict.fromkeys(v.camera for v in views))
    sizes = list(dict.fromkeys((c.width, c.height) for c in cameras))
    first = cameras[0]
    bent = [n for n in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2") if getattr(first, n)]
    kind = "" if first.kind == "perspective" else f" {first.kind}"
    lens = f"f {first.fx:.5g}{kind}" + (f", {' '.join(bent)} undone" if bent else "")
    size = (
        f"{sizes[0][0]} x {sizes[0][1]}"
        if len(sizes) == 1
        else f"{len(sizes)} sizes, up to {max(sizes)[0]} x {max(sizes)[1]}"
    )
    lenses = lens if len(cameras) == 1 else f"{len(cameras)} lenses, the first {lens}"
    masked = sum(v.read_mask is not None for v in views)
    deep = sum(v.read_depth is not None for v in views)
    more = (f", {masked} with masks" if masked else "") + (f", {deep} with depths" if deep else "")
    return f"{len(views)} images of {size} pixels ({lenses})" + more
