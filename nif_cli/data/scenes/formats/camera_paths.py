"""Ways for a camera to go, as files give them: frames with poses and lenses (transforms.json), or
nerfstudio's camera_path.json (its viewer's three.js cameras: vertical angles of view)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nif_cli import NifError, untrusted
from nif_cli.data.scenes.formats.photos import read_scene_json
from nif_cli.data.scenes.formats.transforms import FOCAL, camera_of
from nif_cli.data.scenes.poses import rigid
from nif_cli.rendering.camera_paths import Poses, through
from nif_cli.rendering.cameras import Camera
from nif_cli.rendering.image_files import scaled
from nif_cli.untrusted import shown

TYPES = ("perspective", "fisheye", "equirectangular")
MOST = 100_000  # frames of a film
DATAPARSER = "dataparser_transforms.json"


@dataclass(frozen=True)
class CameraPath:
    """Poses [V, 3, 4] (camera to world, OpenGL axes, the user's world) with a lens each, how long all of them
    last in seconds (None: not said), and what there is to say of them."""

    poses: Poses
    cameras: list[Camera]
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    def sampled(self, frames: int | None) -> CameraPath:
        """`frames` cameras along the way; None: those of the file."""
        if frames is None or frames == len(self.poses):
            return self
        first = self.cameras[0]
        if any((c.width, c.height, c.kind) != (first.width, first.height, first.kind) for c in self.cameras):
            raise NifError(
                f"frames={frames}: the cameras of the path have different sizes; without frames= each is "
                "shown as it is"
            )
        known, wanted = np.arange(len(self.poses)), np.linspace(0, len(self.poses) - 1, frames)
        numbers = np.stack([c.parameters.numpy() for c in self.cameras])
        between = np.stack([np.interp(wanted, known, column) for column in numbers.T], 1).tolist()
        kind = {"fisheye": first.fisheye, "projection": first.projection}
        cameras = [Camera(first.width, first.height, *values, **kind) for values in between]
        return replace(self, poses=through(self.poses, frames), cameras=cameras)


def read_camera_path(path: Path, lens: Camera, size: int | None, longest: int, applied: bool) -> CameraPath:
    """The path of a file. `lens` is the camera where the file says nothing of one; images are `size` pixels
    along their longest side, by default as large as nerfstudio's file says, others at most `longest`.
    `applied`: whether the scene lies in the world of a transforms.json, not in that of the model which
    nerfstudio made it of. NifError names what is missing or not supported."""
    file = read_scene_json(path)
    if isinstance(file.get("path"), list) and not ("camera_path" in file or "frames" in file):
        raise NifError(
            f"{path}: a path of instant-ngp (R and T in its own unit cube) is not supported: give "
            "transforms.json's frames, "
            "or nerfstudio's camera_path.json"
        )
    studio = file.get("camera_path") or file.get("keyframes")
    listed = studio or file.get("frames")
    if not isinstance(listed, list) or not listed or not all(isinstance(f, dict) for f in listed):
        raise NifError(
            f"{path}: it has neither 'frames' nor 'camera_path', a list of objects with a pose each"
        )
    if len(listed) > MOST:
        raise NifError(f"{path}: {len(listed):,} cameras; at most {MOST:,}")
    poses = np.stack([rigid(_matrix(f, path), f"{path}: frame {k}") for k, f in enumerate(listed)])
    if not studio:
        cameras = [_lens(f, file, path, k, lens, size or longest) for k, f in enumerate(listed)]
        return CameraPath(poses, cameras)
    poses, notes = _of_the_data(poses, path, applied)
    cameras = [_viewer(f, file, f"{path}: frame {k}", lens, size) for k, f in enumerate(listed)]
    seconds = _positive(file, "seconds", path)
    rate = _positive(file, "fps", path)
    if file.get("crop") is not None:
        notes += ("its crop box is not supported: all of the scene is shown",)
    found = CameraPath(poses, cameras, seconds, notes)
    if file.get("camera_path"):  # frames already, evenly in time
        return found if seconds or not rate else replace(found, seconds=len(poses) / rate)
    return found.sampled(
        min(MOST, max(2, round(seconds * rate))) if seconds and rate and len(poses) > 1 else None
    )


def _matrix(frame: dict[str, Any], path: Path) -> Any:
    """The rows of a frame's pose; the viewer's `matrix` is three.js's, column by column, in older files as
    text."""
    matrix = next(
        (frame[k] for k in ("transform_matrix", "camera_to_world", "matrix") if frame.get(k) is not None),
        None,
    )
    by_columns = "transform_matrix" not in frame and "camera_to_world" not in frame
    if isinstance(matrix, str):
        try:
            matrix = json.loads(untrusted.text(matrix, f"{path}: a matrix", 10_000))
        except (ValueError, RecursionError) as error:
            raise NifError(f"{path}: its matrix {shown(matrix)} is no list of numbers") from error
    if isinstance(matrix, list) and len(matrix) == 16:
        matrix = [matrix[i : i + 4] for i in range(0, 16, 4)]
        return [list(row) for row in zip(*matrix, strict=True)] if by_columns else matrix
    return matrix


def _lens(
    frame: dict[str, Any], file: dict[str, Any], path: Path, number: int, lens: Camera, longest: int
) -> Camera:
    """The lens of a frame of transforms.json."""
    keys = {**file, **frame}
    if not any(key in keys for key in FOCAL):
        return lens
    named = {"file_path": f"{number:04d}"} | (
        {"file_path": frame["file_path"]} if isinstance(frame.get("file_path"), str) else {}
    )
    camera = camera_of({**frame, **named}, file, path, (lens.width, lens.height))
    return camera.resized(
        *scaled(camera.width, camera.height, min(longest, max(camera.width, camera.height)))
    )


def _viewer(
    frame: dict[str, Any], file: dict[str, Any], where: str, lens: Camera, size: int | None
) -> Camera:
    """The camera of a frame of nerfstudio's viewer."""
    kind = file.get("camera_type", "perspective")
    if kind not in TYPES:
        raise NifError(
            f"{where}: camera_type {shown(repr(kind))} is not supported; there are {', '.join(TYPES)}"
        )
    if file.get("render_width") is not None and file.get("render_height") is not None:
        width, height = (
            untrusted.whole(file[f"render_{k}"], f"{where}: render_{k}", 1, 2**14)
            for k in ("width", "height")
        )
    elif frame.get("aspect") is not None:
        aspect = untrusted.number(frame["aspect"], f"{where}: aspect", 0.01, 100)
        width, height = scaled(aspect, 1.0, max(lens.width, lens.height))
    else:
        width, height = lens.width, lens.height
    if size is not None:
        width, height = scaled(width, height, size)
    if kind == "equirectangular":
        return Camera(
            width, height, width / (2 * math.pi), height / math.pi, width / 2, height / 2, projection="sphere"
        )
    fov = untrusted.number(frame.get("fov") or 0, f"{where}: fov (degrees)", 0, 179)
    focal = 0.5 * height / math.tan(math.radians(fov) / 2) if fov else lens.fy * height / lens.height
    try:
        return Camera(width, height, focal, focal, width / 2, height / 2, fisheye=kind == "fisheye")
    except ValueError as error:
        raise NifError(f"{where}: {error}") from error


def _positive(file: dict[str, Any], key: str, path: Path) -> float | None:
    value = file.get(key)
    return None if value is None else untrusted.number(value, f"{path}: '{key}'", 1e-3, 1e5)


def _of_the_data(poses: Poses, path: Path, applied: bool) -> tuple[Poses, tuple[str, ...]]:
    """Poses of nerfstudio's normalised space in the user's world, undone by the transform that it keeps
    beside its runs."""
    there = next(
        (p for folder in (path.parent, path.parent.parent) if (p := folder / DATAPARSER).is_file()), None
    )
    if there is None:
        return poses, (
            (
                f"its poses are taken as of the scene's own files; nerfstudio's need its {DATAPARSER} beside "
                "them"
            ),
        )
    file = read_scene_json(there)
    scale = untrusted.number(file.get("scale", 1.0), f"{there}: 'scale'", 1e-12)
    turn = rigid(file.get("transform"), f"{there}: transform")
    made, notes = _undone(poses, turn, scale), (f"brought from nerfstudio's space by {there}",)
    if applied:
        source = next(
            (p for f in (path.parent, path.parent.parent) if (p := f / "transforms.json").is_file()), None
        )
        known = None if source is None else read_scene_json(source).get("applied_transform")
        if known is not None:
            matrix = untrusted.numbers(known, f"{source}: 'applied_transform'", (None, 4))[:3]
            made = matrix[:, :3] @ made + np.concatenate([np.zeros((3, 3)), matrix[:, 3:]], 1)
            made = np.stack([rigid(p, f"{source}: applied_transform") for p in made])
    return made, notes


def _undone(poses: Poses, turn: Float[np.ndarray, "3 4"], scale: float) -> Poses:
    """What scale (turn p) = the poses' places makes of p; axes turn back."""
    back = turn[:, :3].T
    at = (poses[:, :, 3] / scale - turn[:, 3]) @ turn[:, :3]
    return np.concatenate([back @ poses[:, :, :3], at[:, :, None]], 2)
