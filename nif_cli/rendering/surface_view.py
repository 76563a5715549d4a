"""A surface as a camera sees it: colour, normal, depth and opacity of each pixel, with smooth edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nif_cli.field import Field, Signal
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.rays import rays_through
from nif_cli.rendering.shading import shade, studio
from nif_cli.rendering.sphere_tracing import Hits, sphere_trace


@dataclass
class SurfaceView:
    """On the CPU. Where nothing is seen: white, normal 0, depth inf, opacity 0."""

    rgb: Float[Tensor, "H W 3"]  # sRGB
    normal: Float[Tensor, "H W 3"]  # outward, in normalised space
    depth: Float[Tensor, "H W"]  # along the ray, in units of normalised space
    opacity: Float[Tensor, "H W"]


def surface_view(
    field: Field,
    pose: Float[Tensor, "3 4"],
    size: int,
    device: torch.device | str = "cpu",
    antialias: int = 2,
    empty: EmptySpace | None = None,
    shadows: bool = False,
) -> SurfaceView:
    """The surface of `field` from a camera, size x size: one ray through each pixel's centre, and antialias^2
    through those where it ends, turns, changes colour or is closely missed. With `shadows`: those, and
    ambient occlusion."""
    empty = empty or EmptySpace(field, device=device)
    pose = framing(pose, field.bounds).to(device)

    def look(at: Float[Tensor, "R 2"]) -> tuple[Float[Tensor, "R 3"], Hits]:
        rays = rays_through(pose, at, size, size)
        hits = sphere_trace(field, rays, empty)
        paint = None
        if isinstance(field, Signal):
            with torch.no_grad():
                paint = torch.cat([field.color(part).clamp(0, 1) for part in hits.points.split(2**16)])
        if shadows:
            return studio(hits, rays, pose[:, 0], pose[:, 1], empty, paint), hits
        return shade(hits, rays, pose[:, 0], pose[:, 1], paint), hits

    rgb, normal = torch.empty(size * size, 3), torch.empty(size * size, 3)
    depth, missed = torch.empty(size * size), torch.zeros(size * size, dtype=torch.bool)
    pixel = 0.73 / size * float(pose[:, 3].norm())  # about, where the surface is
    for part in torch.arange(size * size).split(2**20):
        at = torch.stack((part % size, part // size), -1).to(device) + 0.5
        colours, hits = look(at)
        rgb[part], normal[part], depth[part] = colours.cpu(), hits.normals.cpu(), hits.depth.cpu()
        if hits.closest is not None:  # what is thinner than a pixel can lie between its centre and the next
            missed[part] = (~hits.hit & (hits.closest < pixel)).cpu()
    opacity = torch.isfinite(depth).float()
    if antialias > 1:
        offset = (torch.arange(antialias) + 0.5) / antialias
        within = torch.cartesian_prod(offset, offset)
        uneven = _uneven(depth.reshape(size, size), normal.reshape(size, size, 3), rgb.reshape(size, size, 3))
        uneven = torch.nonzero(uneven | missed.reshape(size, size))
        for part in (
            uneven.split(2**20 // len(within)) if len(uneven) else ()
        ):  # of nothing, nothing is uneven
            at = part.flip(-1)[:, None] + within
            colours, hits = look(at.reshape(-1, 2).to(device))
            pixel = part[:, 0] * size + part[:, 1]
            rgb[pixel] = colours.reshape(len(part), -1, 3).mean(1).cpu()
            opacity[pixel] = hits.hit.float().reshape(len(part), -1).mean(1).cpu()
    square = (size, size)
    return SurfaceView(
        rgb.view(*square, 3), normal.view(*square, 3), depth.view(square), opacity.view(square)
    )


def _uneven(
    depth: Float[Tensor, "H W"], normal: Float[Tensor, "H W 3"], colour: Float[Tensor, "H W 3"]
) -> Bool[Tensor, "H W"]:
    """Pixels that differ from a neighbour: in what is hit, by ten pixels of depth or more, in the normal or
    in colour."""
    size = len(depth)
    pixel = 0.73 / size  # of a camera that sees 40 degrees, at distance 1
    depth = torch.where(torch.isfinite(depth), depth, 0.0)
    uneven = torch.zeros(size, size, dtype=torch.bool)
    for axis in (0, 1):
        (d, e), (n, m), (c, k) = (
            (x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1)) for x in (depth, normal, colour)
        )
        differ = ((d - e).abs() > 10 * pixel * torch.maximum(d, e)) | ((n - m).abs().amax(-1) > 0.25)
        differ |= (c - k).abs().amax(-1) > 0.12
        for begin in (0, 1):
            uneven.narrow(axis, begin, size - 1).logical_or_(differ)
    return uneven


def framing(pose: Float[Tensor, "3 4"], bounds: Float[Tensor, "2 3"]) -> Float[Tensor, "3 4"]:
    """The camera for what may not fit in the cube [-1, 1]^3 that cameras are made for: farther away, and
    looking at its centre. What fits is left where it is."""
    low, high = bounds.cpu()
    if bool((bounds.abs() <= 1).all()):
        return pose
    half = max(1.0, 0.5 * float((high - low).max()))
    return torch.cat((pose[:, :3], half * pose[:, 3:] + 0.5 * (low + high)[:, None]), 1)
