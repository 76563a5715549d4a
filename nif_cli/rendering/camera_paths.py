"""Ways for a camera to go, made from the cameras of a scene: around it, a spiral before it, through given
poses.

Poses are camera to world, OpenGL axes; numpy, float64: they are few.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

Poses = Float[np.ndarray, "V 3 4"]
Frames = Float[np.ndarray, "F 3 4"]
Vector = Float[np.ndarray, "3"]
ONE_SIDE = (
    0.4  # the length of the mean level viewing direction, above which a scene counts as seen from one side
)


def looking(at: Vector, back: Vector, up: Vector) -> Float[np.ndarray, "3 4"]:
    """A camera at a place, its z axis along `back`, its y axis as close to `up` as that allows."""
    back = back / np.linalg.norm(back)
    right = np.cross(up, back)
    if np.linalg.norm(right) < 1e-6:  # it looks straight up or down: any side will do
        right = np.cross(np.roll(up, 1), back)
    right = right / np.linalg.norm(right)
    return np.stack((right, np.cross(back, right), back, at), 1)


def mean_pose(poses: Poses) -> Float[np.ndarray, "3 4"]:
    """The camera in the middle: the mean place, looking the mean way (LLFF's poses_avg)."""
    return looking(poses[:, :, 3].mean(0), poses[:, :, 2].sum(0), poses[:, :, 1].sum(0))


def focus(poses: Poses) -> Vector:
    """The point closest to all optical axes (least squares); the middle of the cameras where these are almost
    parallel."""
    along, at = poses[:, :, 2], poses[:, :, 3]
    across = np.eye(3) - along[:, :, None] * along[:, None, :]
    if np.linalg.eigvalsh(across.mean(0))[0] < 1e-3:
        return at.mean(0)
    middle = at.mean(0)  # solved about it: a scene may lie a million units from its origin
    return middle + np.linalg.solve(across.sum(0), (across @ (at - middle)[:, :, None]).sum(0))[:, 0]


def one_sided(poses: Poses) -> bool:
    """Whether the cameras look much the same way, heights apart; not so where they stand all around."""
    up = poses[:, :, 1].mean(0)
    level = poses[:, :, 2] - np.outer(poses[:, :, 2] @ up, up) / max(float(up @ up), 1e-12)
    return float(np.linalg.norm(level.mean(0))) > ONE_SIDE * float(np.linalg.norm(level, axis=1).mean())


def orbit(poses: Poses, frames: int, elevation: float, up: Vector) -> Frames:
    """Around what the cameras look at, as far away as they are on average, `elevation` degrees above the
    horizon."""
    if frames < 1 or not -89 <= elevation <= 89:
        raise ValueError(f"frames={frames}, elevation={elevation}: frames >= 1, elevation within +-89")
    centre = focus(poses)
    distance = float(np.linalg.norm(poses[:, :, 3] - centre, axis=1).mean()) or 1.0
    first = np.cross(up, np.eye(3)[int(np.abs(up).argmin())])
    return _circle(centre, distance, frames, elevation, up, first / np.linalg.norm(first))


def _circle(
    centre: Vector,
    distance: float,
    frames: int,
    elevation: float,
    up: Vector,
    first: Vector,
    azimuth: float = 30.0,
) -> Frames:
    """Around `centre`, from `azimuth` degrees beside the direction `first`: a little from the side, so that a
    single image shows depth."""
    second, height = np.cross(up, first), math.radians(elevation)
    made = []
    for angle in math.radians(azimuth) + 2 * math.pi * np.arange(frames) / frames:
        back = math.cos(height) * (math.cos(angle) * first + math.sin(angle) * second) + math.sin(height) * up
        made.append(looking(centre + distance * back, back, up))
    return np.stack(made)


def spiral(poses: Poses, frames: int, depth: float, turns: int = 2, rate: float = 0.5) -> Frames:
    """LLFF's render_path_spiral: around the mean camera, as wide as nine in ten cameras stray from it,
    looking at a point `depth` before it. Of cameras all around a scene: up and down around it, between their
    own heights."""
    if frames < 1:
        raise ValueError(f"frames={frames}: at least 1")
    middle = mean_pose(poses)
    if not one_sided(poses):
        return _helix(poses, frames, turns)
    stray = np.quantile(np.abs((poses[:, :, 3] - middle[:, 3]) @ middle[:, :3]), 0.9, axis=0)
    goal = middle[:, 3] - depth * middle[:, 2]
    made = []
    for angle in np.linspace(0, 2 * math.pi * turns, frames, endpoint=False):
        at = middle[:, 3] + middle[:, :3] @ (
            np.array([math.cos(angle), -math.sin(angle), -math.sin(angle * rate)]) * stray
        )
        made.append(looking(at, at - goal, middle[:, 1]))
    return np.stack(made)


def _helix(poses: Poses, frames: int, turns: int) -> Frames:
    centre, up = focus(poses), poses[:, :, 1].mean(0)
    up = up / np.linalg.norm(up)
    away = poses[:, :, 3] - centre
    heights = np.degrees(np.arcsin(np.clip(away @ up / np.linalg.norm(away, axis=1), -1, 1)))
    low, high = np.clip(np.quantile(heights, [0.1, 0.8]), -80, 80)
    made = []
    for k in range(frames):
        share = k / frames
        height = low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * share))
        made.append(orbit(poses, max(1, frames), float(height), up)[turns * k % frames])
    return np.stack(made)


def through(poses: Poses, frames: int) -> Frames:
    """`frames` poses along a smooth way through the given ones, its ends included; the poses themselves where
    there are as many."""
    if frames < 1:
        raise ValueError(f"frames={frames}: at least 1")
    if frames == len(poses) or len(poses) == 1:
        return poses if frames == len(poses) else poses.repeat(frames, 0)
    known, wanted = np.arange(len(poses)), np.linspace(0, len(poses) - 1, frames)
    turned = RotationSpline(known, Rotation.from_matrix(poses[:, :, :3]))(wanted).as_matrix()
    at = CubicSpline(known, poses[:, :, 3])(wanted)
    return np.concatenate([turned, at[:, :, None]], 2)


def look_from(position: Float[Tensor, "3"], up: Float[Tensor, "3"]) -> Float[Tensor, "3 4"]:
    """The pose [right, up, back | position] of a camera that looks at the origin."""
    at = position.double().numpy()
    return torch.from_numpy(looking(at, at, up.double().numpy())).to(position)


def turntable(
    frames: int, elevation: float = 20.0, up: str = "y", distance: float = 3.0, azimuth: float = 30.0
) -> Float[Tensor, "F 3 4"]:
    """`frames` poses on a circle around the origin, `elevation` degrees above the horizon, the first at
    `azimuth` degrees; float32."""
    if frames < 1 or not -89 <= elevation <= 89 or up not in ("y", "z"):
        raise ValueError(
            f"frames={frames}, elevation={elevation}, up={up}: frames >= 1, elevation within +-89, up y or z"
        )
    axes = np.eye(3)
    axis, first = (axes[1], axes[2]) if up == "y" else (axes[2], axes[0])
    return torch.from_numpy(_circle(np.zeros(3), distance, frames, elevation, axis, first, azimuth)).float()
