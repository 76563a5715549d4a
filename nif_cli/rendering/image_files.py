"""Images as bytes: sheets of them, and png, gif and mp4 files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

RgbImage = UInt8[np.ndarray, "H W 3"]


def labelled(image: RgbImage, text: str) -> UInt8[np.ndarray, "H+20 W 3"]:
    """The image with a line of text below."""
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + 20), "white")
    canvas.paste(Image.fromarray(image))
    ImageDraw.Draw(canvas).text((4, height + 2), text, fill="black", font=ImageFont.load_default(13))
    return np.asarray(canvas)


def scaled(width: float, height: float, longest: int) -> tuple[int, int]:
    """The same proportions with this longest side, whole pixels."""
    share = longest / max(width, height)
    return max(1, round(width * share)), max(1, round(height * share))


def displayed(values: Float[Tensor, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    """Colours as bytes."""
    return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()


def sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int | None = None
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Images side by side, row by row; smaller ones on white, in the middle of a place as large as the
    largest."""
    images = amid(images)
    columns = columns or min(len(images), max(1, math.ceil(math.sqrt(2 * len(images)))))
    rows = math.ceil(len(images) / columns)
    blank = [np.full_like(images[0], 255)] * (rows * columns - len(images))
    cells = [*images, *blank]
    return np.concatenate([np.concatenate(cells[r * columns : (r + 1) * columns], 1) for r in range(rows)], 0)


def amid(images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[RgbImage]:
    """Smaller images on white, in the middle of one as high and as wide as the largest."""
    height, width = (max(p.shape[axis] for p in images) for axis in (0, 1))
    return [_amid(p, height, width) for p in images]


def _amid(image: RgbImage, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    margins = ((top, height - top - image.shape[0]), (left, width - left - image.shape[1]), (0, 0))
    return np.pad(image, margins, constant_values=255)


def png_bytes(image: UInt8[np.ndarray, "H W C"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def gif_bytes(frames: Sequence[RgbImage], fps: float = 15) -> bytes:
    """An endless gif; one palette for all frames, or colours would flicker."""
    buffer = io.BytesIO()
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 8)], 0)).quantize(256)
    images = [Image.fromarray(f).quantize(palette=palette) for f in frames]
    images[0].save(buffer, "gif", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return buffer.getvalue()


def write_mp4(path: Path, frames: Sequence[RgbImage], fps: float = 24) -> None:
    """H.264, playable everywhere; sides are made even by repeating the last row or column, as the codec
    wants."""
    height, width = (n + n % 2 for n in frames[0].shape[:2])
    import imageio_ffmpeg  # only here: a large package, and mp4 is seldom asked for

    rate: Any = fps  # declared as an int there, handed to ffmpeg as it is
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=rate, quality=8, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        padded = np.pad(
            frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge"
        )
        writer.send(np.ascontiguousarray(padded))
    writer.close()
