"""What training minimises: pure functions of tensors. Distances are positive inside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def clamped_l1(predicted: Float[Tensor, "*n"], distance: Float[Tensor, "*n"], clamp: float) -> Float[Tensor, ""]:
    """mean |clamp(predicted) - clamp(distance)|, both clamped to +-clamp (DeepSDF, eq. 4), without its dead zone.

    As published, a prediction beyond the clamp on the wrong side has no gradient, and a network that starts there never
    leaves (everything collapses to one sign). Here a prediction is clamped only on the side where the target is: the same
    value within +-clamp, the same minima, and a way back from everywhere.
    """
    error = predicted - distance.clamp(-clamp, clamp)
    error = torch.where(distance >= clamp, error.clamp(max=0), error)
    return torch.where(distance <= -clamp, error.clamp(min=0), error).abs().mean()


def eikonal(gradient: Float[Tensor, "*n D"]) -> Float[Tensor, ""]:
    """mean | ||gradient|| - 1 | (SIREN, eq. 6)."""
    return (gradient.norm(dim=-1) - 1).abs().mean()


def normal_alignment(gradient: Float[Tensor, "*n D"], normals: Float[Tensor, "*n D"]) -> Float[Tensor, ""]:
    """mean of 1 - cos(angle) between the outward normals and the outward direction, minus the gradient (SIREN, eq. 6)."""
    return (1 + F.cosine_similarity(gradient, normals, dim=-1)).mean()


def off_surface(value: Float[Tensor, "*n"], sharpness: float = 100.0) -> Float[Tensor, ""]:
    """mean exp(-sharpness |value|): no surface where there are no points (SIREN, eq. 6)."""
    return torch.exp(-sharpness * value.abs()).mean()
