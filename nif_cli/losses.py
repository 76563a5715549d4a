"""What training minimises: pure functions of tensors. Distances are positive inside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def clamped_l1(
    predicted: Float[Tensor, "*n"], distance: Float[Tensor, "*n"], clamp: float
) -> Float[Tensor, ""]:
    """mean |clamp(predicted) - clamp(distance)|, both clamped to +-clamp (DeepSDF, eq. 4), without its dead
    zone.

    As published, a prediction beyond the clamp on the wrong side has no gradient, and a network that starts
    there never leaves (everything collapses to one sign). Here a prediction is clamped only on the side where
    the target is: the same value within +-clamp, the same minima, and a way back from everywhere.
    """
    return clamped_error(predicted, distance, clamp).mean()


def clamped_error(
    predicted: Float[Tensor, "*n"], distance: Float[Tensor, "*n"], clamp: float
) -> Float[Tensor, "*n"]:
    """What `clamped_l1` is the mean of, for each point; clamp may be inf."""
    error = predicted - distance.clamp(-clamp, clamp)
    # at or beyond the clamp a prediction may be anything that lies still farther on the target's side
    error = torch.where(distance >= clamp, error.clamp(max=0), error)
    return torch.where(distance <= -clamp, error.clamp(min=0), error).abs()


def two_headed(
    out: Float[Tensor, "*n 2"], distance: Float[Tensor, "*n"], log_sigma: Float[Tensor, "2"]
) -> Float[Tensor, "*n"]:
    """For each point the cross-entropy of the sign logit out[..., 0] and the L1 error of the unsigned
    distance out[..., 1], weighted by learned uncertainties: BCE / 2 s0^2 + L1 / 2 s1^2 + log s0 s1 (Kendall
    et al. 2018; MetaSDF, section 3.2)."""
    sign = F.binary_cross_entropy_with_logits(out[..., 0], (distance > 0).to(out), reduction="none")
    error = (out[..., 1] - distance.abs()).abs()
    # the last term keeps both sigmas from growing for ever, which would make any error cheap
    return 0.5 * (sign * (-2 * log_sigma[0]).exp() + error * (-2 * log_sigma[1]).exp()) + log_sigma.sum()


def eikonal(gradient: Float[Tensor, "*n D"]) -> Float[Tensor, ""]:
    """mean | ||gradient|| - 1 | (SIREN, eq. 6)."""
    # IGR has the square; the absolute value is gentler on the few points of large gradients, as at creases
    return (gradient.norm(dim=-1) - 1).abs().mean()


def normal_alignment(gradient: Float[Tensor, "*n D"], normals: Float[Tensor, "*n D"]) -> Float[Tensor, ""]:
    """mean of 1 - cos(angle) between the outward normals and the outward direction, minus the gradient
    (SIREN, eq. 6)."""
    # values are larger inside, so the gradient looks inwards: at best the cosine is -1
    return (1 + F.cosine_similarity(gradient, normals, dim=-1)).mean()


def off_surface(value: Float[Tensor, "*n"], sharpness: float = 100.0) -> Float[Tensor, ""]:
    """mean exp(-sharpness |value|): no surface where there are no points (SIREN, eq. 6)."""
    return torch.exp(-sharpness * value.abs()).mean()


def depth_error(
    made: Float[Tensor, "R"], known: Float[Tensor, "R"], valid: Bool[Tensor, "R"]
) -> Float[Tensor, ""]:
    """How far from what is known to be there (along rays; 0: nothing is known) the light comes from, on
    average over the rays that count; light from nowhere is as far away as can be."""
    apart = (made - known).abs()[(known > 0) & valid]
    return apart.mean() if apart.numel() else apart.sum()
