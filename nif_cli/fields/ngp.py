"""The network of Instant-NGP (Mueller et al. 2022) for scenes: a hash grid, two small networks after it."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.grids import HashGrid
from nif_cli.fields.network import RadianceNetwork

DENSEST = 15.0  # exp is cut here (and so is its gradient): exp(15) is opaque within any step


class NgpNetwork(RadianceNetwork):
    """A hash grid and two small networks (Mueller et al. 2022, section 5.4): one gives log density and
    `features`, the other, from those and the spherical harmonics of the direction, colour. No biases. The
    grid spans [-1, 1]^3, or what `span` says.

    With an appearance code, the colours see the grid's features too: patterns are made of more than geometry.
    The table learns `table_rate` times as fast as the networks. `half`: those compute in bfloat16; null where
    the CPU has instructions for that, and on a GPU.
    """

    rate = 1e-2

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
        table_rate: float = 2.0,
        half: bool | None = None,
    ):
        super().__init__()
        if width < 1 or features < 1:
            raise ValueError(f"width={width}, features={features}: at least 1")
        self.extent, self.computes_in_half = 1.0, half
        self._grid = (3, levels, level_features, log2_table, base), finest, table_rate
        self.span(1.0)
        given = self.grid.features + shape_code
        self.geometry = _small(given, width, 1 + features, hidden=1)
        seen = features + 16 + (appearance_code + self.grid.features if appearance_code else 0)
        self.colours = _small(seen, width, 3, hidden=2)

    def span(self, extent: float) -> None:
        """A new grid, over [-extent, extent]^3; its finest cells stay as small as they are."""
        given, finest, table_rate = self._grid
        self.extent, self.grid = extent, HashGrid(*given, finest * extent, lazy=True)
        self.grid.table_rate = table_rate

    def _half(self, device: torch.device) -> bool:
        if self.computes_in_half is not None:
            return self.computes_in_half
        return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())

    def _geometry(self, points: Tensor, shape: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Density in float32, the features that colours see, those of the grid."""
        local = self.grid(points / self.extent)
        if self._half(points.device):
            local = _padded(local.to(torch.bfloat16))
        given = local if shape is None else torch.cat((local, _padded(shape.to(local), len(local))), -1)
        out = run(self.geometry, given)
        # exp, not ReLU: densities span orders of magnitude, and what is nearly empty keeps a gradient
        return torch.exp(out[: points.shape[0], 0].float().clamp(-DENSEST, DENSEST)), out[:, 1:], local

    def density(self, points: Float[Tensor, "N 3"], shape: Tensor | None = None) -> Float[Tensor, "N"]:
        return self._geometry(points, shape)[0]

    def forward(
        self,
        points: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        shape: Tensor | None = None,
        appearance: Tensor | None = None,
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        density, features, local = self._geometry(points, shape)
        seen = [features, _padded(spherical_harmonics(directions).to(features), len(features))]
        if appearance is not None:
            seen += [local, _padded(appearance.to(features), len(features))]
        return density, torch.sigmoid(run(self.colours, torch.cat(seen, -1))[: points.shape[0]].float())


def _small(given: int, width: int, out: int, hidden: int) -> nn.ModuleList:
    widths = [given] + [width] * hidden + [out]
    return nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))


def _padded(x: Float[Tensor, "N F"], rows: int | None = None) -> Float[Tensor, "M F"]:
    """With rows of zeros at the end, to `rows`, or to one of eight numbers in each octave: oneDNN compiles
    its products anew for every size that it has not met, which takes longer than they do."""
    count = len(x)
    if rows is None:
        unit = max(256, 1 << max(0, count.bit_length() - 4))
        rows = -(-count // unit) * unit
    return x if rows == count else torch.nn.functional.pad(x, (0, 0, 0, rows - count))


def run(layers: nn.ModuleList, x: Float[Tensor, "N F"]) -> Float[Tensor, "N C"]:
    """Linear layers with ReLU between them, in the precision of x."""
    for n, layer in enumerate(layers):
        x = torch.nn.functional.linear(torch.relu(x) if n else x, layer.weight.to(x.dtype))  # type: ignore[union-attr]
    return x


def spherical_harmonics(directions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 16"]:
    """The real spherical harmonics of degree 0 to 3 of unit directions, orthonormal on the sphere (Mueller et
    al. 2022 take these 16 for directions)."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    columns = (
        torch.full_like(x, 0.28209479177387814),
        -0.48860251190291987 * y,
        0.48860251190291987 * z,
        -0.48860251190291987 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (3 * zz - 1),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (xx - yy),
        0.5900435899266435 * y * (yy - 3 * xx),
        2.890611442640554 * x * y * z,
        0.4570457994644658 * y * (1 - 5 * zz),
        0.3731763325901154 * z * (5 * zz - 3),
        0.4570457994644658 * x * (1 - 5 * zz),
        1.4453057213202769 * z * (xx - yy),
        0.5900435899266435 * x * (3 * yy - xx),
    )
    return torch.stack(columns, -1)
