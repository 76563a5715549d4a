"""What a shape is in memory, whatever file it came from: arrays; and the rays of a batch, which are
tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from nif_cli.geometry.transform import Transform


@dataclass
class Observation:
    """What is seen of a shape, in its normalised space; a source fills in what it has, a model takes what it
    can use.

    `points` (with `normals`, unit, outward) are a scan of the surface; `samples` are points anywhere of which
    the signed `distance` (positive inside) or at least the `inside` is known, or (of the plane, in [-1, 1]^2)
    a picture's `colors`; `free` are points known to be outside, as those between a depth camera and what it
    saw. `pixels` are pictures (sRGB) and `occupied` is a grid over the cube of the normalised space; `images`
    and `voxels` are the same as files, for a model to load when it wants them. `world` maps homogeneous
    points of normalised space to each camera (x right, y down, z ahead), `camera` those to homogeneous pixels
    of its picture (the renderings of Choy et al. 2016)."""

    points: Float[np.ndarray, "P 3"] | None = None
    normals: Float[np.ndarray, "P 3"] | None = None
    samples: Float[np.ndarray, "N D"] | None = None
    distance: Float[np.ndarray, "N"] | None = None
    inside: Bool[np.ndarray, "N"] | None = None
    free: Float[np.ndarray, "F 3"] | None = None
    colors: Float[np.ndarray, "N C"] | None = None
    images: list[Path] = field(default_factory=list)
    pixels: UInt8[np.ndarray, "V H W C"] | None = None
    world: Float[np.ndarray, "V 3 4"] | None = None
    camera: Float[np.ndarray, "V 3 3"] | None = None
    voxels: Path | None = None
    occupied: Bool[np.ndarray, "X Y Z"] | None = None

    def moved(self, old: Transform, new: Transform) -> Observation:
        """The same, when the shape's normalised space is `new` and the observation's is `old`: both know the
        user's units."""
        ratio = new.scale / old.scale
        shift = (np.asarray(new.offset) - np.asarray(old.offset)) * new.scale  # new = old * ratio + shift

        def move(points: np.ndarray | None) -> np.ndarray | None:
            return None if points is None else (points * ratio + shift).astype(np.float32)

        world = None
        if self.world is not None:
            back = np.eye(4)
            back[:3, :3] /= ratio
            back[:3, 3] = -shift / ratio
            world = self.world @ back
        return replace(
            self,
            points=move(self.points),
            samples=move(self.samples),
            distance=None if self.distance is None else (self.distance * ratio).astype(np.float32),
            free=move(self.free),
            world=world,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, as a checkpoint keeps them (files are not kept)."""
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), np.ndarray)}


@dataclass
class ShapeSamples:
    """One shape in normalised space. `distance` is positive inside; what a source does not know stays None.
    `surface` and `normals` are points on the surface, `colors` theirs (sRGB in [0, 1]). Arrays may lie on
    disk (memory-mapped). A source that has both `distance` and `inside` says by `inside` what counts: a voxel
    grid's own cells, where the distance is that of a smooth surface."""

    id: str
    transform: Transform
    points: Float[np.ndarray, "N 3"]
    distance: Float[np.ndarray, "N"] | None = None
    inside: Bool[np.ndarray, "N"] | None = None
    surface: Float[np.ndarray, "M 3"] | None = None
    normals: Float[np.ndarray, "M 3"] | None = None
    report: str = ""
    observation: Observation | None = None
    colors: Float[np.ndarray, "M 3"] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes that a pool keeps of it."""
        return 16 * len(self.points) + (24 * len(self.surface) if self.surface is not None else 0)
