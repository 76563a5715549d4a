"""U-Nets (Ronneberger et al. 2015; Cicek et al. 2016), on planes and on grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """[B, in, R, R(, R)] -> [B, out, R, R(, R)], with `depth` levels, each of half the resolution and twice
    the features of the one above, `width` at the first.

    In two dimensions as the convolutional occupancy networks have it: two 3x3 convolutions with bias a level,
    max-pooling, transposed convolutions upwards, and the features of the way down beside them. In three
    dimensions (Wolny et al. 2020) each convolution follows a group norm and has no bias, a level's first
    convolution keeps the features, and the way up repeats the nearest value; without `group_norm` it has
    biases, and takes half the time on a CPU. Memory is channels-last: that is what the fast convolutions of a
    CPU want.
    """

    def __init__(
        self, dim: int, features: int, out: int, width: int = 32, depth: int = 4, group_norm: bool = True
    ):
        super().__init__()
        self.dim = dim
        conv = nn.Conv2d if dim == 2 else nn.Conv3d
        widths = [width * 2**i for i in range(depth)]
        self.down, self.up, self.raise_ = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        enters = features
        for leaves in widths:
            middle = leaves if dim == 2 else max(leaves // 2, enters)
            self.down.append(_pair(conv, enters, middle, leaves, dim == 3 and group_norm))
            enters = leaves
        for leaves in widths[-2::-1]:
            if dim == 2:
                self.raise_.append(nn.ConvTranspose2d(enters, leaves, 2, stride=2))
            self.up.append(
                _pair(
                    conv, 2 * leaves if dim == 2 else enters + leaves, leaves, leaves, dim == 3 and group_norm
                )
            )
            enters = leaves
        self.last = conv(enters, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        layout = torch.channels_last if self.dim == 2 else torch.channels_last_3d
        pool = F.max_pool2d if self.dim == 2 else F.max_pool3d
        x = x.contiguous(memory_format=layout)  # type: ignore[call-overload]
        before: list[Tensor] = []
        for i, pair in enumerate(self.down):
            x = pair(pool(x, 2) if i else x)
            before.append(x)
        for i, pair in enumerate(self.up):
            x = self.raise_[i](x) if self.dim == 2 else F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = pair(torch.cat((x, before[-2 - i]) if self.dim == 2 else (before[-2 - i], x), 1))
        return self.last(x)


def _pair(conv: type[nn.Module], features: int, middle: int, out: int, group_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((features, middle), (middle, out)):
        if group_norm:
            layers.append(nn.GroupNorm(8 if a % 8 == 0 else 1, a))
        layers += [conv(a, b, 3, padding=1, bias=not group_norm), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
