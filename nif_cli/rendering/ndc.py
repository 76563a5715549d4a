"""Normalised device coordinates (Mildenhall et al. 2020, appendix C)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.rendering.rays import Rays


@dataclass(frozen=True)
class Ndc:
    """Normalised device coordinates of a forward-facing scene (Mildenhall et al. 2020, appendix C): what the
    camera `frame` [3, 4] (camera to world) sees beyond the plane z = -near, out to infinity, becomes the cube
    [-1, 1]^3; straight lines stay straight. `slope` are the tangents of half its angles of view, across and
    up."""

    frame: Float[Tensor, "3 4"]
    slope: tuple[float, float]
    near: float = 1.0

    def rays(self, rays: Rays) -> Rays:
        """The same rays in NDC, from the near plane (t = 0) to infinity (t = 1); directions keep their
        length, `views` stays as it was, in the world."""
        frame = self.frame.to(rays.origins)
        o, d = _turned(rays.origins - frame[:, 3], frame[:, :3].T), _turned(rays.directions, frame[:, :3].T)
        # the origins on the near plane, so that t runs from 0 there to 1 at infinity
        o = o - ((self.near + o[:, 2:]) / d[:, 2:]) * d
        scale = o.new_tensor(self.slope)
        at, along = o[:, :2] / o[:, 2:], d[:, :2] / d[:, 2:]
        start = torch.cat((-at / scale, 1 + 2 * self.near / o[:, 2:]), -1)
        step = torch.cat((-(along - at) / scale, -2 * self.near / o[:, 2:]), -1)
        return Rays(start, step, rays.views)

    def to_world(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Points of NDC in the world; infinitely far ones (z = 1) are not finite."""
        z = 2 * self.near / (points[..., 2:] - 1)
        side = -points[..., :2] * z * points.new_tensor(self.slope)
        frame = self.frame.to(points)
        return _turned(torch.cat((side, z), -1), frame[:, :3]) + frame[:, 3]


def _turned(points: Float[Tensor, "*batch 3"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch 3"]:
    """Without a matmul, which on a GPU may have 10 bits: a pixel of a large image needs more."""
    return (points[..., None, :] * rotation).sum(-1)
