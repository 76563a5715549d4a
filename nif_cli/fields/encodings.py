"""Encodings: coordinates -> features, the cure for networks that blur."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.fields.network import Encoding


class Positional(Encoding):
    """sin and cos of x * 2^k * base for k = 0..frequencies-1, with x itself in front (NeRF, Mildenhall et al.
    2020, eq. 4).

    `base` 1 is NeRF's code, pi its paper; `frequencies` null is 4 in space, 8 for images, which are finer.
    Features: D * (2 * frequencies + include_input).
    """

    scale: Tensor

    def __init__(self, dim: int, frequencies: int | None = 6, base: float = 1.0, include_input: bool = True):
        super().__init__()
        frequencies = frequencies if frequencies is not None else 8 if dim == 2 else 4
        if frequencies < 1:
            raise ValueError(f"frequencies={frequencies}: at least 1")
        self.include_input = include_input
        self.register_buffer("scale", torch.tensor([base * 2.0**k for k in range(frequencies)]))
        self.features = dim * (2 * frequencies + include_input)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]:
        angles = (x[..., None] * self.scale).flatten(-2)
        parts = (x, angles.sin(), angles.cos()) if self.include_input else (angles.sin(), angles.cos())
        return torch.cat(parts, -1)


class Fourier(Encoding):
    """sin and cos of 2 pi B x, B ~ N(0, scale^2) [features, D], fixed by `seed` and saved (Tancik et al.
    2020, eq. 5).

    Their scale is for coordinates in [0, 1]; shapes here span [-1, 1], so the same blur is half their number
    (6, not 12). null is 1.5 in space, which a small network learns fast, and 8 for images, which are finer.
    """

    directions: Tensor

    def __init__(self, dim: int, features: int = 256, scale: float | None = 6.0, seed: int = 0):
        super().__init__()
        scale = scale if scale is not None else 8.0 if dim == 2 else 1.5
        if features < 1 or scale <= 0:
            raise ValueError(f"features={features}, scale={scale}: both must be positive")
        if torch.get_default_device().type == "meta":  # a run is being read: its file brings them
            directions = torch.empty(features, dim)
        else:
            directions = torch.randn(features, dim, generator=torch.Generator().manual_seed(seed))
            directions = 2 * math.pi * scale * directions
        self.register_buffer("directions", directions)
        self.features = 2 * features

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]:
        # sines and cosines of the same angles: <f(x), f(y)> depends on x - y alone, so a network's kernel
        # is as wide everywhere, by `scale` (Tancik et al. 2020)
        angles = x @ self.directions.T
        return torch.cat((angles.sin(), angles.cos()), -1)
