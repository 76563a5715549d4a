"""What encoders say of themselves."""

from __future__ import annotations

from typing import Literal

from torch import nn

Kind = Literal["points", "samples", "image", "voxels"]


class Encoder(nn.Module):
    """What is seen of S shapes -> their codes: [S, Z], or where `local` feature planes [S, 3, Z, R, R] or a
    grid [S, Z, R, R, R]. Its input: points [S, P, 3]; samples and whether they are inside, [S, P, 3] and [S,
    P]; images [S, 3, H, W] of sRGB bytes; or occupied voxels [S, R, R, R]."""

    kind: Kind
    """Which of these it takes."""
    code_size: int
    """Z."""
    size: int
    """How much it learns from: points of a cloud, pixels or voxels along a side."""
    noise: float = 0.0
    """Standard deviation of what is added to a cloud while it learns, in units of normalised space."""
    views: int = 1
    """Images of each shape that it learns from."""
    local: bool = False
    variational: bool = False
    """It gives means and logarithms of variances, [S, 2 Z]: codes are random variables."""
    half_side: float = 1.0
    """Half the side of the cube that features of places span; the model sets it to `span` of its space's."""
    span: float = 1.0
