"""The images of views: as they lie in the file (calibrations know no EXIF), as bytes, averaged down to the
size asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from nif_cli import NifError, untrusted
from nif_cli.data.scenes.formats.naming import SUFFIXES as SUFFIXES
from nif_cli.data.scenes.scene import View
from nif_cli.rendering.cameras import Camera

OPAQUE = 250  # alpha from which a pixel counts as opaque: what resampling and lossy formats leave of 255
ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")  # Pillow's modes that have any


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file as Pillow opens it (header only); NifError for what is no image of 8 or 16 bits, or none
    that fits."""
    with untrusted.opened_image(path) as image:
        if image.mode == "F":
            raise NifError(f"{path}: an image of floating-point values; views have 8 or 16 bits a channel")
        yield image


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header."""
    with _opened(path) as image:
        return image.size


def has_alpha(path: Path) -> bool:
    """Whether it may be transparent anywhere, by the header."""
    with _opened(path) as image:
        return image.mode in ALPHA or "transparency" in image.info


def photo(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "H W C"]:
    """RGB, or RGBA with straight alpha where anything is transparent; each pixel is the average of those it
    covers (of what they show, so transparent ones do not count)."""
    with _opened(path) as image:
        if image.mode.startswith("I"):  # 16 bits of grey
            array = np.asarray(image).astype(np.int64)
            if array.min() < 0 or array.max() > 65535:
                raise NifError(
                    f"{path}: its values go from {array.min()} to {array.max()}; views have 8 or 16 bits a "
                    "channel"
                )
            image = Image.fromarray(((array + 128) // 257).astype(np.uint8))
        transparent = image.mode in ALPHA or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
        if (
            transparent and np.asarray(image.getchannel("A")).min() >= OPAQUE
        ):  # an alpha channel that hides nothing is none
            image = image.convert("RGB")
        if image.size != size:
            image = image.resize(size, Image.Resampling.BOX)
        return np.array(image)


def mask(path: Path, size: tuple[int, int], counts: bool) -> Bool[np.ndarray, "H W"]:
    """Which pixels count: with `counts` those that are not black in the file, else those that are. An image
    of one colour with an alpha channel is a mask by that: what is transparent is black."""
    with _opened(path) as image:
        slack = 0.02 * image.height * size[0] + max(image.size)  # a pixel: sizes are rounded
        if abs(image.width * size[1] - image.height * size[0]) > slack:
            raise NifError(
                f"{path}: a mask of {image.width} x {image.height} pixels for an image of {size[0]} x "
                f"{size[1]}"
            )
        if image.mode.startswith(("I", "F")):
            grey = Image.fromarray(np.asarray(image) > 0).convert("L")
        else:
            transparent = image.mode in ALPHA or "transparency" in image.info
            image = image.convert("RGBA") if transparent else image
            grey = image.convert("L")
            low, high = grey.getextrema()
            if transparent and low == high:
                grey = image.getchannel("A")
            grey = grey.point(lambda v: 255 if v else 0)
        if grey.size != size:
            grey = grey.resize(size, Image.Resampling.BOX)
        array = np.asarray(grey)
    return array == 255 if counts else array == 0  # pixels that are partly to be ignored are ignored


def depth(path: Path, size: tuple[int, int], unit: float) -> Float[np.ndarray, "H W"]:
    """z-depths of an image of whole numbers (16 bits) or an npy [H, W], `unit` times what it holds; 0 where
    it is not positive. Each pixel takes that of its middle: depths of two things have no mean."""
    if path.suffix.lower() == ".npy":
        values = untrusted.read_npy(path, "depths")
    else:
        with untrusted.opened_image(path) as image, untrusted.reading(path, "an image of depths"):
            values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        raise NifError(f"{path}: depths of shape {list(values.shape)}; they must be [H, W], one channel")
    height, width = values.shape
    if abs(width * size[1] - height * size[0]) > 0.02 * height * size[0] + max(values.shape):
        raise NifError(f"{path}: depths of {width} x {height} pixels for an image of {size[0]} x {size[1]}")
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    found = values[rows[:, None], columns].astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(found) & (found > 0), found, np.float32(0))


def view(
    name: str,
    path: Path,
    pose: Any,
    camera: Camera,
    downscale: int,
    masks: Callable[[tuple[int, int]], np.ndarray] | None = None,
    depths: Callable[[tuple[int, int]], np.ndarray] | None = None,
) -> View:
    """A view of a file, `downscale` times smaller than `camera` says: from a folder <images>_<downscale>
    where there is one, else averaged. An image of the camera's proportions but another size is taken as a
    smaller print of it; NifError for other proportions. `masks(size)` gives the pixels that count,
    `depths(size)` z-depths."""
    folder = path.parent
    smaller = folder.parent / f"{folder.name}_{downscale}" / path.name
    if downscale > 1 and folder.name not in ("", "..") and smaller.is_file():
        path, size = smaller, photo_size(smaller)
        wanted = size
    else:
        size = photo_size(path)
        wanted = (max(1, camera.width // downscale), max(1, camera.height // downscale))
    across, down = size[0] / camera.width, size[1] / camera.height
    if abs(across - down) > 0.02 * down:
        raise NifError(
            f"{path}: {size[0]} x {size[1]} pixels, but its camera has {camera.width} x {camera.height}"
        )
    if wanted[0] > size[0]:
        wanted = size
    read_mask = None if masks is None else functools.partial(masks, wanted)
    camera = camera.resized(*wanted)
    read_depth = None if depths is None else functools.partial(depths, wanted)
    read = functools.partial(photo, path, wanted)
    return View(name, pose, camera, read, read_mask, has_alpha(path), read_depth)


def read_scene_json(path: Path) -> dict[str, Any]:
    """A JSON object. NifError for anything else."""
    try:
        return untrusted.read_json(path, "a scene's JSON (an object with 'frames')")
    except NifError as error:
        if isinstance(error.__cause__, RecursionError):
            raise NifError(f"{path}: not JSON that anyone writes: nested too deeply") from error
        raise
