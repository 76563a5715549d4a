"""Cameras: camera-to-world, OpenGL axes (x right, y up, z back), pixel centres at +0.5, unit ray directions."""

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


def look_from(position: Float[Tensor, "3"], up: Float[Tensor, "3"]) -> Float[Tensor, "3 4"]:
    """The pose [right, up, back | position] of a camera that looks at the origin."""
    back = position / position.norm()
    right = torch.linalg.cross(up, back)
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(back, right), back, position], -1)


def turntable(frames: int, elevation: float = 20.0, up: str = "y", distance: float = 3.0) -> Float[Tensor, "F 3 4"]:
    """`frames` poses on a circle around the origin, `elevation` degrees above the horizon; the first looks a little from
    the side, so that a single picture shows depth."""
    if frames < 1 or not -89 <= elevation <= 89 or up not in ("y", "z"):
        raise ValueError(f"frames={frames}, elevation={elevation}, up={up}: frames >= 1, elevation within +-89, up y or z")
    poses = []
    for k in range(frames):
        azimuth, height = math.radians(30) + 2 * math.pi * k / frames, math.radians(elevation)
        x, y, z = math.sin(azimuth) * math.cos(height), math.sin(height), math.cos(azimuth) * math.cos(height)
        at, axis = ([x, y, z], [0.0, 1.0, 0.0]) if up == "y" else ([z, x, y], [0.0, 0.0, 1.0])
        poses.append(look_from(distance * torch.tensor(at), torch.tensor(axis)))
    return torch.stack(poses)


def pinhole_rays(pose: Float[Tensor, "3 4"], width: int, height: int, fov: float = 40.0) -> Rays:
    """The rays through all pixel centres, row by row from the top left; `fov` is the vertical angle in degrees."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return rays_through(pose, torch.stack((u, v), -1).reshape(-1, 2).to(pose.device), width, height, fov)


def rays_through(pose: Float[Tensor, "3 4"], at: Float[Tensor, "R 2"], width: int, height: int, fov: float = 40.0) -> Rays:
    """The rays through places of the picture, in pixels to the right and down from its top left corner."""
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    u, v = at.unbind(-1)
    local = torch.stack([(u - width / 2) / focal, (height / 2 - v) / focal, -torch.ones_like(u)], -1)
    directions = torch.nn.functional.normalize(local @ pose[:, :3].T.to(local), dim=-1)
    return Rays(pose[:, 3].to(local).expand_as(directions), directions)
