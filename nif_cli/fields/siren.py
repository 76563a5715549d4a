"""Networks with sine activations (SIREN, Sitzmann et al. 2020)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.mlp import Linear
from nif_cli.fields.network import Network

ACTIVATIONS = {
    "sine": torch.sin,
    "gaussian": lambda z: torch.exp(
        -0.5 * z.square()
    ),  # Ramasinghe and Lucey 2022; omega is one over their width
    "sinc": lambda z: torch.sinc(z / math.pi),  # sin(z) / z
}


class Siren(Network):
    """sin(omega (W h + b)) for `layers` hidden layers of `width`, then a linear one; initialised as published
    (section 3.2). `activation` is another function of the same in place of the sine.

    A code enters the first layer. network(points [S, N, D], code [S, Z] or None) -> [S, N, C].
    """

    stacks = True  # weights may be stacked, one set for each shape: see Linear

    def __init__(
        self,
        dim: int = 3,
        out: int = 1,
        code_size: int = 0,
        *,
        width: int = 256,
        layers: int = 4,
        omega: float = 30.0,
        first_omega: float = 30.0,
        activation: Literal["sine", "gaussian", "sinc"] = "sine",
    ):
        super().__init__()
        if width < 1 or not 1 <= layers <= 1000:
            raise ValueError(f"width={width}, layers={layers}: width must be at least 1, layers 1 to 1000")
        if omega <= 0 or first_omega <= 0:
            raise ValueError(f"omega={omega}, first_omega={first_omega}: both must be positive")
        self.activation = activation
        self.omegas = [first_omega] + [omega] * (layers - 1)
        self.hidden = nn.ModuleList(
            Linear(dim if i == 0 else width, width, code_size if i == 0 else 0) for i in range(layers)
        )
        self.last = Linear(width, out)
        with torch.no_grad():
            for i, layer in enumerate([*self.hidden, self.last]):
                assert isinstance(layer, Linear)
                fan_in = layer.weight.shape[1]
                # keeps what enters each sine at variance 1, layer by layer; the first sees coordinates,
                # not sines, and its omega alone says how many periods they span
                bound = 1 / fan_in if i == 0 else math.sqrt(6 / fan_in) / omega
                layer.weight.uniform_(-bound, bound)

    def forward(
        self, points: Float[Tensor, "S N D"], code: Float[Tensor, "S Z"] | None = None
    ) -> Float[Tensor, "S N C"]:
        h, activate = points, ACTIVATIONS[self.activation]
        for i, (layer, omega) in enumerate(zip(self.hidden, self.omegas, strict=True)):
            # omega stands outside of W: the gradients of W are omega times as large, with the same function
            h = activate(omega * layer(h, code if i == 0 else None))
        h = self.last(h)
        return h.reshape(*points.shape[:2], h.shape[-1])
