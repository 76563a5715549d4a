"""Occupancy grids in files: binvox, npy, npz, and npz whose bits are packed (`occupancy` or another array,
with `shape`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from nif_cli import NifError
from nif_cli.files import write
from nif_cli.geometry.transform import Transform
from nif_cli.untrusted import npz_headers, number, read_npy, read_npz, reading, regular, shown

MOST = 2**27  # voxels of one grid
READABLE = (".binvox", ".npy", ".npz")
Grid = tuple[Bool[np.ndarray, "X Y Z"], Transform]


@dataclass
class Grids:
    """The grids of one file: `read(row)` gives the occupancy and the transform from the user's units to
    voxels, where the centre of voxel (i, j, k) lies at (i, j, k). Without units of its own a grid spans +-0.5
    along its longest side."""

    count: int
    single: bool
    read: Callable[[int], Grid]

    def __len__(self) -> int:
        return self.count


def grid_files(path: Path) -> list[Path]:
    """`path` itself, or the grids below it (sorted). NifError when there are none."""
    if not path.exists():
        raise NifError(f"no such file or folder: {path}")
    if path.is_file():
        if path.suffix.lower() not in READABLE:
            raise NifError(f"{path}: '{path.suffix}' is no voxel format; readable are {', '.join(READABLE)}")
        return [path]
    files = sorted(
        p
        for p in path.rglob("*")
        if p.suffix.lower() in READABLE and p.is_file() and not p.name.startswith(".")
    )
    if not files:
        raise NifError(f"{path}: no voxel grids in this folder (looked for {', '.join(READABLE)})")
    return files


def read_grids(path: Path) -> Grids:
    """The grids of one file, still packed where they were. NifError names a file that holds something
    else."""
    if path.suffix.lower() == ".binvox":
        return Grids(1, True, lambda row: read_binvox(path))
    shape = None
    if path.suffix.lower() == ".npy":
        name, array = "", read_npy(path, "a voxel grid", mapped=True)
    else:
        name = _grid_name(path, [n for n in npz_headers(path, "a voxel grid") if n != "shape"])
        arrays = read_npz(path, (name, "shape?"), "a voxel grid")
        array, shape = arrays[name], arrays.get("shape")
    if shape is not None:
        if (
            shape.ndim != 1
            or len(shape) not in (3, 4)
            or not np.issubdtype(shape.dtype, np.integer)
            or (shape < 1).any()
        ):
            raise NifError(
                f"{path}: 'shape' must be 3 or 4 positive whole numbers; it is "
                f"{shape.tolist() if shape.size < 9 else '...'}"
            )
        size = int(np.prod(shape, dtype=object))
        if array.dtype != np.uint8 or array.ndim != 1 or len(array) != -(-size // 8):
            raise NifError(
                f"{path}: '{name}' must be {-(-size // 8):,} packed bytes for shape {shape.tolist()}; "
                f"it is {array.dtype} {list(array.shape)}"
            )
        full = tuple(int(n) for n in shape)
    else:
        if array.ndim not in (3, 4) or 0 in array.shape:
            raise NifError(
                f"{path}: '{name or 'array'}' has shape {list(array.shape)}; "
                "grids are [X, Y, Z] or [S, X, Y, Z], or packed bits with 'shape'"
            )
        if array.dtype != bool and not np.issubdtype(array.dtype, np.number):
            raise NifError(
                f"{path}: '{name or 'array'}' is of type {array.dtype}; grids hold booleans or numbers"
            )
        full = array.shape
    one = full[-3:]
    _check_size(path, one)

    def read(row: int) -> Grid:
        size = int(np.prod(one))
        if shape is not None:
            first = row * size // 8
            bits = np.unpackbits(array[first : -(-(row + 1) * size // 8)])
            grid = bits[row * size - first * 8 :][:size].reshape(one).astype(bool)
        else:
            grid = np.asarray(array[row] if len(full) == 4 else array)
            if grid.dtype.kind == "c" or not np.isfinite(grid).all():
                raise NifError(f"{path}: grid {row} holds NaN or infinite values")
            grid = grid > 0.5 if np.issubdtype(grid.dtype, np.floating) else grid.astype(bool)
        return grid, _centred(one)

    return Grids(full[0] if len(full) == 4 else 1, len(full) == 3, read)


def _check_size(path: Path, one: tuple[int, ...]) -> None:
    """NifError for a grid that has more voxels than can be made a mesh of: a few bytes of run lengths stand
    for many."""
    if math.prod(one) > MOST:
        size = " x ".join(map(str, one))
        raise NifError(f"{path}: a grid of {size} voxels; at most {MOST:,} (512^3) are read: make it coarser")


def _grid_name(path: Path, names: list[str]) -> str:
    for name in ("occupancy", "occupancies", "voxels", "data", "arr_0"):
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    there = shown(", ".join(names[:8]), 200) or "nothing"
    raise NifError(f"{path}: no grid in it: an array 'occupancy' or 'voxels' is needed, it has {there}")


def _centred(shape: tuple[int, ...]) -> Transform:
    longest = max(shape)
    x, y, z = ((n / longest - 1 / longest) / 2 for n in shape)
    return Transform((x, y, z), float(longest))


def read_binvox(path: Path) -> Grid:
    """Patrick Min's format: run lengths in the order x, z, y; a voxel's centre is (index + 0.5) / dim * scale
    + translate."""
    with reading(regular(path), "a binvox file"):
        raw = path.read_bytes()
    head, found, data = raw.partition(b"data\n")
    if not found or len(head) > 1000 or head.split()[:1] != [b"#binvox"]:
        raise NifError(
            f"{path}: not a binvox file (it does not begin with '#binvox', a short header and 'data')"
        )
    keys = {
        line[0]: line[1:] for line in map(str.split, head.decode("ascii", "replace").splitlines()) if line
    }
    try:
        nx, nz, ny = (int(n) for n in keys["dim"])
        x, y, z = (number(float(v), f"{path}: translate") for v in keys.get("translate", ["0", "0", "0"]))
        scale = number(float(keys.get("scale", ["1"])[0]), f"{path}: scale", 1e-12)
    except (KeyError, ValueError, IndexError) as error:
        raise NifError(f"{path}: damaged header: dim, translate and scale are needed, as numbers") from error
    runs = np.frombuffer(data, np.uint8)
    total = int(runs[1::2].sum(dtype=np.int64))
    if len(runs) % 2 or min(nx, ny, nz) < 1 or total != nx * ny * nz:
        dim = shown(f"{nx} x {nz} x {ny}", 60)
        raise NifError(f"{path}: truncated or damaged: {total:,} voxels where its header says {dim}")
    _check_size(path, (nx, ny, nz))
    grid = np.repeat(runs[::2] > 0, runs[1::2]).reshape(nx, nz, ny).transpose(0, 2, 1)
    side = scale / max(nx, ny, nz)
    return grid, Transform((-(x + 0.5 * side), -(y + 0.5 * side), -(z + 0.5 * side)), 1 / side)


def write_binvox(path: Path, grid: Bool[np.ndarray, "X Y Z"], transform: Transform | None = None) -> None:
    """A binvox file; `transform` leads from the user's units to voxels, as `read_binvox` gives it."""
    transform = transform or _centred(grid.shape)
    side = 1 / transform.scale
    corner = [-o - 0.5 * side for o in transform.offset]
    flat = np.ascontiguousarray(grid.transpose(0, 2, 1)).reshape(-1).astype(np.uint8)
    ends = np.concatenate((np.flatnonzero(np.diff(flat)) + 1, [len(flat)]))
    runs = bytearray()
    start = 0
    for end in ends.tolist():
        value, length = int(flat[start]), end - start
        runs += bytes((value, 255)) * (length // 255)
        if length % 255:
            runs += bytes((value, length % 255))
        start = end
    nx, ny, nz = grid.shape
    head = (
        f"#binvox 1\ndim {nx} {nz} {ny}\ntranslate {' '.join(map(repr, corner))}\nscale "
        f"{side * max(grid.shape)!r}\ndata\n"
    )
    write(path, head.encode() + bytes(runs))
