"""How cameras lie around a scene: poses checked and normalised, the scene's box, which views are held out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.scenes.scene import Scene, View
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import focus
from nif_cli.rendering.cameras import camera_rays, unproject
from nif_cli.untrusted import LARGEST

AXES = ("opengl", "opencv")


def rigid(matrix: Any, name: str) -> Float[np.ndarray, "3 4"]:
    """A camera-to-world matrix, float64, its rotation orthonormal to the last digit. NifError (naming `name`)
    for one that is not rigid: not finite, singular, mirrored, sheared or scaled."""
    try:
        pose = np.asarray(matrix)
        pose = pose.astype(np.float64) if pose.dtype.kind in "iuf" else np.empty(0)
    except (TypeError, ValueError, OverflowError, RecursionError):
        pose = np.empty(0)
    if pose.shape not in ((3, 4), (4, 4)):
        raise NifError(
            f"{name}: its pose has shape {list(pose.shape)}; it must be a matrix [3, 4] or [4, 4] of numbers"
        )
    if not np.isfinite(pose).all():
        raise NifError(f"{name}: its pose is NaN or infinite")
    if abs(pose).max() > LARGEST:
        raise NifError(f"{name}: its pose has a number of {abs(pose).max():.3g}; {LARGEST:g} is the largest")
    pose, last = pose[:3], pose[3:]
    u, stretch, vt = np.linalg.svd(pose[:, :3])
    if stretch[2] < 1e-6 * max(stretch[0], 1e-12):
        raise NifError(
            f"{name}: its pose is singular; columns must be the camera's x, y and z axes, and its place"
        )
    if np.linalg.det(u @ vt) < 0:
        raise NifError(f"{name}: its pose mirrors space; OpenGL axes are x right, y up, z back")
    if abs(stretch - 1).max() > 0.01:
        raise NifError(
            f"{name}: its pose scales space by {stretch[0]:.3g} to {stretch[2]:.3g}; it must turn and move "
            "only"
        )
    if len(last) and not np.allclose(last, [0, 0, 0, 1], atol=1e-3):
        raise NifError(
            f"{name}: the last row of its pose is {last[0].tolist()}; it must be [0, 0, 0, 1] (a matrix is "
            "its rows)"
        )
    return np.concatenate([u @ vt, pose[:, 3:]], 1)


def turned(pose: Float[np.ndarray, "3 4"], axes: str) -> Float[np.ndarray, "3 4"]:
    """A pose whose camera has these axes, in OpenGL's (x right, y up, z back); OpenCV's are x right, y down,
    z ahead."""
    return pose * [1, -1, -1, 1] if axes == "opencv" else pose


def normalised(pose: Float[np.ndarray, "3 4"], transform: Transform) -> Float[Tensor, "3 4"]:
    """A pose of the user's world in normalised space: the camera moves, and looks the same way."""
    return torch.from_numpy(
        np.concatenate([pose[:, :3], transform.to_normalised(pose[:, 3])[:, None]], 1)
    ).float()


def mean_up(poses: Float[np.ndarray, "V 3 4"]) -> tuple[float, float, float]:
    """What the photographers held up: the mean of the cameras' y axes; z where that says nothing."""
    mean = poses[:, :, 1].mean(0)
    length = float(np.linalg.norm(mean))
    x, y, z = mean / length if length > 0.1 else (0.0, 0.0, 1.0)
    return float(x), float(y), float(z)


def held_out_views(views: list[View], every: int) -> tuple[list[View], list[View]]:
    """Training and test views: in the order of their names, the first and every `every`-th after it are held
    out (the protocols of LLFF and mip-NeRF 360 hold out every 8th); 0: none."""
    views = sorted(views, key=lambda v: v.name)
    held = set(range(0, len(views), every)) if every and len(views) > 1 else set()
    return [v for i, v in enumerate(views) if i not in held], [v for i, v in enumerate(views) if i in held]


def cut(scene: Scene, share: float = 0.002, count: int = 1000) -> float | None:
    """How much larger the box would have to be to hold all that is opaque in the training images; None
    where it holds all but `share` of the opaque pixels, `count` looked at in each of about 16 views."""
    ratio, seen = [], 0
    low, high = scene.bounds
    centre, half = (low + high) / 2, (high - low) / 2
    generator = torch.Generator().manual_seed(0)
    for view in scene.train[:: max(1, len(scene.train) // 16)]:
        pixels = view.pixels.reshape(-1, view.pixels.shape[-1])
        if pixels.shape[1] < 4:
            return None
        opaque = torch.nonzero(pixels[:, 3] > 127)[:, 0]
        opaque = opaque[torch.randperm(len(opaque), generator=generator)[:count]]
        width = view.camera.width
        pixel = torch.stack((opaque % width, opaque // width), -1) + 0.5
        local = unproject(view.camera.parameters.expand(len(pixel), -1), pixel.double(), view.camera.kind)
        rays = camera_rays(view.pose, view.camera, scene.ndc, local)
        seen += len(opaque)
        o, d = (rays.origins - centre) / half, rays.directions / half
        a, b = torch.zeros(len(o)), torch.full((len(o),), 2.0 * scene.far)
        for _ in range(
            40
        ):  # the largest of |x|, |y|, |z| is convex along a ray: its least value by golden section
            m, n = a + 0.382 * (b - a), a + 0.618 * (b - a)
            nearer = (o + m[:, None] * d).abs().amax(1) < (o + n[:, None] * d).abs().amax(1)
            a, b = torch.where(nearer, a, m), torch.where(nearer, n, b)
        ratio.append((o + a[:, None] * d).abs().amax(1))
    missing = torch.cat(ratio) if ratio else torch.zeros(0)
    outside = missing[missing > 1]
    return (
        math.ceil(100 * float(outside.quantile(0.99))) / 100 if len(outside) > share * max(seen, 1) else None
    )


def around_cameras(poses: Float[np.ndarray, "V 3 4"]) -> Transform:
    """The point that all cameras look at becomes the centre, the distance of the farthest camera 1."""
    centre = focus(poses)
    radius = float(np.linalg.norm(poses[:, :, 3] - centre, axis=1).max())
    x, y, z = (float(-c) for c in centre)
    return Transform((x, y, z), 1 / radius if radius > 0 else 1.0)


def cube(half: float) -> Float[Tensor, "2 3"]:
    """The box +-half."""
    return torch.tensor([[-half] * 3, [half] * 3], dtype=torch.float32)


def farthest(poses: list[Tensor], bounds: Float[Tensor, "2 3"]) -> float:
    """How far the far corner of the box is from the camera that is farthest from it."""
    at = torch.stack([p[:, 3] for p in poses])
    return float(torch.maximum((at - bounds[0]).abs(), (bounds[1] - at).abs()).norm(dim=1).max())
