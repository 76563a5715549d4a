"""Views made on the spot: the toy shapes, painted, seen by cameras all around; nothing to download."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8

from nif_cli.data.report import Report
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.scenes.scene import Background, Scene, View
from nif_cli.data.shapes.toy import FAMILIES, toy_shape
from nif_cli.geometry.distance import first_hits
from nif_cli.geometry.transform import unit_ball
from nif_cli.rendering.camera_paths import look_from
from nif_cli.rendering.cameras import Camera, camera_rays

DISTANCE, FOV = 3.0, 40.0  # of the cameras from the unit ball's centre, and their vertical angle
MATERIALS = ("chequered", "striped", "spotted", "painted")
LIGHT = np.array([0.37, 0.84, 0.4])  # where it comes from


class ToyViews(Views):
    """`shapes` toy shapes, each in `materials` materials: a scene for every pair of them but the last
    `leave_out`. Each has `views` images to train on and `test` others, size x size pixels, with alpha."""

    def __init__(
        self,
        shapes: int = 1,
        materials: int = 1,
        leave_out: int = 0,
        views: int = 40,
        test: int = 8,
        size: int = 100,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if not 1 <= shapes <= 3 * 100 or not 1 <= materials <= len(MATERIALS):
            raise ValueError(
                f"shapes={shapes}, materials={materials}: 1 to 300 shapes, 1 to {len(MATERIALS)} materials"
            )
        if not 0 <= leave_out < shapes * materials:
            raise ValueError(
                f"leave_out={leave_out}: there are {shapes * materials} scenes, one must be left"
            )
        if views < 1 or test < 0 or not 4 <= size <= 4096:
            raise ValueError(
                f"views={views}, test={test}, size={size}: at least 1 view, 0 test views, 4 to 4096 pixels"
            )
        self.counts, self.leave_out, self.size = (shapes, materials), leave_out, size
        self.views, self.test = views, test

    def read(self) -> list[Scene]:
        shapes, materials = self.counts
        pairs = [(s, m) for s in range(shapes) for m in range(materials)]
        return [self.scene(s, m) for s, m in pairs[: len(pairs) - self.leave_out]]

    def scene(self, shape: int, material: int) -> Scene:
        """The scene of a pair, also of one that is left out."""
        family = FAMILIES[shape % 3]
        mesh = toy_shape(family, 1000 * self.seed + shape // 3)
        transform = unit_ball(np.asarray(mesh.vertices))
        mesh = trimesh.Trimesh(transform.to_normalised(mesh.vertices), mesh.faces, process=False)
        focal = 0.5 * self.size / math.tan(math.radians(FOV) / 2)
        camera = Camera(self.size, self.size, focal, focal, self.size / 2, self.size / 2)
        parts = []
        for part, count, turn in (("train", self.views, 0.0), ("test", self.test, 0.5)):
            views = []
            for k in range(count):
                pose = around(k, count, turn)
                paint = functools.partial(lit_view, mesh, material, pose, camera)
                views.append(View(f"{part}/{k:03d}", pose, camera, functools.cache(paint)))
            parts.append(views)
        name = f"{family}_{shape:02d}"
        return Scene(
            f"{name}/{MATERIALS[material]}",
            transform,
            torch.tensor([[-1.0] * 3, [1.0] * 3]),
            DISTANCE - 1,
            DISTANCE + 1,
            *parts,
            background=self.background,
            up=(0.0, 1.0, 0.0),
            shape=name,
            appearance=MATERIALS[material],
            report=Report(
                f"{self.views} + {self.test} images of {self.size} x {self.size} pixels, made on the spot"
            ),
        )


def around(k: int, count: int, turn: float) -> Float[torch.Tensor, "3 4"]:
    """Pose k of `count` spread evenly between 25 degrees below the horizon and 80 above, at golden angles."""
    low, high = math.sin(math.radians(-25)), math.sin(math.radians(80))
    y, azimuth = low + (high - low) * (k + 0.5) / count, (k + turn) * math.pi * (3 - math.sqrt(5))
    side = math.sqrt(1 - y * y)
    at = torch.tensor([math.sin(azimuth) * side, y, math.cos(azimuth) * side])
    return look_from(DISTANCE * at, torch.tensor([0.0, 1.0, 0.0]))


def lit_view(
    mesh: trimesh.Trimesh, material: int, pose: Float[torch.Tensor, "3 4"], camera: Camera, antialias: int = 2
) -> UInt8[np.ndarray, "H W 4"]:
    """A normalised mesh of a material, lit by the sky and from one side; antialias^2 rays a pixel, alpha is
    what they hit."""
    rays = camera_rays(pose, camera.resized(camera.width * antialias, camera.height * antialias))
    o, d = rays.origins.double().numpy(), rays.directions.double().numpy()
    near = -(o * d).sum(1)  # the unit ball is all that can be hit
    may = np.flatnonzero(((o + near[:, None] * d) ** 2).sum(1) < 1)
    t, normals = first_hits(mesh, o[may], d[may])
    found = np.isfinite(t)
    hit = may[found]
    values = np.zeros((len(o), 4))
    points, normals = o[hit] + t[found, None] * d[hit], normals[found]
    shade = 0.5 + 0.15 * normals[:, 1:2] + 0.35 * np.clip(normals @ LIGHT, 0, None)[:, None]
    values[hit, :3] = texture(material, points) * shade
    values[hit, 3] = 1
    shape = (camera.height, antialias, camera.width, antialias, 4)
    values = values.reshape(shape).mean((1, 3))
    values[..., :3] /= np.maximum(values[..., 3:], 1e-9)
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def texture(material: int, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """The colours of a solid material at places in normalised space."""
    x, y, z = points.T
    name = MATERIALS[material]
    if name == "painted":
        return 0.55 + 0.35 * np.stack((np.sin(3 * x + 1), np.sin(4 * y), np.cos(3 * z + x)), 1)
    if name == "chequered":
        which = (np.floor(6 * x + 0.3) + np.floor(6 * y + 0.3) + np.floor(6 * z + 0.3)) % 2
        first, second = [0.95, 0.85, 0.55], [0.75, 0.2, 0.15]
    elif name == "striped":
        which = 0.5 + 0.5 * np.tanh(6 * np.sin(16 * (y + 0.4 * x)))
        first, second = [0.9, 0.95, 1.0], [0.1, 0.35, 0.7]
    else:
        which = 0.5 + 0.5 * np.tanh(4 * (np.cos(11 * x) + np.cos(11 * y) + np.cos(11 * z) - 1))
        first, second = [0.25, 0.55, 0.25], [1.0, 0.9, 0.3]
    return np.asarray(first) + which[:, None] * (np.asarray(second) - np.asarray(first))
