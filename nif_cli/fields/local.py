"""A small decoder fed by features interpolated where the point is: convolutional occupancy networks (Peng et
al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nif_cli.fields.blocks import ResidualBlock
from nif_cli.fields.network import Network

# the axes (u, v) of each plane: xz, xy, yz; a plane is stored [C, v, u], a grid [C, z, y, x]
PLANES = (
    (0, 2),
    (0, 1),
    (1, 2),
)


class _Gather(torch.autograd.Function):
    """sum_k weight[p, k] * rows[index[p, k]]: no [P, K, C] in memory on the way there, one scatter on the way
    back. On two CPU cores a quarter of the time of grid_sample. The weights get no gradient: see
    `interpolate`."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(index, weight)
        ctx.shape, ctx.dtype = rows.shape, rows.dtype
        return F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight.to(rows))

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        index, weight = ctx.saved_tensors
        grad = grad.float()
        out = torch.zeros(ctx.shape, device=grad.device)
        out.index_add_(0, index.view(-1), (grad[:, None] * weight[..., None]).view(-1, grad.shape[-1]))
        return out.to(ctx.dtype), None, None


def corners(
    x: Float[Tensor, "S N K"], size: int, base: Int[Tensor, "S 1"]
) -> tuple[Int[Tensor, "S N Q"], Float[Tensor, "S N Q"]]:
    """For positions `x` in [0, 1]^K on a lattice of size^K nodes (both ends included): the rows of the 2^K
    nodes around, counted from `base` with the first axis running fastest, and their multilinear weights."""
    x = x.clamp(0, 1) * (size - 1)
    low = x.detach().long().clamp(max=size - 2)
    part = x - low
    index, weight = base[..., None], torch.ones_like(part[..., :1])
    for axis in range(x.shape[-1]):
        step = low[..., axis, None] * size**axis
        index = torch.cat((index + step, index + step + size**axis), -1)
        of = part[..., axis, None]
        weight = torch.cat((weight * (1 - of), weight * of), -1)
    return index, weight


def interpolate(code: Tensor, points: Float[Tensor, "S N 3"], half: float) -> Float[Tensor, "S N C"]:
    """Features at `points`: bilinear on three planes [S, 3, C, R, R], summed, or trilinear in a grid [S, C,
    R, R, R]. They span the cube [-half, half]^3; what lies outside is moved to its border. A grid has more
    than three channels."""
    x = points.float() / (2 * half) + 0.5
    size, shapes = code.shape[-1], torch.arange(len(code), device=code.device)[:, None]
    # the three planes' features add up: one bag of twelve rows a point
    if code.shape[1] == 3:
        rows = code.permute(0, 1, 3, 4, 2).reshape(-1, code.shape[2])
        parts = [corners(x[..., axes], size, (3 * shapes + k) * size**2) for k, axes in enumerate(PLANES)]
        index, weight = (torch.cat(both, -1) for both in zip(*parts, strict=True))
    else:
        rows = code.permute(0, 2, 3, 4, 1).reshape(-1, code.shape[1])
        index, weight = corners(x, size, shapes * size**3)
    index, weight = index.flatten(0, 1), weight.flatten(0, 1)
    if points.requires_grad:  # normals: through the weights too
        found = (rows[index].float() * weight[..., None]).sum(1)
    else:
        found = _Gather.apply(rows, index, weight)
    return found.view(*points.shape[:2], -1)  # type: ignore[union-attr]


class LocalDecoder(Network):
    """`blocks` residual blocks of `width`, each with a linear map of the features interpolated at the point
    added before it. network(points [S, N, 3], code: planes [S, 3, Z, R, R] or grid [S, Z, R, R, R]) -> [S, N,
    C].
    """

    local = True

    def __init__(self, dim: int = 3, out: int = 1, code_size: int = 0, *, width: int = 32, blocks: int = 5):
        super().__init__()
        if width < 1 or not 1 <= blocks <= 1000:
            raise ValueError(f"width={width}, blocks={blocks}: both must be at least 1")
        if code_size < 4:
            raise ValueError(
                "it takes feature planes or a grid: choose encoder=pointcloud_planes or pointcloud_grid"
            )
        self.first = nn.Linear(dim, width)
        self.features = nn.Linear(code_size, blocks * width)  # the maps of all blocks at once
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.last = nn.Linear(width, out)

    def forward(
        self, points: Float[Tensor, "S N 3"], code: Float[Tensor, "S _ _ _ _"] | None = None
    ) -> Float[Tensor, "S N C"]:
        assert code is not None  # the constructor has seen to it
        features = self.features(interpolate(code, points, self.half_side)).chunk(len(self.blocks), -1)
        h = self.first(points)
        for block, here in zip(self.blocks, features, strict=True):
            h = block(h + here)
        return self.last(torch.relu(h))
