"""What a shape is in memory, whatever file it came from: its samples, and what is seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.spatial import KDTree

from nif_cli import NifError
from nif_cli.data.report import NOTHING, Report
from nif_cli.geometry.sampling import sample_around
from nif_cli.geometry.transform import Transform

Part = TypeVar("Part", bound="_Points")


class _Seen:
    """What the kinds of observation share: their arrays by name, which are a file format."""

    @classmethod
    def names(cls) -> dict[str, str]:
        """The names of its arrays in a checkpoint and in memory: there the points in space are `samples`."""
        space = cls is PointSamples
        return {"samples" if space and f.name == "points" else f.name: f.name for f in fields(cls)}  # type: ignore[arg-type]

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, as a checkpoint keeps them."""
        found = {name: getattr(self, attribute) for name, attribute in self.names().items()}
        return {name: array for name, array in found.items() if array is not None}


class _Points(_Seen):
    """Of those that are points."""

    def part(self: Part, chosen: np.ndarray | slice) -> Part:
        """These of its points, with what is known at them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "free"}  # type: ignore[arg-type]
        return replace(self, **{name: a[chosen] for name, a in own.items() if a is not None})  # type: ignore[type-var]


@dataclass
class PointSamples(_Points):
    """Points anywhere of which the signed `distance` (positive inside) or at least whether they are `inside`
    is known, or (of the plane, in [-1, 1]^2) an image's `colors`. observe=samples."""

    points: Float[np.ndarray, "N D"]
    distance: Float[np.ndarray, "N"] | None = None
    inside: Bool[np.ndarray, "N"] | None = None
    colors: Float[np.ndarray, "N C"] | None = None


@dataclass
class Scan(_Points):
    """Points on the surface, with (observe=oriented) or without (observe=points) unit normals outward."""

    points: Float[np.ndarray, "P 3"]
    normals: Float[np.ndarray, "P 3"] | None = None


@dataclass
class DepthView(_Points):
    """A scan from one side, and points known to be outside: those between a depth camera and what it saw.
    observe=depth."""

    points: Float[np.ndarray, "P 3"]
    free: Float[np.ndarray, "F 3"]
    normals: Float[np.ndarray, "P 3"] | None = None


@dataclass
class Images(_Seen):
    """Images of the shape, sRGB. observe=image."""

    pixels: UInt8[np.ndarray, "V H W C"]


@dataclass
class VoxelGrid(_Seen):
    """Which cells of the cube of the normalised space are inside. observe=voxels."""

    occupied: Bool[np.ndarray, "X Y Z"]


Observation: TypeAlias = PointSamples | Scan | DepthView | Images | VoxelGrid


def observation_of(arrays: Mapping[str, np.ndarray]) -> Observation:
    """The observation whose `arrays()` these are. NifError where they are of no kind, or of several."""
    for kind in (PointSamples, Scan, DepthView, Images, VoxelGrid):
        names = kind.names()
        needed = {f.name for f in fields(kind) if f.default is MISSING}
        if {n for n, attribute in names.items() if attribute in needed} <= arrays.keys() <= names.keys():
            return kind(**{names[name]: array for name, array in arrays.items()})  # type: ignore[arg-type]
    raise NifError(f"{', '.join(arrays)}: no one kind of observation has these arrays")


@dataclass
class ImageFiles:
    """Images that a model loads when it wants them. `world` maps homogeneous points of normalised space to
    each camera (x right, y down, z ahead), `camera` those to homogeneous pixels of its image (the renderings
    of Choy et al. 2016)."""

    paths: list[Path]
    world: Float[np.ndarray, "V 3 4"] | None = None
    camera: Float[np.ndarray, "V 3 3"] | None = None


@dataclass
class Known:
    """All that a source knows of a shape, in its normalised space: one observation of each kind that it has.
    A model is shown one of them (data/shapes/observations.py: `show`)."""

    samples: PointSamples | None = None
    scan: Scan | None = None
    depth: DepthView | None = None
    images: Images | ImageFiles | None = None
    voxels: VoxelGrid | Path | None = None

    def moved(self, old: Transform, new: Transform) -> Known:
        """The same, when the shape's normalised space is `new` and that of what is known is `old`: both know
        the user's units."""
        ratio = new.scale / old.scale
        shift = (np.asarray(new.offset) - np.asarray(old.offset)) * new.scale  # new = old * ratio + shift

        def move(points: np.ndarray) -> np.ndarray:
            return (points * ratio + shift).astype(np.float32)

        samples, scan, depth, images = self.samples, self.scan, self.depth, self.images
        if samples is not None:
            distance = None if samples.distance is None else (samples.distance * ratio).astype(np.float32)
            samples = replace(samples, points=move(samples.points), distance=distance)
        if scan is not None:
            scan = replace(scan, points=move(scan.points))
        if depth is not None:
            depth = replace(depth, points=move(depth.points), free=move(depth.free))
        if isinstance(images, ImageFiles) and images.world is not None:
            back = np.eye(4)
            back[:3, :3] /= ratio
            back[:3, 3] = -shift / ratio
            images = replace(images, world=images.world @ back)
        return Known(samples, scan, depth, images, self.voxels)


@dataclass
class ShapeSamples:
    """One shape in normalised space. `distance` is positive inside; what a source does not know stays None.
    `surface` and `normals` are points on the surface, `colors` theirs (sRGB in [0, 1]); `known` is what else
    its source can show of it. Arrays may lie on disk (memory-mapped). A source that has both `distance` and
    `inside` says by `inside` what counts: a voxel grid's own cells, where the distance is that of a smooth
    surface."""

    id: str
    transform: Transform
    points: Float[np.ndarray, "N 3"]
    distance: Float[np.ndarray, "N"] | None = None
    inside: Bool[np.ndarray, "N"] | None = None
    surface: Float[np.ndarray, "M 3"] | None = None
    normals: Float[np.ndarray, "M 3"] | None = None
    report: Report = NOTHING
    known: Known | None = None
    colors: Float[np.ndarray, "M 3"] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes that a pool keeps of it."""
        return 16 * len(self.points) + (24 * len(self.surface) if self.surface is not None else 0)


def unsigned(shape: ShapeSamples, seed: int, count: int = 500_000) -> ShapeSamples:
    """The shape as SAL sees it: `count` points around its surface points, with minus the distance to the
    nearest of these."""
    assert shape.surface is not None
    rng = np.random.default_rng([seed, 5])
    points = sample_around(np.asarray(shape.surface), count, (0.0707, 0.0224, 0.005), 0.1, rng).astype(
        np.float32
    )
    distance, _ = KDTree(shape.surface).query(points, workers=-1)
    return replace(shape, points=points, distance=-distance.astype(np.float32))
