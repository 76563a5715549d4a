"""The light that a signed distance stops: NeuS's alpha on a plane, where all is known."""

from __future__ import annotations

import pytest
import torch

from nif_cli.rendering.ray_samples import dense
from nif_cli.rendering.surface_density import (
    annealed,
    laplace_density,
    logistic_density,
    logistic_depth,
)
from nif_cli.rendering.volume import Alpha, composite


def along(sharpness: float, slope: float, count: int, wall: float = 1.0):
    """Rays through [0, 2] that meet a plane at t = `wall` under a cosine `slope`: samples, alpha, weights."""
    edges = torch.linspace(0, 2, count + 1, dtype=torch.float64)
    t, delta = 0.5 * (edges[1:] + edges[:-1])[None], edges.diff()[None]
    samples = dense(t, delta)
    distance = slope * (samples.t - wall)
    slopes = torch.full_like(distance, slope)
    depth = logistic_depth(distance, slopes, samples.delta, torch.tensor(sharpness, dtype=torch.float64))
    light, weights = composite(
        Alpha(-torch.expm1(-depth)), torch.ones(count, 3, dtype=torch.float64), samples, 1
    )
    return samples, light, weights


@pytest.mark.parametrize("slope", [1.0, 0.3])
@pytest.mark.parametrize("sharpness", [20.0, 300.0])
def test_weights_are_those_of_the_logistic_and_largest_at_the_surface(sharpness, slope):
    """Unbiased: on a plane the weights integrate to the logistic's, whatever the steps; its mode is the
    surface."""
    for count in (40, 401):
        samples, light, weights = along(sharpness, slope, count)
        behind = torch.sigmoid(-sharpness * slope * (torch.tensor([0.0, 2.0], dtype=torch.float64) - 1))
        assert float(light.transmittance) == pytest.approx(float(behind[1] / behind[0]), rel=1e-9)
        edges = torch.cat((samples.t - 0.5 * samples.delta, (samples.t + 0.5 * samples.delta)[-1:]))
        phi = torch.sigmoid(-sharpness * slope * (edges - 1))
        assert torch.allclose(weights, (phi[:-1] - phi[1:]) / phi[0], atol=1e-12)
    assert float((samples.t[weights.argmax()] - 1).abs()) < 1e-9
    assert float(light.depth / light.opacity) == pytest.approx(1, abs=2e-3 if sharpness * slope > 50 else 0.1)


def test_a_surface_that_is_left_stops_nothing_and_one_behind_another_is_hidden():
    """Occlusion-aware."""
    t = torch.linspace(0, 4, 801, dtype=torch.float64)[None]
    samples = dense(t, torch.full_like(t, 0.005))
    distance = 0.2 - (samples.t - 1.2).abs()  # a slab from 1 to 1.4, and another from 3 to 3.4
    other = 0.2 - (samples.t - 3.2).abs()
    slope = torch.where(samples.t < 2.2, torch.sign(1.2 - samples.t), torch.sign(3.2 - samples.t))
    both = torch.maximum(distance, other)
    depth = logistic_depth(both, slope, samples.delta, torch.tensor(200.0, dtype=torch.float64))
    assert not depth[slope <= 0].any()
    weights = composite(Alpha(-torch.expm1(-depth)), torch.ones(801, 3, dtype=torch.float64), samples, 1)[1]
    assert float(weights[samples.t < 2.2].sum()) > 0.999
    assert float(weights[samples.t > 2.2].sum()) < 1e-3


def test_depths_are_finite_and_differentiable_far_from_the_surface():
    distance = torch.tensor([-5.0, -0.1, 0.0, 0.1, 5.0], requires_grad=True)
    one = torch.ones(5)
    depth = logistic_depth(distance, one, 0.01 * one, torch.tensor(2000.0))
    depth.sum().backward()
    assert torch.isfinite(depth).all()
    assert distance.grad is not None
    assert torch.isfinite(distance.grad).all()
    assert depth.tolist() == pytest.approx([0, 0, 10, 20, 20], abs=1e-2)


def test_annealing_ends_at_the_slope():
    slope = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert torch.equal(annealed(slope, 1.0), slope.clamp(min=0))
    assert torch.equal(annealed(slope, 0.0), 0.5 + 0.5 * slope)


def test_densities_grow_inwards_to_the_sharpness():
    """Of both kinds: half of it at the surface; the logistic's is the depth of a short interval."""
    distance, sharpness = torch.linspace(-2, 2, 401, dtype=torch.float64), torch.tensor(30.0).double()
    for made in (laplace_density, logistic_density):
        density = made(distance, sharpness)
        assert (density.diff() >= 0).all()
        assert density[[0, 200, 400]].tolist() == pytest.approx([0, 15, 30], abs=1e-9)
    short = torch.full_like(distance, 1e-6)
    depth = logistic_depth(distance, torch.ones_like(distance), short, sharpness)
    assert torch.allclose(depth / short, logistic_density(distance, sharpness), atol=1e-4)
