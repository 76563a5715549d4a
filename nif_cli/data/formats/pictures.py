"""Pictures of any kind as arrays: what Pillow reads (PNG, JPEG, TIFF, ...) and npy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, ImageOps

from nif_cli import NifError
from nif_cli.files import available_memory

READABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")  # what is looked for in folders

Pixels = UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]
"""sRGB, straight alpha; 1 (grey), 3 or 4 channels; 255 or 65535 is 1."""


def read_picture(path: Path) -> Pixels:
    """The picture, upright as its EXIF says; palettes, CMYK and such become RGB(A), 16 bits stay 16 bits. An npy file
    stays on disk (memory-mapped). NifError names a file that is no picture, or one too large for the memory."""
    if not path.is_file():
        raise NifError(f"{path}: no such file" if not path.exists() else f"{path}: a folder; one picture is needed")
    if path.suffix.lower() == ".npy":
        return _npy(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its limits are not ours
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                with Image.open(path) as image:
                    _check_size(path, image)
                    return _pixels(path, image)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except NifError:
        raise
    except MemoryError as error:
        raise NifError(f"{path}: does not fit in memory; save it as npy [H, W, C] of uint8, which is read in tiles") from error
    except Exception as error:  # Pillow's readers raise whatever the file makes them stumble over
        raise NifError(f"{path}: cannot be read as a picture: {str(error).splitlines()[0][:150] or 'damaged'}") from error


def _check_size(path: Path, image: Image.Image) -> None:
    width, height = image.size
    needed, there = 12 * width * height, available_memory()  # Pillow's own 4 bytes, the upright copy, ours
    if needed > there:
        raise NifError(
            f"{path}: {width} x {height} pixels need {needed / 2**30:.1f} GiB to be unpacked and {there / 2**30:.1f} are free; "
            "save it as npy [H, W, C] of uint8, which is read in tiles"
        )
    if width * height > 2**27 and 3 * width * height > 500 * path.stat().st_size:
        raise NifError(f"{path}: refused: {path.stat().st_size:,} bytes would unpack to {width} x {height} pixels")


def _pixels(path: Path, image: Image.Image) -> Pixels:
    if (
        isinstance(image, ImageFile.ImageFile)
        and image.format == "PNG"
        and image.mode in ("RGB", "RGBA")
        and str(image.tile[0][3]).endswith(";16B")
    ):
        return _sixteen_bits(path, image)
    if image.mode.startswith("I"):
        array = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)[..., None]
        if array.min() < 0 or array.max() > 65535:
            raise NifError(f"{path}: its values go from {array.min()} to {array.max()}; 8 and 16 bits are read")
        return array.astype(np.uint16)
    if image.mode == "F":
        raise NifError(f"{path}: a picture of floating-point values; 8 and 16 bits are read")
    transparent = image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info
    mode = "RGBA" if transparent else "L" if image.mode in ("1", "L") else "RGB"
    array = np.asarray(ImageOps.exif_transpose(image.convert(mode)))
    return array if array.ndim == 3 else array[..., None]


def _sixteen_bits(path: Path, image: Image.Image) -> Pixels:
    """Pillow keeps the first byte of each 16-bit colour; read the other way round it keeps the second."""
    high = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16)
    with Image.open(path) as again:
        again.tile = [tile._replace(args=tile.args.replace("16B", "16L")) for tile in again.tile]  # type: ignore[union-attr]
        return high * 256 + np.asarray(ImageOps.exif_transpose(again))


def _npy(path: Path) -> Pixels:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise NifError(f"{path}: truncated, or no npy file; Python objects in it are never read") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape or array.dtype not in (np.uint8, np.uint16):
        raise NifError(
            f"{path}: {array.dtype} {list(array.shape)}; a picture is [H, W] or [H, W, C] with C = 1, 3 or 4, of uint8 or uint16"
        )
    return array


def colour_card(size: int = 256) -> UInt8[np.ndarray, "H W 3"]:
    """A picture made on the spot: a star of growing frequencies, a chequerboard, rings and smooth colour."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    card = np.stack([0.5 + 0.4 * x, 0.5 - 0.3 * y, 0.6 - 0.3 * x * y], -1)
    star = 0.5 + 0.5 * np.sign(np.sin(24 * angle))
    rings = 0.5 + 0.5 * np.cos(40 * radius**2)
    chequers = (np.floor(x * 16) + np.floor(y * 16)) % 2
    card[radius < 0.6] = star[radius < 0.6, None] * [0.95, 0.9, 0.8] + 0.05
    corner = (x > 0.3) & (y > 0.3) & (radius >= 0.6)
    card[corner] = rings[corner, None] * [0.9, 0.3, 0.2] + 0.05
    corner = (x < -0.3) & (y < -0.3) & (radius >= 0.6)
    card[corner] = chequers[corner, None] * [0.2, 0.4, 0.8] + 0.1
    return (card.clip(0, 1) * 255 + 0.5).astype(np.uint8)
