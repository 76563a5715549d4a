"""Decoders whose every layer is conditioned by a code: occupancy networks (Mescheder et al. 2019) and
FiLM."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.batch_norm import batch_norm
from nif_cli.fields.mlp import Linear
from nif_cli.fields.network import Network

CACHED = 2048  # points at a time


class Modulation(nn.Module):
    """h -> gamma(code) * h + beta(code) by features, both linear in the code and 1 and 0 at first (FiLM,
    Perez et al. 2018); with `normalise` h is batch-normalised before (conditional batch norm, de Vries et al.
    2017)."""

    mean: Tensor
    var: Tensor
    EPS, MOMENTUM = 1e-5, 0.1

    def __init__(self, code_size: int, features: int, normalise: bool):
        super().__init__()
        self.gamma, self.beta = nn.Linear(code_size, features), nn.Linear(code_size, features)
        nn.init.zeros_(self.gamma.weight)
        nn.init.ones_(self.gamma.bias)
        nn.init.zeros_(self.beta.weight)
        nn.init.zeros_(self.beta.bias)
        self.normalise = normalise
        if normalise:
            self.register_buffer("mean", torch.zeros(features))
            self.register_buffer("var", torch.ones(features))

    def forward(self, h: Float[Tensor, "S N H"], code: Float[Tensor, "S Z"]) -> Float[Tensor, "S N H"]:
        if self.normalise:
            # over the points of all shapes together, as published: nothing of one shape in it
            flat = batch_norm(h.flatten(0, 1), self.mean, self.var, self.training, self.MOMENTUM, self.EPS)
            h = flat.view(h.shape)
        return torch.addcmul(self.beta(code)[:, None].to(h), h, self.gamma(code)[:, None].to(h))

    def affine(self, code: Float[Tensor, "Z"]) -> tuple[Float[Tensor, "H"], Float[Tensor, "H"]]:
        """Scale and shift for one code, in evaluation: what remains of all this."""
        scale, shift = self.gamma(code), self.beta(code)
        if self.normalise:
            scale = scale * (self.var + self.EPS).rsqrt()
            shift = shift - scale * self.mean
        return scale, shift


class ConditionalResNet(Network):
    """points -> `width`, then `blocks` residual blocks of two layers, then one linear layer on the
    activations.

    `condition`: cbn puts a conditional batch norm in front of every activation (Mescheder et al. 2019: width
    256, 5 blocks; 2,106,625 parameters with a code of 256), film the same without the normalisation, concat
    gives the code to the first layer beside the points. network(points [S, N, D], code [S, Z]) -> [S, N, C].
    """

    def __init__(
        self,
        dim: int = 3,
        out: int = 1,
        code_size: int = 0,
        *,
        width: int = 256,
        blocks: int = 5,
        condition: Literal["cbn", "film", "concat"] = "cbn",
    ):
        super().__init__()
        if width < 1 or not 1 <= blocks <= 1000:
            raise ValueError(f"width={width}, blocks={blocks}: both must be at least 1")
        if code_size < 1 and condition != "concat":
            raise ValueError(
                f"condition={condition}: there is no code to condition by; choose an encoder, or "
                "field=positional"
            )
        self.first = Linear(dim, width, code_size if condition == "concat" else 0)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(2 * blocks))
        for layer in list(self.inner)[1::2]:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        modulated = 0 if condition == "concat" else 2 * blocks + 1
        self.modulations = nn.ModuleList(
            Modulation(code_size, width, condition == "cbn") for _ in range(modulated)
        )
        self.last = nn.Linear(width, out)

    def forward(
        self, points: Float[Tensor, "S N D"], code: Float[Tensor, "S Z"] | None = None
    ) -> Float[Tensor, "S N C"]:
        h = self.first(points, None if self.modulations else code).view(*points.shape[:2], -1)

        def active(i: int, x: Tensor) -> Tensor:
            return torch.relu(self.modulations[i](x, code) if self.modulations else x)

        for i in range(0, len(self.inner), 2):
            h = h + self.inner[i + 1](active(i + 1, self.inner[i](active(i, h))))
        return self.last(active(len(self.inner), h))

    def fold(self, code: Float[Tensor, "Z"] | None) -> tuple[Network, Tensor | None]:
        """For one code every modulation is one scale and shift a feature, those behind a linear layer merged
        into it (those on the residual stream, which others read too, cannot be)."""
        return (Folded(self, code), None) if code is not None and self.modulations else (self, code)


class Folded(Network):
    """A ConditionalResNet in evaluation, for one code: network(points [S, N, D]) -> [S, N, C]."""

    @torch.no_grad()
    def __init__(self, network: ConditionalResNet, code: Float[Tensor, "Z"]):
        super().__init__()
        self.first, self.last = network.first, network.last
        affine = [m.affine(code) for m in network.modulations]  # type: ignore[operator]
        self.scale_shift = affine[::2]  # on the residual stream
        self.layers: list[tuple[Tensor, Tensor]] = []
        for i, layer in enumerate(network.inner):
            weight, bias = layer.weight, layer.bias
            if i % 2 == 0:
                scale, shift = affine[i + 1]
                weight, bias = scale[:, None] * weight, torch.addcmul(shift, scale, bias)  # type: ignore
            self.layers.append((weight.T.contiguous(), bias))  # type: ignore[union-attr, operator, arg-type]

    def forward(self, points: Float[Tensor, "S N D"], code: Tensor | None = None) -> Float[Tensor, "S N C"]:
        flat = points.flatten(0, 1)
        # on a CPU what stays in the cache: a third of the time of large tensors, each of which is faulted in
        # anew
        parts = flat.split(CACHED) if flat.device.type == "cpu" and len(flat) else (flat,)
        return torch.cat([self._values(part) for part in parts]).view(*points.shape[:2], -1)

    def _values(self, points: Float[Tensor, "Q D"]) -> Float[Tensor, "Q C"]:
        h = self.first(points)
        for i in range(0, len(self.layers), 2):
            scale, shift = self.scale_shift[i // 2]
            x = torch.addcmul(shift, h, scale).relu_()
            (w0, b0), (w1, b1) = self.layers[i], self.layers[i + 1]
            h = h + torch.addmm(b1, torch.addmm(b0, x, w0).relu_(), w1)
        scale, shift = self.scale_shift[-1]
        return self.last(torch.addcmul(shift, h, scale).relu_())
