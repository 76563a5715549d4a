"""SIREN: sines, and the published beginning."""

import math

import pytest
import torch
import torch.nn.functional as F

from nif_cli.fields.siren import Siren


def test_weights_start_within_the_published_bounds():
    """U(+-1/n) in the first layer, U(+-sqrt(6/n)/omega) after it (section 3.2)."""
    network = Siren(3, width=128, layers=3, omega=30.0)
    first, *rest = [*network.hidden, network.last]
    assert 0.95 / 3 < first.weight.abs().max() <= 1 / 3
    for layer in rest:
        bound = math.sqrt(6 / 128) / 30
        assert 0.9 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("code_size", [0, 5])
def test_the_network_is_sines(code_size):
    network = Siren(2, 3, code_size, width=16, layers=3, omega=7.0, first_omega=11.0).double()
    points = torch.randn(2, 9, 2).double()
    code = torch.randn(2, code_size).double() if code_size else None
    h = points if code is None else torch.cat((points, code[:, None].expand(2, 9, 5)), -1)
    for layer, omega in zip(network.hidden, (11.0, 7.0, 7.0), strict=True):
        h = torch.sin(omega * F.linear(h, layer.get_parameter("weight"), layer.get_parameter("bias")))
    h = F.linear(h, network.last.weight, network.last.bias)
    assert torch.allclose(network(points, code), h)


def test_activations_keep_their_spread_through_depth():
    """The point of the initialisation: inputs to the sines are about N(0, 1) at every depth, so outputs stay
    alive."""
    network = Siren(3, width=256, layers=6)
    h = torch.rand(2000, 3) * 2 - 1
    with torch.no_grad():
        for layer, omega in zip(network.hidden, network.omegas, strict=True):
            h = torch.sin(omega * layer(h))
    assert 0.6 < h.std() < 0.8  # arcsine distributed: sqrt(1/2)


def test_gradients_are_those_of_finite_differences():
    network = Siren(3, 1, 2, width=8, layers=2, omega=2.0, first_omega=2.0).double()
    points = torch.randn(2, 3, 3).double().requires_grad_(True)
    code = torch.randn(2, 2).double().requires_grad_(True)
    assert torch.autograd.gradcheck(network, (points, code))
    assert torch.autograd.gradgradcheck(network, (points, code))


@pytest.mark.parametrize("options", [{"width": 0}, {"layers": 0}, {"omega": 0.0}, {"first_omega": -1.0}])
def test_impossible_networks_are_refused(options):
    with pytest.raises(ValueError, match=r"width|omega"):
        Siren(**options)
