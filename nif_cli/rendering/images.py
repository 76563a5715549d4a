"""Images of Fields, of meshes beside them, and of what Signals are over a crop."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from nif_cli.field import Field, Signal, evaluate
from nif_cli.geometry.distance import first_hits
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.image_files import RgbImage, displayed, scaled
from nif_cli.rendering.rays import Rays, box_entry, pinhole_rays
from nif_cli.rendering.shading import shade
from nif_cli.rendering.sphere_tracing import Hits
from nif_cli.rendering.surface_view import surface_view


def surface_image(
    field: Field,
    pose: Float[Tensor, "3 4"],
    size: int,
    device: torch.device | str = "cpu",
    antialias: int = 2,
    empty: EmptySpace | None = None,
    shadows: bool = False,
) -> RgbImage:
    """`surface_view` in colours. Several images of one field share their `empty` space. Of a field of the
    plane: `plane_image`, wherever the camera is."""
    if field.bounds.shape[1] == 2:
        return plane_image(field, size, device)
    return displayed(surface_view(field, pose, size, device, antialias, empty, shadows).rgb)


def drawn(
    values: Float[Tensor, "H W *C"], channel: str, nearest: float = 0.0, farthest: float = 1.0
) -> RgbImage:
    """A channel of a `surface_view` as an image: a normal as 0.5 + 0.5 n, depth from white to dark and black
    where it is inf."""
    if channel == "depth":
        values = 1 - 0.8 * (values - nearest) / max(farthest - nearest, 1e-12)
    elif channel == "normal":
        values = 0.5 + 0.5 * values
    return displayed(values if values.dim() == 3 else values[..., None].expand(-1, -1, 3))


def plane_image(field: Field, size: int, device: torch.device | str = "cpu") -> RgbImage:
    """A field of the plane over its bounds: blue inside, sand outside, with a line every tenth of a unit
    ball's radius, and the curve itself in black."""
    low, high = field.bounds.to(device)
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = low + torch.stack((x, y), -1).reshape(-1, 2) * (high - low)
    value = (evaluate(field, points) - field.level).reshape(size, size, 1).cpu()
    pixel = float((high - low).max()) / size
    inside, outside = torch.tensor([0.45, 0.62, 0.85]), torch.tensor([0.96, 0.92, 0.82])
    colour = torch.where(value > 0, inside, outside) * (1 - 0.25 * (value.abs() / 0.1 % 1).clamp(max=1))
    return displayed(colour * (value.abs() / (1.5 * pixel)).clamp(max=1))


def mesh_image(mesh: trimesh.Trimesh, pose: Float[Tensor, "3 4"], size: int, antialias: int = 2) -> RgbImage:
    """A normalised mesh from a camera, as `surface_image` shows a field, with the normals of its faces."""
    rays = pinhole_rays(pose, size * antialias, size * antialias)
    colour = shade(mesh_hits(mesh, rays), rays, pose[:, 0], pose[:, 1])
    return displayed(colour.reshape(size, antialias, size, antialias, 3).mean((1, 3)))


def mesh_hits(mesh: trimesh.Trimesh, rays: Rays) -> Hits:
    """Where rays first meet a mesh, with the normals of its faces, turned against the rays."""
    bounds = torch.from_numpy(mesh.bounds + np.array([[-1e-3], [1e-3]])).float()
    near, far = box_entry(rays, bounds)
    may = torch.nonzero(near < far)[:, 0]  # most rays of an image miss: the tree is not asked about them
    found = first_hits(mesh, *(a[may].double().numpy() for a in (rays.origins, rays.directions)))
    t, normal = (torch.from_numpy(a).float() for a in found)
    depth = torch.full_like(near, torch.inf).index_copy(0, may, t)
    hit = torch.isfinite(depth)
    normals = torch.zeros_like(rays.origins).index_copy(0, may, normal)
    points = torch.where(
        hit[:, None], rays.origins + torch.where(hit, depth, 0)[:, None] * rays.directions, 0
    )
    return Hits(hit, depth, points, normals)


def image_values(
    signal: Signal,
    transform: Transform,
    crop: tuple[float, float, float, float],
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    chunk: int = 2**17,
) -> Float[Tensor, "H W C"]:
    """The colours (on the CPU, not clamped) of an image over `crop` (x, y, width, height, in the original's
    pixels) at the centres of `size` (width, height) pixels."""
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


def image_size(transform: Transform) -> tuple[int, int]:
    """Width and height of the image that this transform normalises."""
    return round(-2 * transform.offset[0]), round(-2 * transform.offset[1])


def overview(
    signal: Signal, transform: Transform, longest: int, device: torch.device | str = "cpu"
) -> RgbImage:
    """An image at a glance: its `longest` side in pixels at most, RGB, on white."""
    width, height = image_size(transform)
    values = image_values(
        signal,
        transform,
        (0, 0, width, height),
        scaled(width, height, min(longest, max(width, height))),
        device,
    )
    values = values.clamp(0, 1)
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
    return displayed(values.expand(-1, -1, 3))
