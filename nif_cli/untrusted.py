"""What strangers' files hold, read with its type, its range and a name for the message. One rule for every reader: a
library's exception becomes one line with the file's name, a value is checked where it is read, and nothing is unpacked
before it is measured."""

from __future__ import annotations

import json
import math
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nif_cli import NifError
from nif_cli.files import available_memory

LONGEST_NAME = 1000  # characters: longer than any path that a system takes
LARGEST = 1e12  # of lengths, focal lengths and the like: beyond it float32 has nothing left
PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # MPO is one of JPEG's, which opens it
"""Pillow's formats that are opened: none that starts a program (EPS does) or plays a film."""
PACKED = 2000  # pixels a byte of file that a picture may unpack to: a PNG of one colour has about a thousand bytes a byte
FREE_PIXELS = 2**25  # up to here nobody minds


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
    """The boundary of a reader: whatever a library throws over a damaged file becomes one line that names the file;
    `what` says what it should have been ('an OBJ mesh')."""
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
    """A JSON file whose outermost value is of `kind`. NifError for anything else, also for one that would fill the memory."""
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
        raise NifError(f"{where} is {shown(repr(value))}; it must be a number between {low:g} and {high:g}")
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


def numbers(value: Any, where: str, shape: tuple[int | None, ...], low: float = -LARGEST, high: float = LARGEST) -> np.ndarray:
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
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """The picture as Pillow opens it (header only), with its pixels counted before they are unpacked. NifError for what is
    no picture of an allowed format, a bomb, or one too large for the memory."""
    regular(path, "picture")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with reading(path, "a picture"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's limits are not ours
            with Image.open(path, formats=PICTURES) as image:
                check_pixels(path, image.width, image.height)
                yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_pixels(path: Path, width: int, height: int) -> None:
    """NifError if a picture of this size is a bomb, or does not fit in memory."""
    size = path.stat().st_size
    if width * height > max(FREE_PIXELS, PACKED * size):
        raise NifError(f"{path}: refused: {size:,} bytes would unpack to {width:,} x {height:,} pixels")
    needed, there = 12 * width * height, available_memory()  # Pillow's own 4 bytes, the upright copy, ours
    if needed > there:
        raise NifError(
            f"{path}: {width:,} x {height:,} pixels need {needed / 2**30:.1f} GiB to be unpacked and {there / 2**30:.1f} are free"
        )
