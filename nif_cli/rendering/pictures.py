"""Pictures of Fields, sheets of pictures, and the files they go to."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from nif_cli.field import Field
from nif_cli.rendering.cameras import Rays, pinhole_rays
from nif_cli.rendering.sphere_tracing import EmptySpace, shade, sphere_trace

Picture = UInt8[np.ndarray, "H W 3"]


def picture(
    field: Field,
    pose: Float[Tensor, "3 4"],
    size: int,
    device: torch.device | str = "cpu",
    antialias: int = 2,
    empty: EmptySpace | None = None,
) -> Picture:
    """The surface of `field` from a camera, size x size, shaded by its normals; antialias^2 rays a pixel. Several
    pictures of one field share their `empty` space."""
    rays = pinhole_rays(pose, size * antialias, size * antialias)
    rays = Rays(rays.origins.to(device), rays.directions.to(device))
    colour = shade(sphere_trace(field, rays, empty), rays, pose[:, 0], pose[:, 1])
    image = colour.reshape(size, antialias, size, antialias, 3).mean((1, 3))
    return (image * 255 + 0.5).to(torch.uint8).cpu().numpy()


def sheet(pictures: Sequence[Picture], columns: int | None = None) -> UInt8[np.ndarray, "rows columns 3"]:
    """Pictures of one size side by side, row by row."""
    columns = columns or min(len(pictures), max(1, math.ceil(math.sqrt(2 * len(pictures)))))
    rows = math.ceil(len(pictures) / columns)
    blank = [np.full_like(pictures[0], 255)] * (rows * columns - len(pictures))
    cells = [*pictures, *blank]
    return np.concatenate([np.concatenate(cells[r * columns : (r + 1) * columns], 1) for r in range(rows)], 0)


def png_bytes(image: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def gif_bytes(frames: Sequence[Picture], fps: int = 15) -> bytes:
    """An endless gif; one palette for all frames, or colours would flicker."""
    buffer = io.BytesIO()
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 8)], 0)).quantize(256)
    images = [Image.fromarray(f).quantize(palette=palette) for f in frames]
    images[0].save(buffer, "gif", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return buffer.getvalue()


def write_mp4(path: Path, frames: Sequence[Picture], fps: int = 24) -> None:
    """H.264, playable everywhere; sides are made even by repeating the last row or column, as the codec wants."""
    height, width = (n + n % 2 for n in frames[0].shape[:2])
    import imageio_ffmpeg  # only here: a large package, and mp4 is seldom asked for

    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, quality=8, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        padded = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
        writer.send(np.ascontiguousarray(padded))
    writer.close()
