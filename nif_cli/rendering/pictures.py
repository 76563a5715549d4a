"""Pictures of Fields, sheets of pictures, and the files they go to."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import igl
import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nif_cli.field import Field, Signal, evaluate
from nif_cli.geometry.mesh import Transform
from nif_cli.rendering.cameras import pinhole_rays
from nif_cli.rendering.sphere_tracing import EmptySpace, Hits, shade
from nif_cli.rendering.surface_view import surface_view

Picture = UInt8[np.ndarray, "H W 3"]


def picture(
    field: Field,
    pose: Float[Tensor, "3 4"],
    size: int,
    device: torch.device | str = "cpu",
    antialias: int = 2,
    empty: EmptySpace | None = None,
    shadows: bool = False,
) -> Picture:
    """`surface_view` in colours. Several pictures of one field share their `empty` space. Of a field of the plane:
    `plane_picture`, wherever the camera is."""
    if field.bounds.shape[1] == 2:
        return plane_picture(field, size, device)
    return displayed(surface_view(field, pose, size, device, antialias, empty, shadows).rgb)


def drawn(values: Float[Tensor, "H W *C"], channel: str, nearest: float = 0.0, farthest: float = 1.0) -> Picture:
    """A channel of a `surface_view` as a picture: a normal as 0.5 + 0.5 n, depth from white to dark and black where it is inf."""
    if channel == "depth":
        values = 1 - 0.8 * (values - nearest) / max(farthest - nearest, 1e-12)
    elif channel == "normal":
        values = 0.5 + 0.5 * values
    return displayed(values if values.dim() == 3 else values[..., None].expand(-1, -1, 3))


def plane_picture(field: Field, size: int, device: torch.device | str = "cpu") -> Picture:
    """A field of the plane over its bounds: blue inside, sand outside, with a line every tenth of a unit ball's radius, and
    the curve itself in black."""
    low, high = field.bounds.to(device)
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = low + torch.stack((x, y), -1).reshape(-1, 2) * (high - low)
    value = (evaluate(field, points) - field.level).reshape(size, size, 1).cpu()
    pixel = float((high - low).max()) / size
    inside, outside = torch.tensor([0.45, 0.62, 0.85]), torch.tensor([0.96, 0.92, 0.82])
    colour = torch.where(value > 0, inside, outside) * (1 - 0.25 * (value.abs() / 0.1 % 1).clamp(max=1))
    return displayed(colour * (value.abs() / (1.5 * pixel)).clamp(max=1))


def mesh_picture(mesh: trimesh.Trimesh, pose: Float[Tensor, "3 4"], size: int, antialias: int = 2) -> Picture:
    """A normalised mesh from a camera, as `picture` shows a field, with the normals of its faces."""
    rays = pinhole_rays(pose, size * antialias, size * antialias)
    vertices, faces = np.ascontiguousarray(mesh.vertices, np.float64), np.ascontiguousarray(mesh.faces, np.int64)
    tree = igl.AABB()
    tree.init(vertices, faces)
    origins, directions = (np.ascontiguousarray(t.numpy(), np.float64) for t in (rays.origins, rays.directions))
    face, depth, _ = (np.asarray(a) for a in tree.intersect_ray_first(vertices, faces, origins, directions))
    hit = torch.from_numpy(face >= 0)
    normals = torch.from_numpy(np.ascontiguousarray(mesh.face_normals)[face]).float()
    normals = torch.where(((normals * rays.directions).sum(-1) > 0)[:, None], -normals, normals)  # seen from behind
    far = torch.from_numpy(np.where(face >= 0, depth, 0)).float()
    hits = Hits(hit, far, rays.origins + far[:, None] * rays.directions, normals)
    colour = shade(hits, rays, pose[:, 0], pose[:, 1])
    return displayed(colour.reshape(size, antialias, size, antialias, 3).mean((1, 3)))


def labelled(image: Picture, text: str) -> UInt8[np.ndarray, "H+20 W 3"]:
    """The picture with a line of text below."""
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + 20), "white")
    canvas.paste(Image.fromarray(image))
    ImageDraw.Draw(canvas).text((4, height + 2), text, fill="black", font=ImageFont.load_default(13))
    return np.asarray(canvas)


def image_values(
    signal: Signal,
    transform: Transform,
    crop: tuple[float, float, float, float],
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    chunk: int = 2**17,
) -> Float[Tensor, "H W C"]:
    """The colours (on the CPU, not clamped) of a picture over `crop` (x, y, width, height, in the original's pixels) at the
    centres of `size` (width, height) pixels."""
    x, y, across, down = crop
    width, height = size
    offset = torch.tensor(transform.offset[:2], device=device)
    origin = torch.tensor([x, y], dtype=torch.float32, device=device) + offset
    step = torch.tensor([across / width, down / height], device=device)
    parts = []
    with torch.no_grad():
        for start in range(0, width * height, chunk):
            index = torch.arange(start, min(start + chunk, width * height), device=device)
            place = torch.stack((index % width, index // width), -1) + 0.5
            parts.append(signal.color((origin + place * step) * transform.scale).float().cpu())
    return torch.cat(parts).reshape(height, width, -1)


def picture_size(transform: Transform) -> tuple[int, int]:
    """Width and height of the picture that this transform normalises."""
    return round(-2 * transform.offset[0]), round(-2 * transform.offset[1])


def scaled(width: float, height: float, longest: int) -> tuple[int, int]:
    """The same proportions with this longest side, whole pixels."""
    share = longest / max(width, height)
    return max(1, round(width * share)), max(1, round(height * share))


def overview(signal: Signal, transform: Transform, longest: int, device: torch.device | str = "cpu") -> Picture:
    """A picture at a glance: its `longest` side in pixels at most, RGB, on white."""
    width, height = picture_size(transform)
    values = image_values(
        signal, transform, (0, 0, width, height), scaled(width, height, min(longest, max(width, height))), device
    )
    values = values.clamp(0, 1)
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
    return displayed(values.expand(-1, -1, 3))


def displayed(values: Float[Tensor, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    """Colours as bytes."""
    return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()


def sheet(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int | None = None) -> UInt8[np.ndarray, "rows columns 3"]:
    """Pictures side by side, row by row; smaller ones on white, in the middle of a place as large as the largest."""
    pictures = amid(pictures)
    columns = columns or min(len(pictures), max(1, math.ceil(math.sqrt(2 * len(pictures)))))
    rows = math.ceil(len(pictures) / columns)
    blank = [np.full_like(pictures[0], 255)] * (rows * columns - len(pictures))
    cells = [*pictures, *blank]
    return np.concatenate([np.concatenate(cells[r * columns : (r + 1) * columns], 1) for r in range(rows)], 0)


def amid(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Picture]:
    """Smaller pictures on white, in the middle of one as high and as wide as the largest."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    return [_amid(p, height, width) for p in pictures]


def _amid(image: Picture, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    margins = ((top, height - top - image.shape[0]), (left, width - left - image.shape[1]), (0, 0))
    return np.pad(image, margins, constant_values=255)


def png_bytes(image: UInt8[np.ndarray, "H W C"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def gif_bytes(frames: Sequence[Picture], fps: float = 15) -> bytes:
    """An endless gif; one palette for all frames, or colours would flicker."""
    buffer = io.BytesIO()
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 8)], 0)).quantize(256)
    images = [Image.fromarray(f).quantize(palette=palette) for f in frames]
    images[0].save(buffer, "gif", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return buffer.getvalue()


def write_mp4(path: Path, frames: Sequence[Picture], fps: float = 24) -> None:
    """H.264, playable everywhere; sides are made even by repeating the last row or column, as the codec wants."""
    height, width = (n + n % 2 for n in frames[0].shape[:2])
    import imageio_ffmpeg  # only here: a large package, and mp4 is seldom asked for

    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, quality=8, macro_block_size=2)  # pyright: ignore[reportArgumentType]
    writer.send(None)
    for frame in frames:
        padded = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
        writer.send(np.ascontiguousarray(padded))
    writer.close()
