"""The files of a sparse model of COLMAP: cameras, images and points3D
(https://colmap.github.io/format.html)."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.scenes.poses import rigid
from nif_cli.files import available_memory
from nif_cli.rendering.cameras import Camera
from nif_cli.untrusted import LARGEST, one_line, regular, shown, text

# name, parameters in the file's order; f is fx and fy, k is k1, alpha and beta of EUCM are k1 and k2
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
    12: ("SIMPLE_DIVISION", "f cx cy k1"),
    13: ("DIVISION", "fx fy cx cy k1"),
    14: ("SIMPLE_FISHEYE", "f cx cy"),
    15: ("FISHEYE", "fx fy cx cy"),
    16: ("EUCM", "fx fy cx cy k1 k2"),
}
SPHERE = 17, "EQUIRECTANGULAR", "w h"
OTHERS = {SPHERE[0]: SPHERE[1:], 11: ("RAD_TAN_THIN_PRISM_FISHEYE", " ".join(["p"] * 16))}
UNREAD = ("FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE")
PROJECTIONS = {"SIMPLE_DIVISION": "division", "DIVISION": "division", "EUCM": "eucm"}


@dataclass(frozen=True)
class Posed:
    """An image of the model. `pose` is camera to world, OpenGL axes."""

    name: str
    camera: int
    pose: Float[np.ndarray, "3 4"]


def _camera(path: Path, id: int, model: str, width: int, height: int, values: Sequence[float]) -> Camera:
    known = [*MODELS.values(), *OTHERS.values()]
    names = next((n.split() for m, n in known if m == model), None)
    if names is None or model in UNREAD:
        named = f"model {shown(model)}; run colmap image_undistorter, or use {', '.join(_read())}"
        raise NifError(f"{path}: camera {id} is of {named}")
    if len(values) != len(names):
        raise NifError(f"{path}: camera {id} has {len(values)} parameters; {model} has {len(names)}")
    keys: dict[str, Any] = dict(zip(names, map(float, values), strict=True))
    if "f" in keys:
        keys["fx"] = keys["fy"] = keys.pop("f")
    if model == SPHERE[1]:
        keys = {
            "fx": width / (2 * math.pi),
            "fy": height / math.pi,
            "cx": width / 2,
            "cy": height / 2,
            "projection": "sphere",
        }
    elif model in PROJECTIONS:
        keys["projection"] = PROJECTIONS[model]
    try:
        return Camera(width, height, **keys, fisheye="FISHEYE" in model)
    except ValueError as error:
        raise NifError(f"{path}: camera {id}: {error}") from error


def _read() -> list[str]:
    return [name for name, _ in (*MODELS.values(), *OTHERS.values()) if name not in UNREAD]


def pose_of(quaternion: Sequence[float], translation: Sequence[float], name: str) -> Float[np.ndarray, "3 4"]:
    """Camera to world in OpenGL axes, from COLMAP's world to camera (w first; x right, y down, z ahead)."""
    q = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(q))
    if not np.isfinite(q).all() or not length > 1e-9:
        raise NifError(f"{shown(name, 500)}: its quaternion {q.tolist()} is no rotation")
    w, x, y, z = q / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    moved = np.asarray(translation, np.float64)
    if not (np.abs(moved) <= LARGEST).all():
        raise NifError(f"{shown(name, 500)}: its translation {moved.tolist()} is NaN or beyond {LARGEST:g}")
    at = -rotation.T @ moved
    return rigid(np.concatenate([rotation.T * [1, -1, -1], at[:, None]], 1), name)


SparseModel = tuple[dict[int, Camera], list[Posed], Float[np.ndarray, "P 3"]]


def read_binary_model(folder: Path) -> SparseModel:
    """images.bin, the cameras of cameras.bin that its images are of and, where there is one,
    points3D.bin."""
    posed, path = [], folder / "images.bin"
    file = _Bytes(path)
    for _ in range(file.count(73)):
        id, *numbers, camera = file.take("<i7di")
        name = file.text()
        (count,) = file.take("<Q")
        file.skip(24 * count)
        posed.append(Posed(name, camera, pose_of(numbers[:4], numbers[4:], f"{path}: {name}")))
    used, cameras, path = {p.camera for p in posed}, {}, folder / "cameras.bin"
    file = _Bytes(path)
    for _ in range(file.count(24)):
        id, model, width, height = file.take("<iiQQ")
        if model not in MODELS and model not in OTHERS:
            raise NifError(f"{path}: camera {id} is of model {model}, which COLMAP does not have")
        name, parameters = (MODELS | OTHERS)[model]
        values = file.take(f"<{len(parameters.split())}d")
        if id in used:
            cameras[id] = _camera(path, id, name, width, height, values)
    points, path = np.zeros((0, 3)), folder / "points3D.bin"
    if path.is_file():
        file = _Bytes(path)
        points = np.empty((file.count(51), 3))
        for row in points:
            _, row[0], row[1], row[2], _, _, _, _, track = file.take("<Q3d3BdQ")
            file.skip(8 * track)
    return cameras, posed, _near(points)


def _near(points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "Q 3"]:
    """Without those that are NaN or nowhere."""
    return points[(np.abs(points) <= LARGEST).all(1)]


class _Bytes:
    """A binary file read from its start; NifError where it ends too early."""

    def __init__(self, path: Path):
        size = regular(path).stat().st_size
        if size > available_memory() // 2:
            raise NifError(f"{path}: {size / 2**30:.1f} GiB do not fit in memory")
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
            raise NifError(
                f"{self.path}: it says {count:,} entries, more than its {len(self.data):,} bytes can hold"
            )
        return count

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise NifError(f"{self.path}: truncated, or no binary file of COLMAP's")
        found, self.at = self.data[self.at : end], end + 1
        return text(found.decode("utf-8", "replace"), f"{self.path}: an image's name")


def read_text_model(folder: Path) -> SparseModel:
    """images.txt, the cameras of cameras.txt that its images are of and, where there is one, points3D.txt.
    An image's line of points may be there, empty, or missing."""
    posed, path, line = [], folder / "images.txt", ""
    try:
        for line in lines_of(path):
            image = header(line)
            if image is None:
                if not _numeric(line):
                    raise ValueError("neither an image nor its points")
                continue
            numbers, camera, name = image
            posed.append(Posed(name, camera, pose_of(numbers[:4], numbers[4:], f"{path}: {name}")))
        used, cameras, path = {p.camera for p in posed}, {}, folder / "cameras.txt"
        for line in lines_of(path):
            id, model, width, height, *values = line.split()
            if int(id) in used:
                cameras[int(id)] = _camera(
                    path, int(id), model, int(width), int(height), [float(v) for v in values]
                )
        points, path = [], folder / "points3D.txt"
        if path.is_file():
            for line in lines_of(path):
                x, y, z = line.split(maxsplit=4)[1:4]
                points.append((float(x), float(y), float(z)))
        return cameras, posed, _near(np.asarray(points, np.float64).reshape(-1, 3))
    except (ValueError, OverflowError) as error:
        why = f"{one_line(error, 80)}: {shown(line, 60)}"
        raise NifError(f"{path}: a line that is not COLMAP's ({why})") from error


def header(line: str) -> tuple[list[float], int, str] | None:
    """The pose (quaternion, translation), camera and name of an image's line; None for any other. A line of
    points is numbers alone, three a point, and begins with no quaternion."""
    parts = line.split(maxsplit=9)
    if len(parts) < 10:
        return None
    try:
        int(parts[0])
        numbers, camera = [float(n) for n in parts[1:8]], int(parts[8])
    except ValueError:
        return None
    unit = 0.9 < float(np.linalg.norm(numbers[:4])) < 1.1
    points = _numeric(parts[9]) and (not unit or len(line.split()) % 3 == 0)
    return None if points else (numbers, camera, text(parts[9], "an image's name"))


def _numeric(line: str) -> bool:
    """Whether a line is numbers alone."""
    try:
        return len([float(n) for n in line.split()]) > 0
    except ValueError:
        return False


def lines_of(path: Path) -> list[str]:
    """Without comments, empty lines and a byte order mark."""
    size = regular(path).stat().st_size
    if 4 * size > available_memory():
        raise NifError(f"{path}: {size / 2**30:.1f} GiB do not fit in memory")
    lines = (line.strip() for line in re.split(r"\r\n?|\n", path.read_bytes().decode("utf-8-sig", "replace")))
    return [line for line in lines if line and not line.startswith("#")]
