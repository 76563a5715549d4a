"""What networks and encodings say of themselves. A field of one's own is a class below one of these, a YAML
in conf/field/ that names it, and a test: docs/architecture.md has the recipe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn


class Encoding(nn.Module):
    """Coordinates [..., D] -> features [..., F]; made as encoding(dim)."""

    features: int
    """F."""
    table_rate: float | None = None
    """How many times as fast as the layers of a network its parameters learn, where they are a table of
    features."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n F"]: ...


class Network(nn.Module):
    """network(points [S, N, D], code or None) -> [S, N, C]; made as network(dim=, out=C, code_size=). The
    code is what conditions it: [S, Z], or feature planes or a grid where `local`. It knows no instance, and
    no model."""

    stacks: bool = False
    """Weights may be stacked under torch.func.functional_call, [S, ...], a set for each shape."""
    local: bool = False
    """The code is features of places (fields/local.py), not one vector a shape."""
    table_rate: float | None = None
    """As Encoding's."""
    half_side: float = 1.0
    """Half the side of the cube that a code of places spans; the model sets it to that of its normalised
    space."""

    @abstractmethod
    def forward(
        self, points: Float[Tensor, "S N D"], code: Tensor | None = None
    ) -> Float[Tensor, "S N C"]: ...

    def penalty(self) -> Tensor | None:
        """A prior of its own, added to the loss of every step; None where it has none."""
        return None

    def fill(self, samples: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        """Start from the data, where the parameters are values in space; others start where they are, and
        never ask for the samples: points [N, D] and values [N, C]."""

    def fold(self, code: Float[Tensor, "Z"] | None) -> tuple[Network, Tensor | None]:
        """For inference: a network with all computed that does not depend on the points (nor on the code,
        where that is None), and the code that it still takes."""
        return self, code


class RadianceNetwork(nn.Module):
    """radiance(points [N, 3], directions [N, 3] unit, shape [N, Z] or None, appearance [N, A] or None) ->
    density [N] (at least 0, in 1 / length of normalised space), sRGB [N, 3]; density sees only the first
    code. Made as network(shape_code=, appearance_code=)."""

    hierarchical: bool = False
    """How rays are sampled: by a coarse network of the same kind, or by a grid of occupied cells."""
    distances: bool = False
    """Its geometry is a signed distance, of which it makes the density."""
    rate: float = 1e-3
    """The learning rate where the user gives none."""

    @abstractmethod
    def density(self, points: Float[Tensor, "N 3"], shape: Tensor | None = None) -> Float[Tensor, "N"]:
        """The density alone."""

    @abstractmethod
    def forward(
        self,
        points: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        shape: Tensor | None = None,
        appearance: Tensor | None = None,
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]: ...

    def span(self, extent: float) -> None:
        """Cover [-extent, extent]^3; networks of plain coordinates do so anyway."""
