"""Networks with complex Gabor wavelets for activations (WIRE, Saragadam et al. 2023)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from nif_cli.fields.network import Network


class ComplexLinear(nn.Module):
    """y = W h + b with complex W [O, H] and b [O], kept as pairs of real numbers: any optimizer takes
    those."""

    def __init__(self, features: int, out: int):
        super().__init__()
        bound = 1 / math.sqrt(features)
        self.weight = nn.Parameter(torch.empty(out, features, 2).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out, 2).uniform_(-bound, bound))

    def forward(self, h: Complex[Tensor, "*n H"]) -> Complex[Tensor, "*n O"]:
        return h @ torch.view_as_complex(self.weight).T + torch.view_as_complex(self.bias)


class Wire(Network):
    """psi(W h + b) for `layers` hidden layers, then the real part of a linear one; psi(z) = exp(i omega z -
    |scale z|^2) is a Gabor wavelet (eq. 3): it oscillates, as a sine, and is local, as a Gaussian. Its values
    are complex from the first layer on, whose input is real; as published the layers are `width` / sqrt(2)
    wide, so that there are as many numbers as in a real network of `width`. A code enters the first layer.
    """

    def __init__(
        self,
        dim: int = 3,
        out: int = 1,
        code_size: int = 0,
        *,
        width: int = 256,
        layers: int = 3,
        omega: float = 10.0,
        scale: float = 10.0,
    ):
        super().__init__()
        if width < 2 or not 1 <= layers <= 1000:
            raise ValueError(f"width={width}, layers={layers}: width must be at least 2, layers 1 to 1000")
        if not (omega > 0 and scale > 0):
            raise ValueError(f"omega={omega}, scale={scale}: both must be positive")
        self.omega, self.scale = omega, scale
        width = int(width / math.sqrt(2))
        self.first = nn.Linear(dim + code_size, width)
        self.hidden = nn.ModuleList(ComplexLinear(width, width) for _ in range(layers - 1))
        self.last = ComplexLinear(width, out)

    def wavelet(self, z: Tensor) -> Complex[Tensor, "*n"]:
        """exp(i omega z - |scale z|^2) of real or complex z."""
        # |z|^2, so that the wavelet is local in both directions; z^2 would grow along the imaginary axis
        square = z.real.square() + z.imag.square() if z.is_complex() else z.square()
        return torch.exp(1j * self.omega * z - self.scale**2 * square)

    def forward(
        self, points: Float[Tensor, "S N D"], code: Float[Tensor, "S Z"] | None = None
    ) -> Float[Tensor, "S N C"]:
        x = points if code is None else torch.cat((points, code[:, None].expand(-1, points.shape[1], -1)), -1)
        h = self.wavelet(self.first(x))
        for layer in self.hidden:
            h = self.wavelet(layer(h))
        return self.last(h).real
