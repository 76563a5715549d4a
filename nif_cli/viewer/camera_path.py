"""A camera path of key frames, as nerfstudio's viewer writes it: `nif render camera=path path=` plays it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import through


@dataclass(frozen=True)
class KeyFrame:
    """Where a camera stands in normalised space (camera to world, OpenGL axes) and its vertical angle of
    view in degrees."""

    pose: Float[np.ndarray, "3 4"]
    fov: float


def in_users_world(pose: Float[np.ndarray, "3 4"], transform: Transform) -> Float[np.ndarray, "3 4"]:
    """A pose of normalised space where its user's files lie."""
    return np.concatenate((pose[:, :3], transform.to_original(pose[:, 3])[:, None]), 1)


def sampled(frames: Sequence[KeyFrame], count: int) -> list[KeyFrame]:
    """`count` cameras along a smooth way through the key frames, the first and the last included."""
    poses = through(np.stack([f.pose for f in frames]), count)
    at = np.linspace(0, len(frames) - 1, count)
    fovs = np.interp(at, np.arange(len(frames)), [f.fov for f in frames])
    return [KeyFrame(pose, float(fov)) for pose, fov in zip(poses, fovs, strict=True)]


def camera_path_json(
    frames: Sequence[KeyFrame],
    transform: Transform,
    seconds: float,
    fps: int = 24,
    size: tuple[int, int] = (960, 540),
) -> str:
    """The content of camera_path.json: the key frames, and `seconds` times `fps` frames between them, in the
    user's world; `size` is width and height in pixels. ValueError without a key frame."""
    if not frames:
        raise ValueError("a path needs a key frame")
    aspect = size[0] / size[1]
    count = max(1, round(seconds * fps))
    shots = sampled(frames, count)

    def matrix(frame: KeyFrame) -> np.ndarray:
        return np.vstack((in_users_world(frame.pose, transform), [0.0, 0.0, 0.0, 1.0]))

    return json.dumps(
        {
            "keyframes": [
                # three.js keeps matrices column by column
                {"matrix": matrix(f).T.ravel().tolist(), "fov": f.fov, "aspect": aspect}
                for f in frames
            ],
            "camera_type": "perspective",
            "render_width": size[0],
            "render_height": size[1],
            "fps": fps,
            "seconds": seconds,
            "is_cycle": False,
            "smoothness_value": 0.5,
            "camera_path": [
                {"camera_to_world": matrix(f).ravel().tolist(), "fov": f.fov, "aspect": aspect} for f in shots
            ],
        }
    )


def opengl_pose(
    wxyz: Sequence[float] | np.ndarray, position: Sequence[float] | np.ndarray
) -> Float[np.ndarray, "3 4"]:
    """viser's camera (OpenCV axes: x right, y down, z ahead) as a pose in OpenGL axes."""
    w, x, y, z = map(float, wxyz)
    axes = Rotation.from_quat([x, y, z, w]).as_matrix() * np.array([1.0, -1.0, -1.0])
    return np.concatenate((axes, np.asarray(position, np.float64)[:, None]), 1)


def viser_wxyz(pose: Float[np.ndarray, "3 4"]) -> tuple[float, float, float, float]:
    """The other way: a pose's rotation as viser takes it."""
    x, y, z, w = Rotation.from_matrix(pose[:, :3] * np.array([1.0, -1.0, -1.0])).as_quat()
    return float(w), float(x), float(y), float(z)


def vertical_fov(focal: float, height: int) -> float:
    """In degrees."""
    return math.degrees(2 * math.atan(0.5 * height / focal))
