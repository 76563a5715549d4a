"""Voxel grids -> codes: a small 3D convolutional network (Mescheder et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nif_cli.encoders.encoder import Encoder


class VoxelNet(Encoder):
    """occupied [S, R, R, R] -> code [S, Z]: a 3x3x3 convolution, then four that halve the resolution and
    double the features, and a linear layer on what is left. Published: 32 features first, R = `size` = 32,
    which leaves 2^3 cells."""

    kind = "voxels"

    def __init__(self, code_size: int = 256, size: int = 32, width: int = 32):
        super().__init__()
        if code_size < 1 or width < 1 or size < 16 or size % 16:
            raise ValueError(
                f"code_size={code_size}, width={width}, size={size}: all positive, size a multiple of 16"
            )
        self.code_size, self.size = code_size, size
        widths = [width * 2**i for i in range(5)]
        self.first = nn.Conv3d(1, widths[0], 3, padding=1)
        self.halving = nn.ModuleList(nn.Conv3d(a, 2 * a, 3, padding=1, stride=2) for a in widths[:-1])
        self.last = nn.Linear(widths[-1] * (size // 16) ** 3, code_size)

    def forward(self, occupied: Tensor) -> Tensor:
        x = occupied[:, None].float().contiguous(memory_format=torch.channels_last_3d)
        x = self.first(x)
        for conv in self.halving:
            x = conv(torch.relu(x))
        return self.last(torch.relu(x).contiguous().flatten(1))
