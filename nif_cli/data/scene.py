"""A scene as photographs with cameras show it: what every reader of views makes, and what a run keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nif_cli import NifError
from nif_cli.geometry.mesh import Transform
from nif_cli.rendering.cameras import Rays
from nif_cli.rendering.lenses import Camera, Ndc, camera_rays

Background = Literal["white", "black", "random"]


@dataclass(frozen=True)
class View:
    """One picture and its camera. `pose` is camera to world, in normalised space, OpenGL axes (x right, y up, z back)."""

    name: str
    pose: Float[Tensor, "3 4"]
    camera: Camera
    read: Callable[[], np.ndarray] | None = None
    """Gives uint8 [H, W, 3 or 4]; None in a run, which keeps no pictures."""
    read_mask: Callable[[], np.ndarray] | None = None
    """Gives bool [H, W]: which pixels count. None: all."""

    @property
    def pixels(self) -> UInt8[Tensor, "H W C"]:
        """sRGB, and straight alpha where C = 4; read anew each time."""
        if self.read is None:
            raise NifError(f"{self.name}: a run keeps the cameras of its views, not the pictures; give data.root=")
        return torch.from_numpy(self.read())

    @property
    def valid(self) -> Bool[Tensor, "H W"] | None:
        """Which pixels count; None: all."""
        return None if self.read_mask is None else torch.from_numpy(self.read_mask())


@dataclass(frozen=True)
class Scene:
    """One scene in normalised space. `bounds` is the box that holds it, `near` and `far` are lengths along the rays; with
    `ndc` the field lives in NDC: poses, `transform` and `up` are of the space before it, the others of NDC itself.

    Scenes with the same `shape` have their geometry in common, those with the same `appearance` their materials.
    `background` is what shows through where pictures are transparent; None where none is.
    """

    id: str
    transform: Transform
    bounds: Float[Tensor, "2 3"]
    near: float
    far: float
    train: list[View]
    test: list[View] = field(default_factory=list)
    background: Background | None = None
    ndc: Ndc | None = None
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    shape: str = ""
    appearance: str = ""
    protocol: str = "blender"
    report: str = ""

    def rays(self, view: View) -> Rays:
        """The rays of all pixels of a view, row by row from the top left."""
        return camera_rays(view.pose, view.camera, self.ndc)

    def state(self) -> dict[str, Any]:
        """What a run keeps: all but the pictures; plain data and tensors."""
        return {
            "bounds": self.bounds,
            "near": self.near,
            "far": self.far,
            "background": self.background,
            "ndc": None if self.ndc is None else {"frame": self.ndc.frame, "slope": list(self.ndc.slope), "near": self.ndc.near},
            "up": list(self.up),
            "shape": self.shape,
            "appearance": self.appearance,
            "protocol": self.protocol,
            **{part: _saved(views) for part, views in (("train", self.train), ("test", self.test))},
        }

    @staticmethod
    def restored(id: str, transform: Transform, state: dict[str, Any]) -> Scene:
        """The scene of a run. KeyError, TypeError or ValueError for what `state` does not make."""
        ndc, background, up = state["ndc"], state["background"], tuple(map(float, state["up"]))
        if background not in (None, "white", "black", "random") or len(up) != 3:
            raise ValueError(f"a background '{background}', up {up}")
        return Scene(
            id,
            transform,
            _tensor(state["bounds"], (2, 3)),
            float(state["near"]),
            float(state["far"]),
            _restored(state["train"]),
            _restored(state["test"]),
            background,
            ndc and Ndc(_tensor(ndc["frame"], (3, 4)), (float(ndc["slope"][0]), float(ndc["slope"][1])), float(ndc["near"])),
            up,  # type: ignore[arg-type]
            str(state["shape"]),
            str(state["appearance"]),
            str(state["protocol"]),
        )


def _tensor(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(value.shape) != shape:
        raise ValueError(f"a tensor of {list(value.shape)}, not {list(shape)}")
    return value.detach().float().cpu()


def _saved(views: Sequence[View]) -> dict[str, Any]:
    cameras = list(dict.fromkeys(v.camera for v in views))
    return {
        "names": [v.name for v in views],
        "poses": torch.stack([v.pose for v in views]) if views else torch.zeros(0, 3, 4),
        "cameras": [[c.width, c.height, c.fisheye, *c.parameters.tolist()] for c in cameras],
        "which": [cameras.index(v.camera) for v in views],
    }


def _restored(saved: dict[str, Any]) -> list[View]:
    cameras = [Camera(int(w), int(h), *map(float, numbers), fisheye=bool(f)) for w, h, f, *numbers in saved["cameras"]]
    poses = _tensor(saved["poses"], (len(saved["names"]), 3, 4))
    return [View(str(n), p, cameras[c]) for n, p, c in zip(saved["names"], poses, saved["which"], strict=True)]


def rigid(matrix: Any, name: str) -> Float[np.ndarray, "3 4"]:
    """A camera-to-world matrix, float64, its rotation orthonormal to the last digit. NifError (naming `name`) for one that
    is not rigid: not finite, singular, mirrored, sheared or scaled."""
    try:
        pose = np.asarray(matrix, np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    if pose.shape not in ((3, 4), (4, 4)):
        raise NifError(f"{name}: its pose has shape {list(pose.shape)}; it must be a matrix [3, 4] or [4, 4] of numbers")
    pose = pose[:3]
    if not np.isfinite(pose).all():
        raise NifError(f"{name}: its pose is NaN or infinite")
    u, stretch, vt = np.linalg.svd(pose[:, :3])
    if stretch[2] < 1e-6 * max(stretch[0], 1e-12):
        raise NifError(f"{name}: its pose is singular; columns must be the camera's x, y and z axes, and its place")
    if np.linalg.det(u @ vt) < 0:
        raise NifError(f"{name}: its pose mirrors space; OpenGL axes are x right, y up, z back")
    if abs(stretch - 1).max() > 0.01:
        raise NifError(f"{name}: its pose scales space by {stretch[0]:.3g} to {stretch[2]:.3g}; it must turn and move only")
    return np.concatenate([u @ vt, pose[:, 3:]], 1)


def normalised(pose: Float[np.ndarray, "3 4"], transform: Transform) -> Float[Tensor, "3 4"]:
    """A pose of the user's world in normalised space: the camera moves, and looks the same way."""
    return torch.from_numpy(np.concatenate([pose[:, :3], transform.to_normalised(pose[:, 3])[:, None]], 1)).float()


def mean_up(poses: Float[np.ndarray, "V 3 4"]) -> tuple[float, float, float]:
    """What the photographers held up: the mean of the cameras' y axes; z where that says nothing."""
    mean = poses[:, :, 1].mean(0)
    length = float(np.linalg.norm(mean))
    x, y, z = mean / length if length > 0.1 else (0.0, 0.0, 1.0)
    return float(x), float(y), float(z)


def every_eighth(views: list[View], every: int) -> tuple[list[View], list[View]]:
    """Training and test views: in the order of their names, the first and every `every`-th after it are held out (the
    protocols of LLFF and mip-NeRF 360 hold out every 8th); 0: none."""
    views = sorted(views, key=lambda v: v.name)
    held = set(range(0, len(views), every)) if every and len(views) > 1 else set()
    return [v for i, v in enumerate(views) if i not in held], [v for i, v in enumerate(views) if i in held]


def cut(scene: Scene, share: float = 0.002, count: int = 4096) -> float | None:
    """How much larger the box would have to be to hold all that is opaque in the training pictures; None where it holds
    all but `share` of the opaque pixels, `count` looked at in each of at most 32 views."""
    ratio, seen = [], 0
    low, high = scene.bounds
    centre, half = (low + high) / 2, (high - low) / 2
    generator = torch.Generator().manual_seed(0)
    for view in scene.train[:: max(1, len(scene.train) // 32)]:
        pixels = view.pixels.reshape(-1, view.pixels.shape[-1])
        if pixels.shape[1] < 4:
            return None
        opaque = torch.nonzero(pixels[:, 3] > 127)[:, 0]
        opaque = opaque[torch.randperm(len(opaque), generator=generator)[:count]]
        rays = scene.rays(view)[opaque]
        seen += len(opaque)
        o, d = (rays.origins - centre) / half, rays.directions / half
        a, b = torch.zeros(len(o)), torch.full((len(o),), 2.0 * scene.far)
        for _ in range(60):  # the largest of |x|, |y|, |z| is convex along a ray: its least value by golden section
            m, n = a + 0.382 * (b - a), a + 0.618 * (b - a)
            nearer = (o + m[:, None] * d).abs().amax(1) < (o + n[:, None] * d).abs().amax(1)
            a, b = torch.where(nearer, a, m), torch.where(nearer, n, b)
        ratio.append((o + a[:, None] * d).abs().amax(1))
    missing = torch.cat(ratio) if ratio else torch.zeros(0)
    outside = missing[missing > 1]
    return math.ceil(100 * float(outside.quantile(0.99))) / 100 if len(outside) > share * max(seen, 1) else None


def with_report(scene: Scene, text: str) -> Scene:
    return replace(scene, report=text)
