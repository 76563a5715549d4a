"""The published NeRF network (Mildenhall et al. 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.encodings import Positional
from nif_cli.fields.network import RadianceNetwork


class _Density(torch.autograd.Function):
    """ReLU; but where it is 0, a gradient that asks for more passes. Else a network that is negative
    everywhere, as some are at first, stays so: an empty (on white: a white) scene that nothing changes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * ((x > 0) | (grad < 0))


class NerfNetwork(RadianceNetwork):
    """The published network (Mildenhall et al. 2020, figure 7): 595,844 parameters as it stands there."""

    hierarchical = True
    rate = 5e-4

    def __init__(
        self,
        shape_code: int = 0,
        appearance_code: int = 0,
        *,
        width: int = 256,
        layers: int = 8,
        skip: int = 4,
        frequencies: int = 10,
        view_frequencies: int = 4,
    ):
        super().__init__()
        if width < 2 or layers < 1 or not 0 <= skip < max(1, layers - 1):
            raise ValueError(
                f"width={width}, layers={layers}, skip={skip}: at least 2, 1, and a layer that has one "
                "after it"
            )
        self.places, self.views = Positional(3, frequencies), Positional(3, view_frequencies)
        given, seen = self.places.features + shape_code, self.views.features + appearance_code
        self.skip = skip
        widths = [given] + [width + given * (n == skip) for n in range(layers - 1)]
        self.trunk = nn.ModuleList(nn.Linear(n, width) for n in widths)
        self.sigma, self.bottleneck = nn.Linear(width, 1), nn.Linear(width, width)
        self.branch, self.rgb = nn.Linear(width + seen, width // 2), nn.Linear(width // 2, 3)

    def _trunk(self, points: Tensor, shape: Tensor | None) -> Tensor:
        given = self.places(points)
        given = given if shape is None else torch.cat((given, shape), -1)
        h = given
        for n, layer in enumerate(self.trunk):
            h = torch.relu(layer(h))
            # figure 7: the fifth layer's activations have the input beside them
            if n == self.skip and n + 1 < len(self.trunk):
                h = torch.cat((given, h), -1)
        return h

    def density(self, points: Float[Tensor, "N 3"], shape: Tensor | None = None) -> Float[Tensor, "N"]:
        return _Density.apply(self.sigma(self._trunk(points, shape))[:, 0])  # type: ignore[return-value]

    def forward(
        self,
        points: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        shape: Tensor | None = None,
        appearance: Tensor | None = None,
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        # density depends on the place alone: geometry looks the same from everywhere (section 3)
        h = self._trunk(points, shape)
        seen = [self.bottleneck(h), self.views(directions)] + ([] if appearance is None else [appearance])
        rgb = torch.sigmoid(self.rgb(torch.relu(self.branch(torch.cat(seen, -1)))))
        return _Density.apply(self.sigma(h)[:, 0]), rgb  # type: ignore[return-value]
