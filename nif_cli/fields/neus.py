"""The network of a surface that is learned from images (NeuS, Wang et al. 2021), on a hash grid as in NeuS2
(Wang et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.grids import HashGrid
from nif_cli.fields.network import RadianceNetwork
from nif_cli.fields.ngp import _padded, _small, run, spherical_harmonics
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.surface_density import annealed, laplace_density, logistic_density, logistic_depth
from nif_cli.rendering.volume import Alpha

BETA = 100.0  # of the softplus: as in IGR


@dataclass
class Geometry:
    """A surface about some points."""

    distance: Float[Tensor, "N"]  # positive inside
    gradient: Float[Tensor, "N 3"]  # of it: inwards
    features: Float[Tensor, "N F"]  # that colours see


class NeusNetwork(RadianceNetwork):
    """A signed distance (positive inside) of the coordinates and a hash grid's features, by one hidden layer;
    colours of its features, the point, the normal and the direction (NeuS, section 3.3). It starts as the
    distance to a sphere of `radius`: the table at zero, the hidden layer's weights by the coordinates evenly
    on the sphere (Atzmon and Lipman 2020 draw them).

    Only the first `open` levels of the grid count: a training begins with `first_levels` (coarse to fine, Li
    et al. 2023). `sharpness` is where the learned one begins, one over the width of the surface's density,
    which is that of NeuS or (`density`) VolSDF's (Yariv et al. 2021). The gradient is exact, and
    differentiable by all parameters. `half`: colours compute in bfloat16, as field=ngp.
    """

    distances = True
    rate = 5e-3
    open: Tensor

    def __init__(
        self,
        shape_code: int = 0,
        appearance_code: int = 0,
        *,
        width: int = 64,
        features: int = 15,
        levels: int = 8,
        level_features: int = 4,
        log2_table: int = 19,
        base: int = 16,
        finest: float = 512,
        first_levels: int = 3,
        table_rate: float = 1.0,
        radius: float = 0.5,
        sharpness: float = 20.0,
        density: Literal["neus", "volsdf"] = "neus",
        half: bool | None = None,
    ):
        super().__init__()
        if shape_code or appearance_code:
            raise ValueError("a surface with codes: field=neus has none; train scenes one by one")
        if width < 8 or features < 1:
            raise ValueError(f"width={width}, features={features}: at least 8, at least 1")
        if density not in ("neus", "volsdf"):
            raise ValueError(f"density={density}: neus or volsdf")
        if first_levels < 1:
            raise ValueError(f"first_levels={first_levels}: at least 1")
        if not 0 < radius < 1 or not 1 <= sharpness <= 1e4:
            raise ValueError(
                f"radius={radius}, sharpness={sharpness}: between 0 and 1, and between 1 and 1e4"
            )
        first_levels = min(first_levels, levels)
        self.kind, self.first_levels, self.level_features, self.computes_in_half = (
            density,
            first_levels,
            level_features,
            half,
        )
        self.grid = HashGrid(3, levels, level_features, log2_table, base, finest, lazy=True)
        self.grid.table_rate = table_rate
        self.hidden = nn.Linear(3 + self.grid.features, width)
        self.last = nn.Linear(width, 1 + features)
        self.colours = _small(features + self.grid.features + 3 + 3 + 16, width, 3, hidden=2)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))
        self.register_buffer("open", torch.tensor(first_levels))
        self._sphere(radius, width)

    @torch.no_grad()
    def _sphere(self, radius: float, width: int) -> None:
        k = torch.arange(width) + 0.5
        z, turn = 1 - 2 * k / width, math.pi * (1 + math.sqrt(5)) * k
        side = (1 - z * z).sqrt()
        self.grid.table.zero_()
        self.hidden.weight[:, :3] = torch.stack((side * turn.cos(), side * turn.sin(), z), 1)
        self.hidden.weight[:, 3:].normal_(0, 1 / math.sqrt(width))
        self.hidden.bias.zero_()
        self.last.weight[0] = -4 / width  # directions d on the sphere: the mean of max(0, d . x) is |x| / 4
        self.last.bias[0] = radius

    @property
    def sharpness(self) -> Float[Tensor, ""]:
        return self.log_sharpness.exp()

    def span(self, extent: float) -> None:
        if extent != 1:
            raise ValueError("field=neus fills the cube [-1, 1]^3, no more")

    def geometry(self, points: Float[Tensor, "N 3"]) -> Geometry:
        levels = min(max(1, int(self.open)), len(self.grid.levels.rows))
        found = self.grid.with_slopes(points.detach(), levels)
        local, slopes = found[:, 0], found[:, 1:]
        weight = self.hidden.weight[:, : 3 + levels * self.level_features]
        z = torch.nn.functional.linear(torch.cat((points, local), 1), weight, self.hidden.bias)
        out = self.last(torch.nn.functional.softplus(z, BETA))
        by = (self.last.weight[0] * torch.sigmoid(BETA * z)) @ weight  # the distance by what the layer sees
        gradient = by[:, :3] + (slopes * by[:, None, 3:]).sum(-1)
        rest = self.grid.features - local.shape[1]
        local = torch.nn.functional.pad(local, (0, rest)) if rest else local
        return Geometry(out[:, 0], gradient, torch.cat((out[:, 1:], local), 1))

    def distance(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """The distance alone; its first derivative by the points is the exact gradient, by no parameter."""
        flat = points.reshape(-1, 3)
        with torch.no_grad():
            here = self.geometry(flat)
        value = here.distance
        if torch.is_grad_enabled() and flat.requires_grad:
            value = value + ((flat - flat.detach()) * here.gradient).sum(-1)
        return value.view(points.shape[:-1])

    def light(
        self, points: Tensor, directions: Tensor, samples: Samples, here: Geometry, share: float = 1.0
    ) -> tuple[Tensor | Alpha, Float[Tensor, "N 3"]]:
        """What a radiance gives of samples of rays; `share` is that of `annealed`."""
        colors = self.color(points, directions, here)
        if self.kind == "volsdf":
            return laplace_density(here.distance, self.sharpness), colors
        slope = annealed((here.gradient * directions).sum(1), share)
        depth = logistic_depth(here.distance, slope, samples.delta, self.sharpness)
        return Alpha(-torch.expm1(-depth)), colors

    def color(self, points: Tensor, directions: Tensor, here: Geometry) -> Float[Tensor, "N 3"]:
        normal = torch.nn.functional.normalize(here.gradient, dim=-1)
        seen = torch.cat((here.features, points, normal, spherical_harmonics(directions)), 1)
        if self._half(points.device):
            seen = _padded(seen.to(torch.bfloat16))
        return torch.sigmoid(run(self.colours, seen)[: len(points)].float())

    def _half(self, device: torch.device) -> bool:
        if self.computes_in_half is not None:
            return self.computes_in_half
        return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())

    def density_at(self, distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """That of a place so far inside."""
        made = laplace_density if self.kind == "volsdf" else logistic_density
        return made(distance, self.sharpness)

    def density(self, points: Float[Tensor, "N 3"], shape: Tensor | None = None) -> Float[Tensor, "N"]:
        return self.density_at(self.distance(points))

    def forward(
        self,
        points: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        shape: Tensor | None = None,
        appearance: Tensor | None = None,
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        here = self.geometry(points)
        return self.density_at(here.distance), self.color(points, directions, here)
