"""The pictures of views: as they lie in the file (calibrations know no EXIF), as bytes, averaged down to the size asked for."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from nif_cli import NifError
from nif_cli.data.scene import View
from nif_cli.files import available_memory
from nif_cli.rendering.lenses import Camera

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file as Pillow opens it (header only); NifError for what is no picture of 8 or 16 bits, or none that fits."""
    if not path.is_file():
        raise NifError(f"{path}: no such picture" if not path.exists() else f"{path}: a folder, not a picture")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's limits are not ours
            with Image.open(path) as image:
                if image.mode == "F":
                    raise NifError(f"{path}: a picture of floating-point values; views have 8 or 16 bits a channel")
                if 12 * image.width * image.height > available_memory():
                    raise NifError(f"{path}: {image.width} x {image.height} pixels do not fit in memory")
                yield image
    except NifError:
        raise
    except Exception as error:  # Pillow's readers raise whatever the file makes them stumble over
        raise NifError(f"{path}: cannot be read as a picture: {str(error).splitlines()[0][:150] or 'damaged'}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header."""
    with _opened(path) as image:
        return image.size


def photo(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "H W C"]:
    """RGB, or RGBA with straight alpha where the file has any; each pixel is the average of those it covers (of what they
    show, so transparent ones do not count)."""
    with _opened(path) as image:
        if image.mode.startswith("I"):  # 16 bits of grey
            array = np.asarray(image).astype(np.int64)
            if array.min() < 0 or array.max() > 65535:
                raise NifError(f"{path}: its values go from {array.min()} to {array.max()}; views have 8 or 16 bits a channel")
            image = Image.fromarray(((array + 128) // 257).astype(np.uint8))
        transparent = image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
        if image.size != size:
            image = image.resize(size, Image.Resampling.BOX)
        return np.array(image)


def mask(path: Path, size: tuple[int, int], counts: bool) -> Bool[np.ndarray, "H W"]:
    """Which pixels count: with `counts` those that are not black in the file, else those that are."""
    with _opened(path) as image:
        picture = image.convert("L").point(lambda v: 255 if v else 0)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BOX)
        array = np.asarray(picture)
    return array == 255 if counts else array == 0  # pixels that are partly to be ignored are ignored


def view(
    name: str, path: Path, pose: Any, camera: Camera, downscale: int, masks: Callable[[tuple[int, int]], np.ndarray] | None = None
) -> View:
    """A view of a file, `downscale` times smaller than `camera` says: from a folder <images>_<downscale> where there is
    one, else averaged. A picture of the camera's proportions but another size is taken as a smaller print of it; NifError
    for other proportions. `masks(size)` gives the pixels that count."""
    smaller = path.parent.with_name(f"{path.parent.name}_{downscale}") / path.name
    if downscale > 1 and smaller.is_file():
        path, size = smaller, photo_size(smaller)
        wanted = size
    else:
        size = photo_size(path)
        wanted = (max(1, camera.width // downscale), max(1, camera.height // downscale))
    across, down = size[0] / camera.width, size[1] / camera.height
    if abs(across - down) > 0.02 * down:
        raise NifError(f"{path}: {size[0]} x {size[1]} pixels, but its camera has {camera.width} x {camera.height}")
    if wanted[0] > size[0]:
        wanted = size
    read_mask = None if masks is None else functools.partial(masks, wanted)
    return View(name, pose, camera.resized(*wanted), functools.partial(photo, path, wanted), read_mask)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. NifError for anything else."""
    if not path.is_file():
        raise NifError(f"{path}: no such file")
    if 20 * path.stat().st_size > available_memory():
        raise NifError(f"{path}: {path.stat().st_size / 2**30:.1f} GiB of JSON do not fit in memory")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NifError(f"{path}: not JSON ({str(error).splitlines()[0][:100]})") from error
    if not isinstance(found, dict):
        raise NifError(f"{path}: it holds a {type(found).__name__}; it must be an object with 'frames'")
    return found
