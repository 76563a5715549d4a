"""What a file or folder of a user's is, by names and headers only: which reader takes it, and which model
learns from it unless told otherwise."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nif_cli import NifError
from nif_cli.untrusted import npz_headers, read_npy, regular

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
MESHES = (".ply", ".obj", ".stl", ".off", ".glb", ".gltf")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
RAW = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
CURVES = (".svg", ".svgz")
CLOUDS = (".xyz",)
GRIDS = (".binvox",)
ARRAYS = (".npy", ".npz")
SUFFIXES = (*MESHES, *IMAGES, *CURVES, *CLOUDS, *GRIDS, *ARRAYS, ".json")
MOST = 20_000  # entries of a folder that are looked at
CLOUD_KEYS = ("points", "xyz", "positions", "coords", "pts")


@dataclass(frozen=True)
class Reading:
    """One way to read a path."""

    what: str  # 'a mesh'
    model: str
    data: str
    path: Path
    key: str = "data.path"
    experiment: str | None = None  # in place of the model, where its defaults do not fit
    others: tuple[tuple[str, str], ...] = ()  # models that read it by another data
    more: tuple[str, ...] = ()

    def words(self, model: str | None) -> tuple[str, ...]:
        """Words of the command line but for the path; `model`: the one that the user has chosen."""
        data = dict(self.others).get(model or "", self.data)
        own = f"experiment={self.experiment}" if self.experiment else f"model={self.model}"
        return (*(() if model else (own,)), f"data={data}", *self.more)


def recognise(path: Path) -> list[Reading]:
    """The ways to read a file or folder: one, or several where it does not say. NifError where there is
    none."""
    if not path.exists():
        raise NifError(f"{path}: no such file or folder")
    return _folder(path) if path.is_dir() else [_file(regular(path, "data"))]


def _file(path: Path) -> Reading:
    kind = _kind(path)
    if kind == "mesh":
        return Reading("a mesh", "sdf", "meshes", path, others=(("texture", "textured"),))
    if kind == "cloud":
        return Reading("a point cloud", "sdf", "points", path, experiment="sdf_sal")
    if kind == "image":
        return Reading("an image", "image", "image", path, others=(("curve", "curve"),))
    if kind == "curve":
        return Reading("curves", "curve", "curve", path)
    if kind == "grid":
        return Reading("a voxel grid", "sdf", "voxels", path)
    if kind == "grids":
        return Reading("voxel grids", "deepsdf", "voxels", path)
    if kind == "scene":
        if path.name == "transforms_train.json":
            return Reading("a scene of NeRF", "nerf", "blender", path.parent, "data.root")
        return Reading("photographs with cameras", "nerf", "transforms", path, "data.root")
    if path.suffix.lower() in VIDEOS:
        raise NifError(f"{path}: a video, whose cameras nif prepare input={path} output=<folder> finds first")
    raise NifError(
        f"{path}: not recognised as data (there are meshes, point clouds, voxels, images, SVG, "
        "transforms.json); nif help data shows what is read"
    )


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return "mesh" if _ply_has_faces(path) else "cloud"
    for kind, suffixes in (("mesh", MESHES), ("image", IMAGES), ("curve", CURVES), ("cloud", CLOUDS)):
        if suffix in suffixes:
            return kind
    if suffix in GRIDS:
        return "grid"
    if suffix == ".npy":
        return _of_array(tuple(read_npy(path, "data", mapped=True).shape))
    if suffix == ".npz":
        return _of_arrays(path)
    if suffix == ".json":
        with path.open("rb") as file:
            return "scene" if b'"frames"' in file.read(2**20) else None
    return None


def _ply_has_faces(path: Path) -> bool:
    """By the header, without reading on."""
    with path.open("rb") as file:
        head = file.read(2**16).split(b"end_header")[0]
    for line in head.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == b"element" and words[1] in (b"face", b"tristrips"):
            return words[2] != b"0"
    return False


def _of_array(shape: tuple[int, ...]) -> str | None:
    if len(shape) == 2:
        return "cloud" if shape[1] in (3, 6) else "image"
    if len(shape) == 3:
        return "image" if shape[2] in (1, 2, 3, 4) else "grid"
    return "grids" if len(shape) == 4 else None


def _of_arrays(path: Path) -> str | None:
    headers = npz_headers(path, "data")
    if {"pos", "neg"} <= headers.keys():
        raise NifError(f"{path}: samples of DeepSDF; data=deepsdf takes the folder that holds SdfSamples")
    if {"points", "occupancies"} <= headers.keys():
        raise NifError(
            f"{path}: points of occupancy networks; data=onet takes the folder that holds "
            "<class>/<id>/points.npz"
        )
    if any(key in headers for key in CLOUD_KEYS):
        return "cloud"
    if "shape" in headers:
        return "grids"
    kinds = [_of_array(shape) for name, (shape, _) in headers.items() if len(shape) >= 3]
    return next((k for k in kinds if k in ("grid", "grids")), "grid" if kinds else None)


def _folder(path: Path) -> list[Reading]:
    if (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
        raise NifError(
            f"{path}: a run; nif train resume={path} goes on with it, init_from={path} starts from its "
            "weights"
        )
    found = _scenes(path) or _datasets(path)
    if found:
        return found
    for sub in sorted(p for p in path.iterdir() if p.is_dir())[:200]:  # of datasets, as prepare writes it
        found += _scenes(sub) or (_datasets(sub) if sub.name in ("deepsdf", "onet") else [])
    return found or _files(path)


def _scenes(path: Path) -> list[Reading]:
    model_files = [f"{name}.{end}" for name in ("cameras", "images") for end in ("bin", "txt")]
    places = [path, path / "sparse", *path.glob("sparse/*/")]
    found = []
    if (path / "transforms_train.json").is_file():
        found.append(Reading("a scene of NeRF", "nerf", "blender", path, "data.root"))
    elif (path / "transforms.json").is_file():
        found.append(Reading("photographs with cameras", "nerf", "transforms", path, "data.root"))
    model = any(sum((place / name).is_file() for name in model_files) >= 2 for place in places)
    if model and not (found and made_by_prepare(path)):  # which writes both, of the same cameras
        found.append(Reading("photographs with a model of COLMAP", "nerf", "colmap", path, "data.root"))
    if (path / "poses_bounds.npy").is_file():
        found.append(Reading("photographs of LLFF", "nerf", "llff", path, "data.root"))
    if (path / "cameras_sphere.npz").is_file():
        found.append(Reading("images and masks of IDR and NeuS", "neus", "idr", path, "data.root"))
    return found


def made_by_prepare(path: Path) -> bool:
    """Whether a folder is nif prepare's, by its report."""
    try:
        return "nif" in json.loads((path / "report.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def without_cameras(path: Path) -> str | None:
    """Whether a path is "photographs" (a folder of them, no mesh among them), a "video", or neither."""
    if path.is_file():
        return "video" if path.suffix.lower() in VIDEOS else None
    suffixes = {file.suffix.lower() for file in _below(path) if _no_cloud(file)} if path.is_dir() else set()
    return "photographs" if suffixes & {*IMAGES, *RAW} and not suffixes & set(MESHES) else None


def _no_cloud(file: Path) -> bool:
    """A cloud of points lies beside photographs whose cameras are known."""
    return file.suffix.lower() != ".ply" or _ply_has_faces(file)


def with_cameras(path: Path) -> Reading | None:
    """How a folder that has cameras already is read."""
    return next(iter(_scenes(path)), None)


def _datasets(path: Path) -> list[Reading]:
    if (path / "SdfSamples").is_dir():
        return [Reading("samples of DeepSDF", "deepsdf", "deepsdf", path, "data.root")]
    what = "occupancies as of occupancy networks"
    names = ("points.npz", "pointcloud.npz")
    if any(next(path.glob(f"*/*/{name}"), None) for name in names):
        return [Reading(what, "occupancy", "onet", path, "data.root")]
    if any(next(path.glob(f"*/{name}"), None) for name in names):
        full = path.resolve()
        classes = (f"data.classes=[{full.name}]",)
        return [Reading(what, "occupancy", "onet", full.parent, "data.root", more=classes)]
    return []


def _below(path: Path) -> Iterator[Path]:
    seen = 0
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and not name.startswith("__MACOSX"):
                yield Path(folder, name)
        seen += len(files)
        if seen > MOST:
            return


def _files(path: Path) -> list[Reading]:
    """By the files in a folder; those of one suffix are taken to be of one kind, which the first says."""
    kinds: dict[str, list[Path]] = {}
    of_suffix: dict[str, str | None] = {}
    for file in _below(path):
        suffix = file.suffix.lower()
        if suffix not in of_suffix:
            try:
                known = suffix in SUFFIXES and suffix != ".json" and file.is_file()
                of_suffix[suffix] = _kind(file) if known else None
            except (NifError, OSError, struct.error):
                of_suffix[suffix] = None
        if kind := of_suffix[suffix]:
            kinds.setdefault(kind, []).append(file)
    if "mesh" in kinds:
        kinds.pop("image", None)  # its textures
    readings = []
    for kind, files in kinds.items():
        readings += _many(path, kind, files) if len(files) > 1 or kind == "grids" else [_file(files[0])]
    if not readings:
        raise NifError(
            f"{path}: nothing in this folder is recognised as data (looked for {', '.join(SUFFIXES[:-1])}, "
            "scenes with cameras, trees of DeepSDF and of occupancy networks); nif help data shows what is "
            "read"
        )
    return readings


def _many(path: Path, kind: str, files: list[Path]) -> list[Reading]:
    count = f"{len(files):,}{'+' if len(files) > MOST else ''}"
    if kind == "mesh":
        return [Reading(f"{count} meshes", "deepsdf", "meshes", path, others=(("texture", "textured"),))]
    if kind in ("grid", "grids"):
        return [Reading(f"{count} file{'s' * (len(files) > 1)} of voxels", "deepsdf", "voxels", path)]
    if kind == "image":
        return [
            Reading(f"{count} images, a network that becomes any of them", "metasdf", "image", path),
            Reading("the first of them", "image", "image", files[0], others=(("curve", "curve"),)),
        ]
    if kind == "cloud":
        return [Reading("the first of its point clouds", "sdf", "points", files[0], experiment="sdf_sal")]
    return [Reading("the first of its drawings", "curve", "curve", files[0])]
