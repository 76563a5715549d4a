"""Data modules of shapes: a source makes ShapeSamples, the pool keeps them on the device, batches are drawn there."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
import trimesh
from torch.utils.data import DataLoader
from tqdm import tqdm

from nif_cli import NifError
from nif_cli.data.samples import ShapeBatch, ShapePool, ShapeSamples
from nif_cli.data.toy import FAMILIES, toy_shape
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.mesh import clean, inspect_mesh, load_mesh, mesh_files, unit_ball
from nif_cli.geometry.sampling import sample_around, sample_surface

CACHE_FORMAT = "2"  # part of every key: raise it when the sampling changes


class ShapeData(pl.LightningDataModule):
    """Batches of shapes for training. `samples` points of known distance and `surface_samples` points with normals are
    made for each shape; a batch holds `batch_points` points of at most `batch_shapes` shapes.

    What a batch holds is a function of (seed, number of the batch): a resumed run draws what the uninterrupted one would.
    """

    epoch_batches = 500  # Lightning's epoch: how often the held-out points are looked at, at most

    def __init__(
        self,
        samples: int = 500_000,
        surface_samples: int = 100_000,
        spread: Sequence[float] = (0.0707, 0.0224, 0.005),
        uniform: float = 0.1,
        batch_points: int = 8192,
        batch_shapes: int = 16,
        seed: int = 0,
    ):
        super().__init__()
        for name, value in dict(samples=samples, batch_points=batch_points, batch_shapes=batch_shapes).items():
            if value < 2 - (name == "batch_shapes"):
                raise ValueError(f"{name}={value}: too few")
        if surface_samples < 0 or not 0 <= uniform <= 1 or not spread or min(spread) < 0:
            raise ValueError("surface_samples must be >= 0, uniform in [0, 1], spread a list of standard deviations")
        self.samples, self.surface_samples = samples, surface_samples
        self.spread, self.uniform = tuple(spread), uniform
        self.batch_points, self.batch_shapes, self.seed = batch_points, batch_shapes, seed
        self.shapes: list[ShapeSamples] = []
        self.pool: ShapePool | None = None
        self.surface_batch_points = 0  # a model that learns from surfaces asks for them

    @abstractmethod
    def sources(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        """(instance id, how its mesh is read: merged by position, in its own units), each id once."""

    def prepare(self) -> list[ShapeSamples]:
        """Read, normalise and sample every shape, in parallel; what was sampled before comes from the cache."""
        if self.shapes:
            return self.shapes
        sources = self.sources()
        ids = [id for id, _ in sources]
        twice = sorted({id for id in ids if ids.count(id) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise NifError(f"two instances are called '{twice[0]}'; rename a file (an instance is called by its file's stem)")
        # libigl uses every core by itself; two shapes at a time hide the reading of files
        with ThreadPoolExecutor(2) as threads:
            results = threads.map(lambda item: self._sample(*item), sources)
            self.shapes = list(tqdm(results, "sampling", len(sources), unit=" shape", leave=False, disable=None, delay=1))
        return self.shapes

    def _sample(self, id: str, read: Callable[[], trimesh.Trimesh]) -> ShapeSamples:
        mesh = read()
        transform = unit_ball(mesh.vertices)
        vertices = transform.to_normalised(mesh.vertices)
        faces = np.ascontiguousarray(mesh.faces, np.int64)
        report = str(inspect_mesh(mesh))
        settings = (CACHE_FORMAT, self.samples, self.surface_samples, self.spread, self.uniform, self.seed)
        key = hashlib.sha256(repr(settings).encode() + vertices.tobytes() + faces.tobytes()).hexdigest()[:32]
        arrays = _cached(key)
        if arrays is None:
            rng = np.random.default_rng([self.seed, int(key[:8], 16)])
            normalised = trimesh.Trimesh(vertices, faces, process=False)
            surface, normals = sample_surface(normalised, max(self.samples, self.surface_samples), rng)
            points = sample_around(surface, self.samples, self.spread, self.uniform, rng).astype(np.float32)
            distance = MeshDistance(vertices, faces).signed(points)
            arrays = {
                "points": points,
                "distance": distance.astype(np.float32),
                "surface": surface[: self.surface_samples].astype(np.float32),
                "normals": normals[: self.surface_samples].astype(np.float32),
            }
            _keep(key, arrays)
        if not (arrays["distance"] > 0).any():
            report += "; no point is inside: a surface without volume"
        return ShapeSamples(id, transform, report=report, **arrays)

    def setup(self, stage: str | None = None) -> None:
        self.prepare()

    def make_pool(self, device: torch.device) -> ShapePool:
        """The pool on the training device; made once."""
        if self.pool is None or self.pool.device != device:
            self.pool = ShapePool(self.prepare(), device, self.seed)
        return self.pool

    def transfer_batch_to_device(self, batch: ShapeBatch, device: torch.device, dataloader_idx: int) -> ShapeBatch:
        return batch  # drawn where it is needed

    def train_dataloader(self) -> Batches:
        assert self.trainer is not None
        return Batches(self, self.trainer.strategy.root_device)

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        pool = self.make_pool(self.trainer.strategy.root_device)
        rows = list(range(min(len(pool), 64)))
        batches = [pool.held_out(rows[i : i + 16], 2048) for i in range(0, len(rows), 16)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class Batches:
    """An endless supply of batches, `epoch_batches` at a time; batch k depends on (seed, k) only."""

    def __init__(self, data: ShapeData, device: torch.device):
        self.data, self.pool = data, data.make_pool(device)
        self.generator = torch.Generator(device)
        self.order = torch.Generator()

    def __len__(self) -> int:
        return self.data.epoch_batches

    def __iter__(self) -> Iterator[ShapeBatch]:
        trainer = self.data.trainer
        assert trainer is not None
        first = trainer.fit_loop.epoch_loop.total_batch_idx + 1  # the batches that this run, or the resumed one, has had
        for k in count(first):  # Lightning stops after len(self)
            yield self.batch(k)

    def batch(self, k: int) -> ShapeBatch:
        """Batch number k: shapes go round in an order that is shuffled anew each round, none twice in a batch."""
        total, size = len(self.pool), min(self.data.batch_shapes, len(self.pool))
        per_round = total // size
        self.order.manual_seed(self.data.seed * 1_000_003 + k // per_round)
        rows = torch.randperm(total, generator=self.order)[(k % per_round) * size :][:size].to(self.pool.device)
        self.generator.manual_seed(self.data.seed * 7_368_787 + k + 1)
        surface = self.data.surface_batch_points // size
        return self.pool.draw(rows, max(2, self.data.batch_points // size), surface, self.generator)


class Meshes(ShapeData):
    """One mesh file, or all in a folder; an instance is called by its file's path below the folder, without the suffix."""

    def __init__(self, path: str, **settings):
        super().__init__(**settings)
        self.path = Path(path).expanduser()

    def sources(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        base = self.path if self.path.is_dir() else self.path.parent
        return [(f.relative_to(base).with_suffix("").as_posix(), partial(load_mesh, f)) for f in mesh_files(self.path)]


class ToyShapes(ShapeData):
    """`count` shapes of the `families` for split=train, `test` others for split=test: nothing to download."""

    def __init__(
        self,
        count: int = 12,
        test: int = 4,
        families: Sequence[str] = FAMILIES,
        split: Literal["train", "test"] = "train",
        **settings,
    ):
        super().__init__(**settings)
        if count < 1 or test < 0 or not families:
            raise ValueError(f"count={count}, test={test}, families={list(families)}: at least one shape of one family")
        wrong = [f for f in families if f not in FAMILIES]
        if wrong:
            raise ValueError(f"families: no family '{wrong[0]}'; there are {', '.join(FAMILIES)}")
        self.seeds = range(count) if split == "train" else range(2**31, 2**31 + test)  # apart however large `count` grows
        self.families, self.split = tuple(families), split

    def sources(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        word = "" if self.split == "train" else "test_"
        found = []
        for i in range(len(self.seeds)):
            family, n = self.families[i % len(self.families)], i // len(self.families)
            found.append((f"{family}/{word}{n:04d}", partial(self.read, family, self.seed * 100_003 + self.seeds.start + n)))
        return found

    @staticmethod
    def read(family: str, seed: int) -> trimesh.Trimesh:
        return clean(toy_shape(family, seed), f"toy {family} {seed}")


def _cache_folder() -> Path:
    base = os.environ.get("NIF_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "nif")
    return Path(base).expanduser() / "samples"


def _cached(key: str) -> dict[str, np.ndarray] | None:
    try:
        with np.load(_cache_folder() / f"{key}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in ("points", "distance", "surface", "normals")}
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file is made again
        return None


def _keep(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Into the cache, atomically; a cache that cannot be written is no reason to stop."""
    temporary = None
    try:
        _cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=_cache_folder(), suffix=".part", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, _cache_folder() / f"{key}.npz")
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        warnings.warn(f"samples are not cached: {error}", stacklevel=2)

