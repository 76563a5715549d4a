"""COLMAP's sparse models, binary and text: cameras, images and points3D (https://colmap.github.io/format.html)."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.formats.photos import mask, view
from nif_cli.data.formats.transforms import describe
from nif_cli.data.posing import around_cameras, cube, every_eighth, farthest, mean_up, normalised, rigid
from nif_cli.data.scene import Background, Scene
from nif_cli.data.views import Views, each
from nif_cli.rendering.lenses import Camera

# name, parameters in the file's order; f is fx and fy, k is k1
MODELS = {
    0: ("SIMPLE_PINHOLE", "f cx cy"),
    1: ("PINHOLE", "fx fy cx cy"),
    2: ("SIMPLE_RADIAL", "f cx cy k1"),
    3: ("RADIAL", "f cx cy k1 k2"),
    4: ("OPENCV", "fx fy cx cy k1 k2 p1 p2"),
    5: ("OPENCV_FISHEYE", "fx fy cx cy k1 k2 k3 k4"),
    6: ("FULL_OPENCV", "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    7: ("FOV", "fx fy cx cy omega"),
    8: ("SIMPLE_RADIAL_FISHEYE", "f cx cy k1"),
    9: ("RADIAL_FISHEYE", "f cx cy k1 k2"),
    10: ("THIN_PRISM_FISHEYE", "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1"),
}
UNREAD = ("FOV", "THIN_PRISM_FISHEYE")


@dataclass(frozen=True)
class Posed:
    """A picture of the model. `pose` is camera to world, OpenGL axes."""

    name: str
    camera: int
    pose: Float[np.ndarray, "3 4"]


class ColmapViews(Views):
    """`root`: a folder with COLMAP's sparse/0 (or sparse) and the pictures in `images`, or a list of them, a scene each.

    The point that all cameras look at is the centre, the farthest camera at distance 1; `aabb_scale` is the half side of
    the box, by default the power of two (at most 16) that holds 99 % of the sparse points. The pictures of
    images_<downscale> are taken where there are any; masks lie in masks/<name>.png, black is ignored.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        images: str = "images",
        downscale: int = 1,
        hold_out: int = 8,
        aabb_scale: float | None = None,
        near: float | None = None,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or hold_out < 0 or (near is not None and not near > 0):
            raise ValueError(f"downscale={downscale}, hold_out={hold_out}, near={near}: at least 1, at least 0, positive")
        if aabb_scale is not None and not 0 < aabb_scale <= 128:
            raise ValueError(f"aabb_scale={aabb_scale}: the half side of the scene's box, above 0 and at most 128")
        self.root, self.images, self.downscale, self.hold_out = root, images, downscale, hold_out
        self.aabb_scale, self.near = aabb_scale, near

    def read(self) -> list[Scene]:
        return each(self.root, "sparse/0", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        model, binary = _model(root)
        cameras, posed, points = read_binary(model) if binary else read_text(model)
        if not posed:
            raise NifError(f"{model}: it holds no pictures with poses")
        poses = np.stack([p.pose for p in posed])
        transform = around_cameras(poses)
        moved = [normalised(pose, transform) for pose in poses]
        views, missing = [], 0
        for picture, pose in zip(posed, moved, strict=True):
            path = root / self.images / picture.name
            if not path.is_file():
                missing += 1
                continue
            if picture.camera not in cameras:
                raise NifError(f"{model}: {picture.name} is of camera {picture.camera}, which is not among the cameras")
            masks = next((p for p in _masks(root, picture.name) if p.is_file()), None)
            hides = None if masks is None else functools.partial(mask, masks, counts=True)
            name = Path(picture.name).with_suffix("").as_posix()
            views.append(view(name, path, pose, cameras[picture.camera], self.downscale, hides))
        if not views:
            first = root / self.images / posed[0].name
            raise NifError(f"{model}: none of its {len(posed)} pictures exists (the first: {first}); give data.images=<folder>")
        train, test = every_eighth(views, self.hold_out)
        seen = torch.from_numpy(transform.to_normalised(points)).float()
        half, near = self.aabb_scale, self.near
        if len(seen):
            reach = float(seen.abs().amax(1).quantile(0.99)) if len(seen) < 2**24 else float(seen[:: 2**4].abs().max())
            half = half or float(2.0 ** np.clip(np.ceil(np.log2(max(reach, 1e-3))), 0, 4))
            distances = torch.cat([(seen[:: max(1, len(seen) // 2000)] - p[:, 3]).norm(dim=1) for p in moved])
            near = near or max(0.02, 0.5 * float(distances.quantile(0.001) if len(distances) < 2**24 else distances.min()))
        half, near = half or 4.0, near or 0.1
        outside = float((seen.abs().amax(1) > half).float().mean()) if len(seen) else 0.0
        notes = f", {missing} of {len(posed)} without a picture" if missing else ""
        notes += f"; {len(points):,} points, {outside:.1%} of them outside the box" if len(points) else ""
        bounds, side = cube(half), 2 * half / transform.scale
        return Scene(
            id,
            transform,
            bounds,
            near,
            farthest(moved, bounds),
            train,
            test,
            background=self.background,
            up=mean_up(poses),
            protocol="mip360",
            report=f"{describe(views)}{notes}; box +-{half:g} ({side:.3g} of COLMAP's units), near {near:.2g}",
        )


def _model(root: Path) -> tuple[Path, bool]:
    """The folder of the sparse model and whether it is binary."""
    for folder in (root / "sparse" / "0", root / "sparse", root / "colmap" / "sparse" / "0", root):
        for suffix in ("bin", "txt"):
            if all((folder / f"{part}.{suffix}").is_file() for part in ("cameras", "images")):
                return folder, suffix == "bin"
    raise NifError(f"{root}: no COLMAP model: sparse/0/cameras.bin and images.bin (or .txt) are looked for")


def _masks(root: Path, name: str) -> Iterator[Path]:
    yield root / "masks" / f"{name}.png"
    yield root / "masks" / Path(name).with_suffix(".png")


def _camera(path: Path, id: int, model: str, width: int, height: int, values: Sequence[float]) -> Camera:
    names = next((n.split() for _, (m, n) in MODELS.items() if m == model), None)
    if names is None or model in UNREAD:
        raise NifError(f"{path}: camera {id} is of model {model}; run colmap image_undistorter, or use {', '.join(_read())}")
    if len(values) != len(names):
        raise NifError(f"{path}: camera {id} has {len(values)} parameters; {model} has {len(names)}")
    keys: dict[str, Any] = dict(zip(names, map(float, values), strict=True))
    if "f" in keys:
        keys["fx"] = keys["fy"] = keys.pop("f")
    try:
        return Camera(width, height, **keys, fisheye="FISHEYE" in model)
    except ValueError as error:
        raise NifError(f"{path}: camera {id}: {error}") from error


def _read() -> list[str]:
    return [name for name, _ in MODELS.values() if name not in UNREAD]


def pose_of(quaternion: Sequence[float], translation: Sequence[float], name: str) -> Float[np.ndarray, "3 4"]:
    """Camera to world in OpenGL axes, from COLMAP's world to camera (w first; x right, y down, z ahead)."""
    q = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(q))
    if not np.isfinite(q).all() or not length > 1e-9:
        raise NifError(f"{name}: its quaternion {q.tolist()} is no rotation")
    w, x, y, z = q / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    at = -rotation.T @ np.asarray(translation, np.float64)
    return rigid(np.concatenate([rotation.T * [1, -1, -1], at[:, None]], 1), name)


Model = tuple[dict[int, Camera], list[Posed], Float[np.ndarray, "P 3"]]


def read_binary(folder: Path) -> Model:
    """cameras.bin, images.bin and, where there is one, points3D.bin."""
    cameras, path = {}, folder / "cameras.bin"
    file = _Bytes(path)
    for _ in range(file.count(24)):
        id, model, width, height = file.take("<iiQQ")
        if model not in MODELS:
            raise NifError(f"{path}: camera {id} is of model {model}, which COLMAP does not have")
        name, parameters = MODELS[model]
        cameras[id] = _camera(path, id, name, width, height, file.take(f"<{len(parameters.split())}d"))
    posed, path = [], folder / "images.bin"
    file = _Bytes(path)
    for _ in range(file.count(73)):
        id, *numbers, camera = file.take("<i7di")
        name = file.text()
        (count,) = file.take("<Q")
        file.skip(24 * count)
        posed.append(Posed(name, camera, pose_of(numbers[:4], numbers[4:], f"{path}: {name}")))
    points, path = np.zeros((0, 3)), folder / "points3D.bin"
    if path.is_file():
        file = _Bytes(path)
        points = np.empty((file.count(51), 3))
        for row in points:
            _, row[0], row[1], row[2], _, _, _, _, track = file.take("<Q3d3BdQ")
            file.skip(8 * track)
    return cameras, posed, points[np.isfinite(points).all(1)]


class _Bytes:
    """A binary file read from its start; NifError where it ends too early."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(layout)
        self.skip(size)
        return struct.unpack_from(layout, self.data, self.at - size)

    def skip(self, count: int) -> None:
        if self.at + count > len(self.data):
            raise NifError(f"{self.path}: truncated, or no binary file of COLMAP's")
        self.at += count

    def count(self, least: int) -> int:
        """How many entries follow, each of at least so many bytes."""
        (count,) = self.take("<Q")
        if count * least > len(self.data):
            raise NifError(f"{self.path}: it says {count:,} entries, more than its {len(self.data):,} bytes can hold")
        return count

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise NifError(f"{self.path}: truncated, or no binary file of COLMAP's")
        found, self.at = self.data[self.at : end], end + 1
        return found.decode("utf-8", "replace")


def read_text(folder: Path) -> Model:
    """cameras.txt, images.txt and, where there is one, points3D.txt."""
    cameras, path = {}, folder / "cameras.txt"
    try:
        for line in _lines(path):
            id, model, width, height, *values = line.split()
            cameras[int(id)] = _camera(path, int(id), model, int(width), int(height), [float(v) for v in values])
        posed, path = [], folder / "images.txt"
        for line in _lines(path)[::2]:  # every second line has the picture's points
            _, *numbers, camera, name = line.split(maxsplit=9)
            values = [float(n) for n in numbers]
            posed.append(Posed(name, int(camera), pose_of(values[:4], values[4:], f"{path}: {name}")))
        points, path = [], folder / "points3D.txt"
        if path.is_file():
            points = [[float(v) for v in line.split(maxsplit=4)[1:4]] for line in _lines(path)]
        return cameras, posed, np.asarray(points, np.float64).reshape(-1, 3)
    except ValueError as error:
        raise NifError(f"{path}: a line that is not COLMAP's ({str(error)[:80]})") from error


def _lines(path: Path) -> list[str]:
    """Without comments. A picture without points has an empty line for them, which counts."""
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if not line.startswith("#")]
    while lines and not lines[-1].strip() and (path.name != "images.txt" or len(lines) % 2):
        lines.pop()
    return lines if path.name == "images.txt" else [line for line in lines if line.strip()]
