"""Point clouds in files of users: columns of text, arrays, and what their normals say."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from nif_cli import NifError
from nif_cli.data.shapes.samples import Scan

INWARDS = (
    "most of its normals point inwards: turn_normals=true turns them (of training: data.turn_normals=true)"
)


def has_faces(path: Path) -> bool:
    with path.open("rb") as file:
        for line in file.read(4096).split(b"\n"):
            words = line.split()
            if words[:2] == [b"element", b"face"]:
                return words[2:] != [b"0"]
            if words[:1] == [b"end_header"]:
                break
    return False


def read_xyz(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is refused below, as one of too few points
            return np.loadtxt(
                path,
                np.float64,
                ndmin=2,
                comments=("#", "//"),
                delimiter="," if "," in _first(path) else None,
            )
    except ValueError as error:
        raise NifError(
            f"{path}: not a point cloud: lines of x y z, x y z nx ny nz or x y z r g b are read"
        ) from error


def _first(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(500).decode("latin-1")


def scan_of(path: Path, table: np.ndarray, named: bool = False) -> tuple[Scan, list[str], list[str]]:
    """A cloud [P, 3], or [P, 6]: with normals if they are `named` so, or are unit vectors; else with colours.
    Also what is to be said of it, and what of that is doubtful."""
    notes, doubts = [], []
    if table.ndim == 2 and table.shape[1] == 6 and table.dtype.kind in "fiu" and not named:
        extra = np.asarray(table[np.isfinite(table).all(1), 3:], np.float64)
        length = np.linalg.norm(extra, axis=1)
        if len(extra) and not (length == 0).any() and np.mean(np.abs(length - 1) < 0.02) < 0.99:
            if extra.min() < 0 or extra.max() > 65535:
                raise NifError(
                    f"{path}: columns 4 to 6 are no normals (lengths {length.min():.3g} to "
                    f"{length.max():.3g}, not 1) and "
                    "no colours (some are negative); leave them out, or scale them to unit length"
                )
            notes.append("columns 4 to 6 are colours (not of unit length, as normals are): left aside")
            table = table[:, :3]
    scan = _cloud(path, table)
    if scan.normals is not None and inward(scan.points, scan.normals):
        doubts.append(INWARDS)
    return scan, notes + doubts, doubts


def inward(points: Float[np.ndarray, "P 3"], normals: Float[np.ndarray, "P 3"]) -> bool:
    """Whether the normals of a cloud point inwards: the flux of (p - middle) through its surface, each point
    with the area that its neighbours leave it, is three times the volume (divergence theorem), negative
    then."""
    away = points - np.median(points, axis=0)
    distance, _ = KDTree(away).query(away, min(9, len(away)))
    area = distance[:, -1] ** 2
    reach = float((area * np.linalg.norm(away, axis=1)).sum())
    return float((area * (away * normals).sum(1)).sum()) < -0.1 * reach


def _cloud(path: Path, table: np.ndarray, least: int = 16) -> Scan:
    """[P, 3] points or [P, 6] points with normals, from a file."""
    if table.ndim != 2 or table.shape[1] not in (3, 6) or table.dtype.kind not in "fiu":
        raise NifError(
            f"{path}: its array is {table.dtype} {list(table.shape)}; a point cloud is [P, 3], or [P, 6] "
            "with normals"
        )
    good = np.isfinite(table).all(1)
    points = table[good, :3].astype(np.float64)
    if len(points) < least:
        dropped = f" ({(~good).sum():,} rows with NaN dropped)" if not good.all() else ""
        raise NifError(
            f"{path}: {len(points)} points{dropped}: too few to say what the shape is; at least {least}"
        )
    extent, farthest = float(np.ptp(points, axis=0).max()), float(np.abs(points).max())
    if not 1e-30 < extent < 1e30 or farthest > 1e30:
        raise NifError(
            f"{path}: degenerate, its longest side is {extent:g}, its farthest point at {farthest:g}"
        )
    normals = None
    if table.shape[1] == 6:
        given = table[good, 3:].astype(np.float64)
        length = np.linalg.norm(given, axis=1, keepdims=True)
        if not ((length > 1e-30) & (length < 1e30)).all():
            wrong = int((~((length > 1e-30) & (length < 1e30))).sum())
            raise NifError(
                f"{path}: {wrong:,} normals are zero or endless; leave them out (three columns) or mend them"
            )
        normals = (given / length).astype(np.float32)
    # in float64 until it is normalised: a user's units may be far from the origin
    return Scan(points, normals)
