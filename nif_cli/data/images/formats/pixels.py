"""Images of any kind as arrays: what Pillow reads (PNG, JPEG, TIFF, ...) and npy."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, ImageOps

from nif_cli import NifError
from nif_cli.untrusted import one_line, opened_image, reading, regular

# what is looked for in folders
READABLE = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".npy",
)

Pixels = UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]
"""sRGB, straight alpha; 1 (grey), 3 or 4 channels; 255 or 65535 is 1."""


def read_image(path: Path) -> Pixels:
    """The image, upright as its EXIF says; palettes, CMYK and such become RGB(A), 16 bits stay 16 bits; of
    several in one file the first, which is said. An npy file stays on disk (memory-mapped). NifError names a
    file that is no image, or one too large for the memory."""
    if not path.exists():
        raise NifError(f"{path}: no such file")
    if path.suffix.lower() == ".npy":
        regular(path, "image")
        return _npy(path)
    with opened_image(path) as image:
        count = getattr(image, "n_frames", 1)
        several = image.format != "MPO" and count > 1
        pixels = _pixels(path, image)
    if several:
        warnings.warn(f"{path}: {count} images in one file; the first is taken", stacklevel=2)
    return pixels


def _pixels(path: Path, image: Image.Image) -> Pixels:
    raw = _raw_modes(image)
    if raw and raw <= SIXTEEN:
        return _sixteen_bits(path, image)
    if image.mode.startswith("I"):
        clear = image.info.get("transparency")
        array = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)[..., None]
        if array.min() < 0 or array.max() > 65535:
            raise NifError(
                f"{path}: its values go from {array.min()} to {array.max()}; 8 and 16 bits are read"
            )
        return _keyed(array.astype(np.uint16), clear)
    if image.mode == "F":
        raise NifError(f"{path}: an image of floating-point values; 8 and 16 bits are read")
    transparent = image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info
    mode = "RGBA" if transparent else "L" if image.mode in ("1", "L") else "RGB"
    if image.mode == "PA":  # Pillow converts a palette's alpha by way of its own mode only
        image = image.convert("LA") if image.getpalette() is None else image
    array = np.asarray(ImageOps.exif_transpose(image.convert(mode)))
    return array if array.ndim == 3 else array[..., None]


SIXTEEN = {f"{mode};16{order}" for mode in ("RGB", "RGBA", "RGBa", "RGBX", "LA") for order in "BLN"}


def _raw_modes(image: Image.Image) -> set[str]:
    """How the bytes of the file are laid out, by Pillow's names ('RGB;16B')."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return {
        tile.args if isinstance(tile.args, str) else str(tile.args[0]) if tile.args else "" for tile in tiles
    }


def _sixteen_bits(path: Path, image: Image.Image) -> Pixels:
    """Pillow keeps the first byte of each 16-bit colour; read in the other order it keeps the second. Grey
    with alpha has the four bytes of an RGBA pixel."""
    clear = image.info.get("transparency")
    native = "B" if sys.byteorder == "little" else "L"
    other = {"B": "L", "L": "B", "N": native}
    grey, spread = (any(mode.startswith(kind) for mode in _raw_modes(image)) for kind in ("LA", "RGBa"))
    with opened_image(path) as again:
        for tiled in (image, again):
            assert isinstance(tiled, ImageFile.ImageFile)
            tiles = []
            for tile in tiled.tile:
                mode, *rest = [tile.args] if isinstance(tile.args, str) else tile.args or [""]
                mode = mode.replace("RGBa", "RGBA")
                mode = "RGBA" if grey else mode if tiled is image else mode[:-1] + other[mode[-1]]
                tiles.append(tile._replace(args=mode if isinstance(tile.args, str) else (mode, *rest)))
            tiled.tile = tiles
        if grey:
            four = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16)
            if image.format != "PNG" and sys.byteorder == "little":  # TIFF comes in the machine's order
                four = four[..., [1, 0, 3, 2]]
            high, low = four[..., [0, 0, 0, 2]], four[..., [1, 1, 1, 3]]
        else:
            high, low = (np.asarray(ImageOps.exif_transpose(i)).astype(np.uint16) for i in (image, again))
    if image.mode == "RGB" and high.shape[2] == 4:  # padding
        high, low = high[..., :3], low[..., :3]
    pixels = high * 256 + low
    if spread:  # colours that are already multiplied by their alpha
        straight = pixels[..., :3] * (65535 / np.maximum(pixels[..., 3:], 1).astype(np.float64))
        pixels[..., :3] = straight.round().clip(0, 65535)
    return _keyed(pixels, clear)


def _keyed(pixels: UInt16[np.ndarray, "H W C"], clear: object) -> Pixels:
    """With an alpha channel where a PNG names one colour that is transparent."""
    if clear is None or isinstance(clear, bytes) or pixels.shape[2] == 4:
        return pixels
    seen = (pixels != np.asarray(clear).reshape(-1)).any(-1, keepdims=True)
    return np.concatenate(
        (np.broadcast_to(pixels, (*pixels.shape[:2], 3)), np.where(seen, 65535, 0)), -1
    ).astype(np.uint16)


def _npy(path: Path) -> Pixels:
    with reading(path, "an array"):
        with path.open(
            "rb"
        ) as file:  # numpy's memory map kills the process over a size of no bytes: the header goes first
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version[0] == 1
                else np.lib.format.read_array_header_2_0
            )
            try:
                shape, _, dtype = read(file)
            except ValueError as error:
                raise NifError(f"{path}: truncated, or no npy file ({one_line(error, 80)})") from error
            rest = path.stat().st_size - file.tell()
        if dtype.hasobject:
            raise NifError(f"{path}: truncated, or no npy file; Python objects in it are never read")
        good = len(shape) in (2, 3) and min(shape) > 0 and dtype in (np.uint8, np.uint16)
        if not good or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            raise NifError(
                f"{path}: {dtype} {list(shape)}; an image is [H, W] or [H, W, C] with C = 1, 3 or 4, of "
                "uint8 or uint16"
            )
        if rest < math.prod(shape) * dtype.itemsize:
            raise NifError(f"{path}: truncated: {rest:,} bytes of {math.prod(shape) * dtype.itemsize:,}")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array if array.ndim == 3 else array[..., None]
