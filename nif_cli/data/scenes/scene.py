"""A scene as photographs with cameras show it: what every reader of views makes, and what a run keeps of
it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.report import NOTHING, Report
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.cameras import Camera, camera_rays
from nif_cli.rendering.image_files import scaled
from nif_cli.rendering.ndc import Ndc
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.volume import RadianceField
from nif_cli.rendering.volume_view import Photograph, photograph

Background = Literal["white", "black", "random"]


@dataclass(frozen=True)
class View:
    """One image and its camera. `pose` is camera to world, in normalised space, OpenGL axes (x right, y up,
    z back)."""

    name: str
    pose: Float[Tensor, "3 4"]
    camera: Camera
    read: Callable[[], np.ndarray] | None = None
    """Gives uint8 [H, W, 3 or 4]; None in a run, which keeps no images."""
    read_mask: Callable[[], np.ndarray] | None = None
    """Gives bool [H, W]: which pixels count. None: all."""
    alpha: bool = True
    """Whether the image may be transparent anywhere, as far as its header says."""
    read_depth: Callable[[], np.ndarray] | None = None
    """Gives float32 [H, W]: z-depths in normalised space, 0 where none is known. None: nowhere."""

    def resized(self, longest: int | None) -> View:
        """The same camera with so many pixels along its longest side; None: as it is. Without the image."""
        width, height = self.camera.width, self.camera.height
        camera = self.camera if longest is None else self.camera.resized(*scaled(width, height, longest))
        return View(self.name, self.pose, camera)

    @property
    def pixels(self) -> UInt8[Tensor, "H W C"]:
        """sRGB, and straight alpha where C = 4; read anew each time."""
        if self.read is None:
            raise NifError(
                f"{self.name}: a run keeps the cameras of its views, not the images; give data.root="
            )
        return torch.from_numpy(self.read())

    @property
    def valid(self) -> Bool[Tensor, "H W"] | None:
        """Which pixels count; None: all."""
        return None if self.read_mask is None else torch.from_numpy(self.read_mask())


@dataclass(frozen=True)
class Scene:
    """One scene in normalised space. `bounds` is the box that holds it, `near` and `far` are lengths along
    the rays; with `ndc` the field lives in NDC: poses, `transform` and `up` are of the space before it, the
    others of NDC itself.

    Scenes with the same `shape` have their geometry in common, those with the same `appearance` their
    materials. `background` is what shows through where images are transparent; None where none is.
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
    report: Report = NOTHING

    def __post_init__(self) -> None:
        for label in ("shape", "appearance"):
            if not getattr(self, label):
                object.__setattr__(self, label, self.id)

    def rays(self, view: View) -> Rays:
        """The rays of all pixels of a view, row by row from the top left."""
        return camera_rays(view.pose, view.camera, self.ndc)

    def photograph(
        self,
        field: RadianceField,
        view: View,
        device: torch.device | str = "cpu",
        *,
        near: float | None = None,
        normals: bool = False,
    ) -> Photograph:
        """What a field of this scene shows from a view's camera: in the user's units, on the scene's
        background."""
        return photograph(
            field,
            view.pose,
            view.camera,
            self.near if near is None else near,
            self.far,
            ndc=self.ndc,
            background=self.background,
            scale=self.transform.scale,
            normals=normals,
            device=device,
        )

    def state(self) -> dict[str, Any]:
        """What a run keeps: all but the images; plain data and tensors."""
        return {
            "bounds": self.bounds,
            "near": self.near,
            "far": self.far,
            "background": self.background,
            "ndc": None
            if self.ndc is None
            else {"frame": self.ndc.frame, "slope": list(self.ndc.slope), "near": self.ndc.near},
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
        if (
            background not in (None, "white", "black", "random")
            or len(up) != 3
            or not all(map(math.isfinite, up))
        ):
            raise ValueError(f"a background '{background}', up {up}")
        bounds, near, far = _tensor(state["bounds"], (2, 3)), float(state["near"]), float(state["far"])
        if not bool((bounds[0] < bounds[1]).all()) or not 0 <= near < far < math.inf:
            raise ValueError(f"bounds {bounds.tolist()}, near {near:g}, far {far:g}")
        return Scene(
            id,
            transform,
            bounds,
            near,
            far,
            _restored(state["train"]),
            _restored(state["test"]),
            background,
            ndc
            and Ndc(
                _tensor(ndc["frame"], (3, 4)),
                (float(ndc["slope"][0]), float(ndc["slope"][1])),
                float(ndc["near"]),
            ),
            up,  # type: ignore[arg-type]
            str(state["shape"]),
            str(state["appearance"]),
            str(state["protocol"]),
        )


def _tensor(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(value.shape) != shape:
        raise ValueError(f"a tensor of {list(value.shape)}, not {list(shape)}")
    if not bool(value.isfinite().all()):
        raise ValueError("a tensor with NaN or infinite values")
    return value.detach().float().cpu()


def _kind(camera: Camera) -> bool | str:
    """Whether it is a fisheye, as runs have always kept it; the name of another projection."""
    return camera.projection or camera.fisheye


def _saved(views: Sequence[View]) -> dict[str, Any]:
    cameras = list(dict.fromkeys(v.camera for v in views))
    return {
        "names": [v.name for v in views],
        "poses": torch.stack([v.pose for v in views]) if views else torch.zeros(0, 3, 4),
        "cameras": [[c.width, c.height, _kind(c), *c.parameters.tolist()] for c in cameras],
        "which": [cameras.index(v.camera) for v in views],
    }


def _restored(saved: dict[str, Any]) -> list[View]:
    cameras = []
    for width, height, kind, *numbers in saved["cameras"]:
        how = {"projection": kind} if isinstance(kind, str) else {"fisheye": bool(kind)}
        cameras.append(Camera(int(width), int(height), *map(float, numbers), **how))  # type: ignore[arg-type]
    poses = _tensor(saved["poses"], (len(saved["names"]), 3, 4))
    return [
        View(str(n), p, cameras[c]) for n, p, c in zip(saved["names"], poses, saved["which"], strict=True)
    ]


@dataclass
class RayBatch:
    """Rays of the training views, in normalised space, and the colours that are seen along them."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]  # unit, except in NDC
    # unit directions in the world: what colours may depend on; `directions`, except in NDC
    views: Float[Tensor, "R 3"]
    near: Float[Tensor, "R"]  # along the ray
    far: Float[Tensor, "R"]
    colors: Float[Tensor, "R 4"]  # sRGB and straight alpha (1 where the images have none), in [0, 1]
    valid: Bool[Tensor, "R"]  # whether the colour counts
    scene: Int64[Tensor, "R"]  # which of the data's scenes
    # along the ray, where it is known what is there, else 0; None: nowhere
    depth: Float[Tensor, "R"] | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def to(self, device: torch.device | str) -> RayBatch:
        given: dict[str, Tensor | None] = {f.name: getattr(self, f.name) for f in fields(self)}
        there = {name: part.to(device) for name, part in given.items() if part is not None}
        return RayBatch(**there)
