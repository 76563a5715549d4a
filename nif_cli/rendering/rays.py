"""Rays, and those of a plain pinhole camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rays:
    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]  # unit length, except in NDC
    views: Float[Tensor, "R 3"] = None  # type: ignore[assignment]
    """Where the rays look, in the world: unit length. The directions themselves, unless given (NDC)."""

    def __post_init__(self) -> None:
        if self.views is None:
            object.__setattr__(self, "views", self.directions)

    def __len__(self) -> int:
        return len(self.origins)

    def to(self, device: torch.device | str) -> Rays:
        return Rays(self.origins.to(device), self.directions.to(device), self.views.to(device))

    def __getitem__(self, part: slice | Tensor) -> Rays:
        return Rays(self.origins[part], self.directions[part], self.views[part])


def pinhole_rays(pose: Float[Tensor, "3 4"], width: int, height: int, fov: float = 40.0) -> Rays:
    """The rays through all pixel centres, row by row from the top left; `fov` is the vertical angle in
    degrees."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return rays_through(pose, torch.stack((u, v), -1).reshape(-1, 2).to(pose.device), width, height, fov)


def rays_through(
    pose: Float[Tensor, "3 4"], at: Float[Tensor, "R 2"], width: int, height: int, fov: float = 40.0
) -> Rays:
    """The rays through places of the image, in pixels to the right and down from its top left corner."""
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    u, v = at.unbind(-1)
    local = torch.stack([(u - width / 2) / focal, (height / 2 - v) / focal, -torch.ones_like(u)], -1)
    directions = torch.nn.functional.normalize(local @ pose[:, :3].T.to(local), dim=-1)
    return Rays(pose[:, 3].to(local).expand_as(directions), directions)


def box_entry(
    rays: Rays,
    bounds: Float[Tensor, "2 3"],
    near: Float[Tensor, "R"] | float = 0.0,
    far: Float[Tensor, "R"] | float = math.inf,
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays enter and leave an axis-aligned box, between near and far; entry > exit where they miss
    it."""
    # along an axis on which a ray does not move, its slab is all of the ray or infinitely far
    inverse = 1 / torch.where(rays.directions.abs() < 1e-12, 1e-12, rays.directions)
    a, b = (bounds[0] - rays.origins) * inverse, (bounds[1] - rays.origins) * inverse
    return torch.minimum(a, b).amax(-1).clamp(min=near), torch.maximum(a, b).amin(-1).clamp(max=far)  # type: ignore[arg-type]
