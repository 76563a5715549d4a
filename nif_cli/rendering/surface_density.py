"""Light along rays through a signed distance (inside positive): how much of it each sample stops."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def logistic_depth(
    distance: Float[Tensor, "N"],
    slope: Float[Tensor, "N"],
    delta: Float[Tensor, "N"],
    sharpness: Float[Tensor, ""],
) -> Float[Tensor, "N"]:
    """The optical depth of intervals of length `delta` about samples: NeuS (Wang et al. 2021, eq. 13), alpha
    = 1 - Phi(ahead) / Phi(behind) with the logistic Phi of the outside distance. The distances at an
    interval's ends are those of a plane: `slope` is the derivative along the ray, positive where it enters;
    where it leaves nothing is stopped.

    Intervals that meet end to end share their ends' distances on a plane, so that their depths add up: what
    is left of the light is Phi, whatever the steps. Its density is largest at the surface (unbiased), and a
    surface behind another one sees what the first leaves (occlusion-aware).
    """
    half = 0.5 * delta * slope.clamp(min=0)
    return softplus(sharpness * (distance + half)) - softplus(sharpness * (distance - half))


def laplace_density(distance: Float[Tensor, "*n"], sharpness: Float[Tensor, ""]) -> Float[Tensor, "*n"]:
    """The density of VolSDF (Yariv et al. 2021, eq. 2 and 3): `sharpness` times the cumulative Laplace
    distribution of the distance, of scale 1 / sharpness; half of it at the surface."""
    beyond = 0.5 * (-sharpness * distance.abs()).exp()
    return sharpness * torch.where(distance > 0, 1 - beyond, beyond)


def logistic_density(distance: Float[Tensor, "*n"], sharpness: Float[Tensor, ""]) -> Float[Tensor, "*n"]:
    """The density of `logistic_depth` along a ray that goes straight at the surface."""
    return sharpness * torch.sigmoid(sharpness * distance)


def annealed(slope: Float[Tensor, "N"], share: float) -> Float[Tensor, "N"]:
    """The slope that early training takes, so that surfaces seen from behind have a gradient too: from (1 +
    slope) / 2 at `share` 0 to the slope's positive part at 1 (the published code)."""
    return share * slope.clamp(min=0) + (1 - share) * (0.5 + 0.5 * slope).clamp(min=0)
