"""The tree of occupancy networks (Mescheder et al. 2019, autonomousvision/occupancy_networks), read and
written.

    <class>/<id>/points.npz      points (float16), occupancies (packed bits), loc, scale
    <class>/<id>/pointcloud.npz  points, normals (float16), loc, scale
    <class>/<id>/img_choy2016/   000.jpg ... and cameras.npz;  <class>/<id>/model.binvox
    <class>/{train,val,test}.lst, metadata.yaml

The normalised space is the files' own, a cube with the shape's longest side 1: p = normalised * scale + loc.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Bool, Float

from nif_cli import NifError
from nif_cli.data.report import Report
from nif_cli.data.shapes.samples import ImageFiles, Known, Scan, ShapeSamples
from nif_cli.files import check_array, write, write_npz
from nif_cli.geometry.transform import Transform
from nif_cli.untrusted import number, read_npz, reading, regular, shown

FARTHEST = 1e30  # offsets and scales of meshes that can be computed with
JITTER = 1e-4  # added to points stored as float16, as the published loader does: 16 bits are a grid


@dataclass(frozen=True)
class OnetEntry:
    """One shape of a tree."""

    category: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.category}/{self.name}"


class OnetTree:
    """A tree on disk; `root`, or the onet folder that nif prepare made in it."""

    def __init__(self, root: str | Path):
        path = Path(root).expanduser()
        if not path.is_dir():
            raise NifError(f"{root}: no such folder")
        here = self._categories(path)
        self.root = path if here or not self._categories(path / "onet") else path / "onet"
        self.categories = self._categories(self.root)
        if not self.categories:
            raise NifError(
                f"{root}: no <class>/<id>/points.npz or pointcloud.npz in it, so it is no tree of "
                "occupancy networks"
            )

    @staticmethod
    def _categories(path: Path) -> list[str]:
        found = {
            f.parent.parent.name
            for name in ("points.npz", "pointcloud.npz")
            for f in path.glob(f"*/*/{name}")
        }
        return sorted(found)

    def entries(self, categories: Sequence[str] | None = None, split: str | None = None) -> list[OnetEntry]:
        """The shapes of the classes (all by default) in <class>/<split>.lst, or in their folders where there
        is no such file and none was asked for by name. NifError lists every one that is missing."""
        wrong = [c for c in categories or () if c not in self.categories]
        if wrong:
            raise NifError(
                f"data.classes: no '{wrong[0]}' in {self.root}; it has {', '.join(self.categories[:10])}"
            )
        found, missing = [], []
        for category in categories or self.categories:
            folder = self.root / category
            listed = sorted(
                p.name
                for p in folder.iterdir()
                if (p / "points.npz").is_file() or (p / "pointcloud.npz").is_file()
            )
            if split is not None:
                path = folder / f"{split}.lst"
                if not path.is_file():
                    raise NifError(
                        f"{path}: no such split; there are "
                        f"{', '.join(sorted(p.stem for p in folder.glob('*.lst'))) or 'none'}"
                    )
                there = set(listed)
                with reading(regular(path), "a list of shapes"):
                    listed = [line.strip() for line in path.read_text().splitlines() if line.strip()]
                missing += [f"{category}/{name}" for name in listed if name not in there]
            found += [OnetEntry(category, name) for name in listed]
        if missing:
            raise NifError(
                f"{self.root}: {len(missing)} of the {len(found)} shapes of split={split} are not there: "
                + shown(", ".join(missing), 300)
            )
        if not found:
            raise NifError(f"{self.root}: no shapes in split={split}")
        return found

    def read(self, entry: OnetEntry) -> ShapeSamples:
        """One shape; without points.npz it has a surface only."""
        folder = self.root / entry.category / entry.name
        transform, notes = None, []
        points, inside = np.empty((0, 3), np.float32), None
        if (folder / "points.npz").is_file():
            points, inside, transform = read_points(folder / "points.npz")
            notes.append(f"{len(points):,} points, {inside.mean():.1%} inside")
        else:
            notes.append("no points.npz, so no occupancies")
        known, its = self._known(folder)
        transform = transform or its
        known = known.moved(its, transform)
        surface, normals = (known.scan.points, known.scan.normals) if known.scan else (None, None)
        return ShapeSamples(
            entry.id, transform, points, None, inside, surface, normals, Report("; ".join(notes)), known
        )

    def known(self, id: str, transform: Transform) -> Known:
        """What the tree shows of an instance, in the normalised space that `transform` leads to. NifError if
        it is not here."""
        category, _, name = id.rpartition("/")
        for c in (category, *self.categories):
            folder = self.root / c / name
            if c and (folder / "pointcloud.npz").is_file():
                known, its = self._known(folder)
                return known.moved(its, transform)
        raise NifError(
            f"data.observations: {self.root} has no pointcloud.npz of '{id}' (looked in "
            f"{', '.join(self.categories[:5])})"
        )

    def _known(self, folder: Path) -> tuple[Known, Transform]:
        path = folder / "pointcloud.npz"
        scan, transform = None, Transform()
        if path.is_file():
            arrays = read_npz(
                path, ("points", "normals?", "loc", "scale"), "a point cloud of occupancy networks"
            )
            points = check_array(path, "points", arrays["points"], (None, 3)).astype(np.float32)
            normals = None
            if "normals" in arrays:
                normals = check_array(path, "normals", arrays["normals"], (len(points), 3)).astype(np.float32)
            scan = Scan(points, normals)
            transform = read_transform(path, arrays)
        world = camera = None
        images = sorted((folder / "img_choy2016").glob("*.[jp][pn]g"))
        if images and (folder / "img_choy2016" / "cameras.npz").is_file():
            path = folder / "img_choy2016" / "cameras.npz"
            names = [f"{kind}_mat_{i}" for kind in ("world", "camera") for i in range(len(images))]
            mats = read_npz(path, names, "cameras of occupancy networks")
            shapes = {"world": (3, 4), "camera": (3, 3)}
            world, camera = (
                np.stack([_matrix(path, f"{kind}_mat_{i}", mats, shapes[kind]) for i in range(len(images))])
                for kind in ("world", "camera")
            )
            # theirs start from the user's units, a shape's own space is the normalised one
            back = np.eye(4)
            back[:3, :3] /= transform.scale
            back[:3, 3] = -np.asarray(transform.offset)
            world = world @ back
        voxels = folder / "model.binvox"
        return Known(
            scan=scan,
            images=ImageFiles(images, world, camera) if images else None,
            voxels=voxels if voxels.is_file() else None,
        ), transform


def _matrix(
    path: Path, name: str, arrays: dict[str, np.ndarray], shape: tuple[int, int]
) -> Float[np.ndarray, "3 M"]:
    """A matrix of a camera, of which some files have more rows and columns."""
    whole = check_array(path, name, arrays[name], (None, None)).astype(np.float64)
    return check_array(path, name, whole[: shape[0], : shape[1]], shape)


def read_points(path: Path) -> tuple[Float[np.ndarray, "N 3"], Bool[np.ndarray, "N"], Transform]:
    """points.npz: points (float16 ones jittered, always alike), whether they are inside, and the
    transform."""
    arrays = read_npz(path, ("points", "occupancies", "loc", "scale"), "a points.npz of occupancy networks")
    raw = check_array(path, "points", arrays["points"], (None, 3))
    packed = arrays["occupancies"]
    count = len(raw)
    if count < 2:
        raise NifError(f"{path}: {count} points; prepare the shape again")
    if packed.ndim == 1 and packed.dtype == np.uint8 and len(packed) == -(-count // 8):
        inside = np.unpackbits(packed)[:count].astype(bool)
    elif packed.shape == (count,) and packed.dtype.kind in "bui":
        inside = packed.astype(bool)
    else:
        raise NifError(
            f"{path}: 'occupancies' is {packed.dtype} {list(packed.shape)}; "
            f"for {count:,} points it must be {-(-count // 8):,} packed bytes"
        )
    points = raw.astype(np.float32)
    if raw.dtype == np.float16:
        rng = np.random.default_rng(zlib.crc32(raw.tobytes()))
        points += JITTER * rng.standard_normal(points.shape, np.float32)
    return points, inside, read_transform(path, arrays)


def read_transform(path: Path, arrays: dict[str, np.ndarray]) -> Transform:
    """`loc` [3] and `scale` []: p = normalised * scale + loc."""
    loc = check_array(path, "loc", arrays["loc"].reshape(-1), (3,)).tolist()
    (scale,) = check_array(path, "scale", arrays["scale"].reshape(-1), (1,)).tolist()
    if not scale > 0:
        raise NifError(f"{path}: 'scale' is {scale}; it must be positive")
    x, y, z = (-number(v, f"{path}: 'loc'", -FARTHEST, FARTHEST) for v in loc)
    return Transform((x, y, z), 1 / number(scale, f"{path}: 'scale'", 1 / FARTHEST, FARTHEST))


def write_occupancy_samples(
    root: Path,
    entry: OnetEntry,
    transform: Transform,
    points: Float[np.ndarray, "N 3"],
    inside: Bool[np.ndarray, "N"],
    surface: Float[np.ndarray, "M 3"],
    normals: Float[np.ndarray, "M 3"],
) -> list[Path]:
    """points.npz and pointcloud.npz of one shape, both in its normalised space; points should be float16
    already, so that the occupancies are those of the stored points."""
    folder = root / entry.category / entry.name
    place = {"loc": -np.array(transform.offset), "scale": np.array(1 / transform.scale)}
    write_npz(
        folder / "pointcloud.npz",
        points=surface.astype(np.float16),
        normals=normals.astype(np.float16),
        **place,
    )
    write_npz(
        folder / "points.npz", points=points.astype(np.float16), occupancies=np.packbits(inside), **place
    )
    return [folder / "pointcloud.npz", folder / "points.npz"]


def write_split_lists(root: Path, splits: dict[str, list[OnetEntry]]) -> None:
    """<class>/<split>.lst (without a last line break, which the published loader takes for a shape) and
    metadata.yaml. A split without shapes of a class has no file."""
    categories = sorted({e.category for entries in splits.values() for e in entries})
    for category in categories:
        for name, entries in splits.items():
            names = sorted(e.name for e in entries if e.category == category)
            if names:
                write(root / category / f"{name}.lst", "\n".join(names))
            else:
                (root / category / f"{name}.lst").unlink(missing_ok=True)
    write(root / "metadata.yaml", yaml.safe_dump({c: {"id": c, "name": c} for c in categories}))
