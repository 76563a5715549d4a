"""What strangers' files hold, read with its type, its range and a name for the message. One rule for every
reader: a library's exception becomes one line with the file's name, a value is checked where it is read, and
nothing is unpacked before it is measured."""

from __future__ import annotations

import json
import math
import stat
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nif_cli import NifError
from nif_cli.files import available_memory

LONGEST_NAME = 1000  # characters: longer than any path that a system takes
LARGEST = 1e12  # of lengths, focal lengths and the like: beyond it float32 has nothing left
IMAGES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Pillow's formats that are opened: none that starts a program (EPS does) or plays a film. JPEG's opens MPO
too."""
# pixels a byte of file that a larger image may unpack to: photographs have ten, a PNG of one colour 340
PACKED = 300
FREE_PIXELS = 2**26  # up to here nobody minds
ARRAYS_PACKED = 100  # bytes that a byte of an npz may unpack to, beyond what nobody minds
FREE_BYTES = 2**29
Header = tuple[tuple[int, ...], np.dtype]
"""Shape and type of an array in a file."""


def one_line(error: BaseException, longest: int = 150) -> str:
    """What an exception says, as one line without control characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return shown(text, longest)


def shown(value: object, longest: int = 80) -> str:
    """A stranger's value for a message: no terminal escapes, not longer than one can read."""
    text = "".join(c if c.isprintable() else "?" for c in str(value)[: longest + 1])
    return text if len(text) <= longest else text[:longest] + "..."


def regular(path: Path, what: str = "file") -> Path:
    """The path, if it is a regular file: a pipe or a device would be waited for. NifError otherwise."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise NifError(f"{shown(path, 300)}: no such {what}") from error
    if stat.S_ISDIR(mode):
        raise NifError(f"{shown(path, 300)}: a folder; one {what} is needed")
    if not stat.S_ISREG(mode):
        raise NifError(f"{shown(path, 300)}: not a regular file (a pipe or a device); one {what} is needed")
    return path


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """The boundary of a reader: whatever a library throws over a damaged file becomes one line that names the
    file; `what` says what it should have been ('an OBJ mesh')."""
    try:
        yield
    except NifError:
        raise
    except MemoryError as error:
        raise NifError(f"{shown(path, 300)}: does not fit in memory") from error
    except RecursionError as error:
        raise NifError(f"{shown(path, 300)}: cannot be read as {what}: nested too deeply") from error
    except Exception as error:
        raise NifError(f"{shown(path, 300)}: cannot be read as {what}: {one_line(error)}") from error


def read_json(path: Path, what: str, kind: type = dict) -> Any:
    """A JSON file whose outermost value is of `kind`. NifError for anything else, also for one that would
    fill the memory."""
    size = regular(path).stat().st_size
    if 20 * size > available_memory():
        raise NifError(f"{path}: {size / 2**30:.1f} GiB of JSON do not fit in memory")
    with reading(path, what):
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:  # not JSON, not UTF-8, a whole number of thousands of digits
            raise NifError(f"{path}: not JSON ({one_line(error, 100)})") from error
    if not isinstance(found, kind):
        raise NifError(f"{path}: it holds a {type(found).__name__}; {what} is a {kind.__name__}")
    return found


def number(value: Any, where: str, low: float = -LARGEST, high: float = LARGEST) -> float:
    """A finite number between `low` and `high`, both allowed; `where` is file and key, for the message."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise NifError(f"{where} is {shown(repr(value))}; it must be a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not low <= found <= high:  # NaN is never between
        span = "" if low == -math.inf else f" between {low:g} and {high:g}"
        raise NifError(f"{where} is {shown(repr(value))}; it must be a number{span}")
    return found


def whole(value: Any, where: str, low: int = 0, high: int = 2**31 - 1) -> int:
    """A whole number between `low` and `high`, both allowed (3.0 is one)."""
    found = number(value, where, -math.inf, math.inf)
    if not (math.isfinite(found) and low <= found <= high and found == int(found)):
        raise NifError(f"{where} is {shown(repr(value))}; it must be a whole number between {low} and {high}")
    return int(found)


def text(value: Any, where: str, longest: int = LONGEST_NAME) -> str:
    """A string of at most `longest` characters without NUL."""
    if not isinstance(value, str) or "\0" in value:
        raise NifError(f"{where} is {shown(repr(value))}; it must be text")
    if len(value) > longest:
        raise NifError(f"{where} is text of {len(value):,} characters; at most {longest:,}")
    return value


def numbers(
    value: Any, where: str, shape: tuple[int | None, ...], low: float = -LARGEST, high: float = LARGEST
) -> np.ndarray:
    """Nested lists of finite numbers as float64 of `shape` (None: any length)."""
    wanted = ", ".join("N" if n is None else str(n) for n in shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise NifError(f"{where}: it must be numbers [{wanted}]") from error
    if array.dtype.kind not in "iuf" or array.ndim != len(shape):
        raise NifError(f"{where} is {shown(repr(value))}; it must be numbers [{wanted}]")
    if any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        raise NifError(f"{where} has shape {list(array.shape)}; it must be [{wanted}]")
    array = array.astype(np.float64)
    if not ((array >= low) & (array <= high)).all():
        raise NifError(f"{where}: its numbers must be between {low:g} and {high:g} (no NaN)")
    return array


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """The image as Pillow opens it (header only), with its pixels counted before they are unpacked.
    NifError for what is no image of an allowed format, a bomb, or one too large for the memory."""
    regular(path, "image")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with reading(path, "an image"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's limits are not ours
            _check_chunks(path)
            with Image.open(path, formats=IMAGES) as image:
                check_pixels(path, image.width, image.height)
                yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_chunks(path: Path) -> None:
    """NifError if a chunk of a PNG promises more than the file holds: Pillow asks for it all at once. A cut
    last IDAT is Pillow's to refuse, in the same way."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length = int.from_bytes(head[:4], "big")
            if length > size - file.tell():
                name = shown(head[4:].decode("latin-1"))
                raise NifError(
                    f"{path}: cannot be read as an image: truncated: its {name} chunk promises "
                    f"{length:,} bytes, {size - file.tell():,} are left"
                )
            file.seek(length + 4, 1)


def check_pixels(path: Path, width: int, height: int) -> None:
    """NifError if an image of this size is a bomb, or does not fit in memory."""
    size = path.stat().st_size
    if width * height > max(FREE_PIXELS, PACKED * size):
        raise NifError(f"{path}: refused: {size:,} bytes would unpack to {width:,} x {height:,} pixels")
    needed, there = 12 * width * height, available_memory()  # Pillow's own 4 bytes, the upright copy, ours
    if needed > there:
        raise NifError(
            f"{path}: {width:,} x {height:,} pixels need {needed / 2**30:.1f} GiB to be unpacked and "
            f"{there / 2**30:.1f} are free"
        )


def _header(file: Any, where: str, size: int) -> Header:
    """Shape and type by the header of an npy of `size` bytes, left behind; NifError where numpy should not
    see the rest: it divides by an item's size, multiplies shapes without a look at overflow, and believes
    what is announced."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, _, dtype = read(file)
    except Exception as error:  # also SyntaxError, RecursionError, MemoryError of Python's own parser
        raise NifError(f"{where}: truncated, or no npy file ({one_line(error, 60)})") from None
    if dtype.hasobject:
        raise NifError(f"{where}: it holds Python objects, which are never read")
    if dtype.itemsize == 0 or dtype.names is not None or dtype.subdtype is not None:
        raise NifError(f"{where}: its items are {shown(dtype, 60)}; numbers are read")
    if len(shape) > 8 or any(isinstance(n, bool) or n < 0 for n in shape):
        raise NifError(f"{where}: its header says shape {shown(shape, 60)}, which no array has")
    needed = math.prod(shape) * dtype.itemsize
    if needed > size - file.tell():
        raise NifError(
            f"{where}: truncated: its header promises {needed:,} bytes ({shown(list(shape), 60)} {dtype})"
        )
    return tuple(shape), dtype


def read_npy(path: Path, what: str, mapped: bool = False) -> np.ndarray:
    """The array of an npy file, never pickled objects; `mapped`: left on disk. NifError says what is wrong
    with any other file; `what` says what it should have been ('a point cloud')."""
    size = regular(path).stat().st_size
    with reading(path, what):
        with path.open("rb") as file:
            _header(file, str(path), size)
        if not mapped and 2 * size > available_memory():
            raise NifError(f"{path}: {size / 2**30:.1f} GiB do not fit in memory")
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


@contextmanager
def _npz(path: Path, what: str) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An npz file and its arrays by name."""
    if not regular(path).stat().st_size:
        raise NifError(f"{path}: cannot be read as {what}: it is empty")
    with reading(path, what):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise NifError(f"{path}: cannot be read as {what}: truncated or no npz file") from error
        with archive:
            yield archive, {e.filename[:-4]: e for e in archive.infolist() if e.filename.endswith(".npy")}


def npz_headers(path: Path, what: str) -> dict[str, Header]:
    """Shape and type of each array in an npz file that could be read (not those of Python objects); none is
    unpacked."""
    found = {}
    with _npz(path, what) as (archive, members):
        for name, entry in members.items():
            try:
                with archive.open(entry) as file:
                    found[name] = _header(file, f"{path}: '{shown(name)}'", entry.file_size)
            except Exception:  # it matters only if it is needed; `read_npz` says what is wrong with it
                found[name] = ((), np.dtype("V1"))
    return found


def read_npz(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """The arrays `names` of an npz file (a name that ends in '?' may be missing), never pickled objects; they
    are measured before they are unpacked, the others never are. NifError says what is wrong with any other
    file; `what` says whose file it should be."""
    found = {}
    with _npz(path, what) as (archive, members):
        missing = [n for n in names if not n.endswith("?") and n not in members]
        if missing:
            there = shown(", ".join(list(members)[:8]), 200) or "no array"
            raise NifError(f"{path}: not {what}: it has no '{missing[0]}', only {there}")
        wanted = {n: members[n] for n in (n.rstrip("?") for n in names) if n in members}
        size, packed = sum(e.file_size for e in wanted.values()), path.stat().st_size
        if size > max(FREE_BYTES, ARRAYS_PACKED * packed):
            raise NifError(f"{path}: refused: {packed:,} bytes would unpack to {size:,}")
        if 2 * size > available_memory():
            raise NifError(f"{path}: its arrays ({size / 2**30:.1f} GiB) do not fit in memory")
        for name, entry in wanted.items():
            where = f"{path}: '{name}'"
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NifError(f"{where}: packed in a way that numpy does not use")
            with archive.open(entry) as file:
                _header(file, where, entry.file_size)
            with archive.open(entry) as file:
                found[name] = np.lib.format.read_array(file, allow_pickle=False)
                file.read(1)  # the end, where the checksum is looked at
    return found
