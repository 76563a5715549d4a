"""Shapes that come as meshes: sampled when training starts, and kept in a cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh

from nif_cli import NifError
from nif_cli.data.memory import cache_folder
from nif_cli.data.report import Report, doubt
from nif_cli.data.shapes.conditioning import mesh_images, mesh_voxels, view_poses
from nif_cli.data.shapes.datamodule import ShapeData, Source
from nif_cli.data.shapes.samples import Images, Known, ShapeSamples, VoxelGrid
from nif_cli.geometry.distance import signed_samples
from nif_cli.geometry.mesh import MeshReport, inspect_mesh, load_mesh, mesh_files
from nif_cli.geometry.transform import SPACES, unit_ball
from nif_cli.metrics.protocols import Truth
from nif_cli.untrusted import read_npz

CACHE_FORMAT = "3"  # part of every key: raise it when the sampling changes
FARTHEST = 1e3  # standard deviation, in radii of the shape's ball


class MeshData(ShapeData):
    """Samples of meshes in the unit ball: `samples` points of known distance and `surface_samples` points
    with normals."""

    def __init__(
        self,
        samples: int = 500_000,
        surface_samples: int = 100_000,
        spread: Sequence[float] = (0.0707, 0.0224, 0.005),
        uniform: float = 0.1,
        batch_points: int = 8192,
        batch_shapes: int = 16,
        seed: int = 0,
        **settings,
    ):
        super().__init__(batch_points, batch_shapes, seed, **settings)
        if samples < 2:
            raise ValueError(f"samples={samples}: too few")
        if surface_samples < 0 or not 0 <= uniform <= 1:
            raise ValueError("surface_samples must be >= 0, uniform in [0, 1]")
        if not spread or not all(0 <= deviation <= FARTHEST for deviation in spread):  # NaN is never between
            raise ValueError(f"spread must be a list of standard deviations, each between 0 and {FARTHEST:g}")
        self.samples, self.surface_samples = samples, surface_samples
        self.spread, self.uniform = tuple(spread), uniform

    @abstractmethod
    def meshes(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        """(instance id, how its mesh is read: merged by position, in its own units), each id once."""

    def sources(self) -> list[Source]:
        return self.sampled(self.meshes())

    def sampled(self, meshes: list[tuple[str, Callable[[], trimesh.Trimesh]]]) -> list[Source]:
        return [(id, partial(self._sample, id, read)) for id, read in meshes]

    def truth(self, id: str) -> Truth:
        return Truth(dict(self.meshes())[id]())

    def _sample(self, id: str, read: Callable[[], trimesh.Trimesh]) -> ShapeSamples:
        mesh = read()
        transform = unit_ball(mesh.vertices)
        vertices = transform.to_normalised(mesh.vertices)
        faces = np.ascontiguousarray(mesh.faces, np.int64)
        report = _report(inspect_mesh(mesh))
        settings = (CACHE_FORMAT, self.samples, self.surface_samples, self.spread, self.uniform, self.seed)
        shape = vertices.tobytes() + faces.tobytes()
        key = hashlib.sha256(repr(settings).encode() + shape).hexdigest()[:32]
        arrays = _cached(key)
        if arrays is None:
            rng = np.random.default_rng([self.seed, int(key[:8], 16)])
            points, distance, surface, normals = signed_samples(
                trimesh.Trimesh(vertices, faces, process=False),
                self.samples,
                self.surface_samples,
                self.spread,
                self.uniform,
                rng,
            )
            arrays = {"points": points, "distance": distance, "surface": surface, "normals": normals}
            _keep(key, arrays)
        if not (arrays["distance"] > 0).any():
            report += doubt("; no point is inside: a surface without volume")
        seen = self._seen(trimesh.Trimesh(vertices, faces, process=False), shape)
        return ShapeSamples(id, transform, report=report, known=seen, **arrays)  # type: ignore[arg-type]

    def _seen(self, mesh: trimesh.Trimesh, shape: bytes) -> Known | None:
        """The images or voxels that a model wants to be shown of a mesh in the unit ball, made once and
        kept."""
        look = self.needs.conditioning
        if look is None or look.kind == "points":
            return None
        settings = (CACHE_FORMAT, look.kind, look.size, look.views, self.seed)
        key = hashlib.sha256(repr(settings).encode() + shape).hexdigest()[:32]
        name = "pixels" if look.kind == "image" else "occupied"
        arrays = _cached(key, (name,))
        if arrays is None:
            if look.kind == "image":
                poses = view_poses(
                    look.views, self.space, np.random.default_rng([self.seed, int(key[:8], 16)])
                )
                arrays = {name: mesh_images(mesh, poses, look.size)}
            else:
                arrays = {name: mesh_voxels(mesh, SPACES[self.space][1], look.size)}
            _keep(key, arrays)
        if look.kind == "image":
            return Known(images=Images(arrays[name]))
        return Known(voxels=VoxelGrid(arrays[name]))


def _report(found: MeshReport) -> Report:
    """Of a mesh: what its line says is doubtful where the signs are, or where the file was mended."""
    signs = not found.watertight or found.volume < 0
    return Report(str(found), tuple(found.doubts if signs else found.notes))


class Folder(MeshData):
    """One file, or all in a folder, in the order of their names. The last `test` shapes are held out:
    split=train is the others, split=test those, split=all everything."""

    def __init__(
        self, path: str, test: int = 0, split: Literal["train", "test", "all"] = "train", **settings
    ):
        super().__init__(**settings)
        if test < 0:
            raise ValueError(f"test={test}: must be 0 or more")
        self.path, self.test, self.split = Path(path).expanduser(), test, split

    @abstractmethod
    def everything(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        """All shapes of the file or folder, whatever the split."""

    def test_sources(self) -> list[Source]:
        return self.sampled(self.meshes("test")) if self.test and self.split != "test" else []

    def meshes(self, split: str | None = None) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        """Those of `split`; by default of the data's own."""
        found, split = self.everything(), split or self.split
        train = len(found) - self.test
        if split != "all" and train < 1:
            raise NifError(
                f"data.test={self.test}: {self.path} has {len(found)} shapes, so none is left to train on"
            )
        if split == "test" and not self.test:
            raise NifError(f"data.split=test: no shape of {self.path} is held out; give data.test=<count>")
        return found if split == "all" else found[train:] if split == "test" else found[:train]


class Meshes(Folder):
    """Mesh files; an instance is called by its file's path below the folder, without the suffix."""

    def everything(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        base = self.path if self.path.is_dir() else self.path.parent
        return [
            (f.relative_to(base).with_suffix("").as_posix(), partial(load_mesh, f))
            for f in mesh_files(self.path)
        ]


def _cached(
    key: str, names: Sequence[str] = ("points", "distance", "surface", "normals")
) -> dict[str, np.ndarray] | None:
    try:
        return read_npz(cache_folder() / "samples" / f"{key}.npz", names, "samples")
    except NifError:  # one that is not there, or damaged, is made again
        return None


def _keep(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Into the cache, atomically; a cache that cannot be written is no reason to stop."""
    temporary = None
    folder = cache_folder() / "samples"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, folder / f"{key}.npz")
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        warnings.warn(f"samples are not cached: {error}", stacklevel=2)
