"""Point clouds -> codes: the residual PointNet (Qi et al. 2017; Mescheder et al. 2019), and its local kin,
whose features lie on planes or in a grid (Peng et al. 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nif_cli.encoders.encoder import Encoder
from nif_cli.encoders.unet import UNet
from nif_cli.fields.blocks import ResidualBlock
from nif_cli.fields.local import PLANES


class PointNet(Encoder):
    """points [S, P, 3] -> code [S, Z]: `blocks` residual blocks a point, the maximum over all points beside
    each, and a linear layer on the last maximum. Published: width 512, five blocks. `points` and `noise`
    (standard deviation, in units of normalised space) are those of the clouds that it learns from."""

    kind = "points"

    def __init__(
        self, code_size: int = 256, points: int = 300, noise: float = 0.005, width: int = 512, blocks: int = 5
    ):
        super().__init__()
        check_cloud(code_size, points, noise, width, blocks)
        self.code_size, self.size, self.noise = code_size, points, noise
        self.first = nn.Linear(3, 2 * width)
        self.blocks = nn.ModuleList(ResidualBlock(2 * width, width) for _ in range(blocks))
        self.last = nn.Linear(width, code_size)

    def forward(self, points: Float[Tensor, "S P 3"]) -> Float[Tensor, "S Z"]:
        h = self.first(points)
        for i, block in enumerate(self.blocks):
            if i:
                h = torch.cat((h, h.amax(1, keepdim=True).expand_as(h)), -1)
            h = block(h)
        return self.last(torch.relu(h.amax(1)))


class LocalPointNet(Encoder):
    """points [S, P, 3] -> planes [S, 3, Z, R, R] (layout planes: xz, xy, yz) or a grid [S, Z, R, R, R]
    (layout grid).

    A PointNet whose maxima (`pool: max`; or means, which are cheaper) are those of the points in the same
    cell of a plane or of the grid, the features averaged a cell, and a U-Net on them. Published: 32 wide,
    five blocks, 64^2 planes with a U-Net of depth 4, or a 32^3 grid with one of depth 3 (and `group_norm`).
    `span`: the side of the cube that they span, of the one that bounds the shapes.
    """

    kind, local = "points", True

    def __init__(
        self,
        code_size: int = 32,
        points: int = 3000,
        noise: float = 0.005,
        layout: Literal["planes", "grid"] = "planes",
        resolution: int = 64,
        width: int = 32,
        blocks: int = 5,
        pool: Literal["max", "mean"] = "max",
        unet_depth: int = 4,
        unet_width: int = 32,
        group_norm: bool = True,
        span: float = 1.0,
    ):
        super().__init__()
        check_cloud(code_size, points, noise, width, blocks)
        if code_size < 4:
            raise ValueError(f"code_size={code_size}: feature planes and grids have at least 4 channels")
        if unet_depth < 1 or resolution < 2 or resolution % 2 ** (unet_depth - 1):
            raise ValueError(
                f"resolution={resolution}: must be a multiple of {2 ** (unet_depth - 1)}, as "
                f"unet_depth={unet_depth} halves it"
            )
        self.code_size, self.size, self.noise, self.layout, self.resolution = (
            code_size,
            points,
            noise,
            layout,
            resolution,
        )
        if not 0 < span <= 1:
            raise ValueError(f"span={span}: must be in (0, 1]")
        self.pool, self.span = pool, span
        self.first = nn.Linear(3, 2 * width)
        self.blocks = nn.ModuleList(ResidualBlock(2 * width, width) for _ in range(blocks))
        self.last = nn.Linear(width, code_size)
        self.unet = UNet(
            2 if layout == "planes" else 3, code_size, code_size, unet_width, unet_depth, group_norm
        )

    def forward(self, points: Float[Tensor, "S P 3"]) -> Float[Tensor, "S _ _ _ _"]:
        shapes, size = len(points), self.resolution
        flat = points.flatten(0, 1)
        cells = self.cells(points)
        shared = [torch.unique(cell, return_inverse=True) for cell in cells]  # cells with points, numbered
        h = self.first(flat)
        for i, block in enumerate(self.blocks):
            if i:
                near = [self._pooled(h, number, len(kept)) for kept, number in shared]
                h = torch.cat((h, torch.stack(near).sum(0) if len(near) > 1 else near[0]), -1)
            h = block(h)
        h = self.last(h).float()
        rows = h.new_zeros(self._rows(shapes), self.code_size)
        count = h.new_zeros(len(rows))
        for cell in cells:
            rows = rows.index_add(0, cell, h)
            count.index_add_(0, cell, h.new_ones(len(cell)))
        rows = rows / count.clamp(min=1)[:, None]
        if self.layout == "planes":
            features = self.unet(rows.view(3 * shapes, size, size, -1).permute(0, 3, 1, 2))
            return features.unflatten(0, (shapes, 3))
        return self.unet(rows.view(shapes, size, size, size, -1).permute(0, 4, 1, 2, 3))

    def _rows(self, shapes: int) -> int:
        return shapes * (3 * self.resolution**2 if self.layout == "planes" else self.resolution**3)

    def cells(self, points: Float[Tensor, "S P 3"]) -> list[Int[Tensor, "Q"]]:
        """The row of the cell around the nearest node that each point lies in, for each plane or for the
        grid; the nodes are those that `fields.local.interpolate` reads."""
        size = self.resolution
        x = ((points / (2 * self.half_side) + 0.5).clamp(0, 1) * (size - 1) + 0.5).long()
        shape = torch.arange(len(points), device=points.device)[:, None]
        if self.layout == "grid":
            return [(((shape * size + x[..., 2]) * size + x[..., 1]) * size + x[..., 0]).flatten()]
        return [
            (((3 * shape + k) * size + x[..., v]) * size + x[..., u]).flatten()
            for k, (u, v) in enumerate(PLANES)
        ]

    def _pooled(self, h: Float[Tensor, "Q H"], cell: Int[Tensor, "Q"], count: int) -> Float[Tensor, "Q H"]:
        """The maximum or the mean over the points of the same of `count` cells, at each point."""
        if self.pool == "max":
            rows = h.new_full((count, h.shape[1]), -torch.inf).scatter_reduce(
                0, cell[:, None].expand_as(h), h, "amax"
            )
        else:
            points = torch.bincount(cell, minlength=count).to(h)[:, None]
            rows = h.new_zeros(count, h.shape[1]).index_add(0, cell, h) / points
        return rows.index_select(0, cell)


class LatentEncoder(Encoder):
    """Points with their occupancy -> mean and logarithm of the variance of a code, [S, 2 Z]: the encoder of
    the unconditional variant, a variational auto-encoder (Mescheder et al. 2019, section 3.2)."""

    kind, variational = "samples", True

    def __init__(self, code_size: int = 128, points: int = 2048, width: int = 128, blocks: int = 4):
        super().__init__()
        check_cloud(code_size, points, 0.0, width, blocks)
        self.code_size, self.size = code_size, points
        self.first = nn.Linear(4, 2 * width)
        self.blocks = nn.ModuleList(ResidualBlock(2 * width, width) for _ in range(blocks))
        self.last = nn.Linear(width, 2 * code_size)
        nn.init.zeros_(self.last.bias)

    def forward(self, points: Float[Tensor, "S P 3"], inside: Tensor) -> Float[Tensor, "S Z2"]:
        h = self.first(torch.cat((points, 2 * inside[..., None].to(points) - 1), -1))
        for i, block in enumerate(self.blocks):
            if i:
                h = torch.cat((h, h.amax(1, keepdim=True).expand_as(h)), -1)
            h = block(h)
        return self.last(torch.relu(h.amax(1))).float()


def check_cloud(code_size: int, points: int, noise: float, width: int, blocks: int) -> None:
    """ValueError for settings of an encoder that make no sense."""
    if min(code_size, points, width, blocks) < 1 or not noise >= 0:
        raise ValueError(
            f"code_size={code_size}, points={points}, width={width}, blocks={blocks}, noise={noise}: "
            "all must be positive (noise 0 or more)"
        )
