"""Losses against hand values and finite differences."""

import math

import pytest
import torch

from nif_cli.losses import clamped_error, clamped_l1, eikonal, normal_alignment, off_surface, two_headed


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("predicted", "distance", "loss"),
    [
        (0.03, 0.05, 0.02),
        (-0.02, 0.05, 0.07),
        (0.10, 0.50, 0.0),  # both at the clamp
        (0.70, 0.50, 0.0),  # beyond it on the right side
        (-0.70, -0.50, 0.0),
        (0.05, 0.50, 0.05),
        (-0.05, -0.50, 0.05),
    ],
)
def test_clamped_l1_by_hand(predicted, distance, loss):
    assert clamped_l1(doubles(predicted), doubles(distance), 0.1).item() == pytest.approx(loss)


def test_clamped_l1_is_deepsdfs_within_the_clamp():
    """|clamp(f) - clamp(s)| wherever the prediction is within the clamp (eq. 4)."""
    predicted = (torch.rand(1000, dtype=torch.float64) - 0.5) * 0.2
    distance = torch.randn(1000, dtype=torch.float64)
    published = (predicted.clamp(-0.1, 0.1) - distance.clamp(-0.1, 0.1)).abs().mean()
    assert clamped_l1(predicted, distance, 0.1).item() == pytest.approx(published.item())


def test_clamped_l1_is_never_dead():
    """Wherever the loss is not at its minimum the gradient leads back, however far the prediction has gone
    astray."""
    predicted = torch.tensor([-50.0, -0.2, 0.0, 0.2, 50.0]).repeat_interleave(5)
    distance = torch.tensor([-0.5, -0.05, 0.0, 0.05, 0.5]).repeat(5)
    p = predicted.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(clamped_l1(p, distance, 0.1) * len(p), p)
    right = (predicted.clamp(-0.1, 0.1) == distance.clamp(-0.1, 0.1)) & (distance.abs() > 0.1)
    right |= predicted == distance
    assert torch.equal(g[right], torch.zeros(int(right.sum())))
    assert torch.equal(g[~right], torch.sign(predicted - distance.clamp(-0.1, 0.1))[~right])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: clamped_l1(x[:, 0], torch.tensor([0.3, -0.3, 0.02, -0.02, 0.07], dtype=x.dtype), 0.1),
        eikonal,
        lambda x: normal_alignment(x, torch.eye(3, dtype=x.dtype)[[0, 1, 2, 0, 1]]),
        lambda x: off_surface(x[:, 0] / 50),
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_(
        True
    )
    assert torch.autograd.gradcheck(loss, (x,))


def test_eikonal_is_zero_for_distances():
    unit = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    assert eikonal(unit).item() == pytest.approx(0, abs=1e-6)
    assert eikonal(3 * unit).item() == pytest.approx(2, rel=1e-5)
    assert eikonal(torch.zeros(4, 3)).item() == pytest.approx(1)


def test_normals_point_against_the_gradient():
    """Larger is more inside: an outward normal is minus the gradient, whatever its length."""
    normals = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    assert normal_alignment(-7 * normals, normals).item() == pytest.approx(0, abs=1e-6)
    assert normal_alignment(normals, normals).item() == pytest.approx(2)


def test_off_surface_punishes_zeros_alone():
    assert off_surface(torch.zeros(3)).item() == 1
    assert off_surface(torch.tensor([0.01, -0.01])).item() == pytest.approx(math.exp(-1))
    assert off_surface(torch.tensor([5.0, -5.0])).item() == 0


def test_two_heads_by_hand():
    """BCE / 2 s0^2 + L1 / 2 s1^2 + log s0 s1, with s0 = 2 and s1 = 0.5; the distance is unsigned."""
    out, log_sigma = torch.tensor([[1.5, 0.2], [1.5, 0.2]]).double(), torch.tensor([2.0, 0.5]).double().log()
    found = two_headed(out, doubles(0.3, -0.3), log_sigma)
    for value, inside in zip(found.tolist(), (True, False), strict=True):
        cross_entropy = math.log1p(math.exp(-1.5 if inside else 1.5))
        assert value == pytest.approx(cross_entropy / 8 + 0.1 / 0.5)


def test_without_a_clamp_the_error_is_the_distance():
    predicted, distance = torch.randn(50), torch.randn(50)
    assert torch.equal(clamped_error(predicted, distance, math.inf), (predicted - distance).abs())
