"""The residual block that decoders and encoders of occupancy networks share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + W1 relu(W0 relu(x)), with a linear shortcut where the width changes (Mescheder et al. 2019,
    supplement); the last layer starts at zero."""

    def __init__(self, features: int, out: int | None = None, hidden: int | None = None):
        super().__init__()
        out = out or features
        hidden = hidden or min(features, out)
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, out)
        self.shortcut = nn.Linear(features, out, bias=False) if out != features else None
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Float[Tensor, "*n I"]) -> Float[Tensor, "*n O"]:
        change = self.second(torch.relu(self.first(torch.relu(x))))
        return change + (x if self.shortcut is None else self.shortcut(x))
