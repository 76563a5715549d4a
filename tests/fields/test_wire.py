"""WIRE: Gabor wavelets."""

import cmath

import pytest
import torch

from nif_cli.fields.wire import Wire


@pytest.mark.parametrize("code_size", [0, 5])
def test_the_network_is_wavelets(code_size):
    """Against the formula in Python's own complex numbers, one point at a time."""
    network = Wire(2, 3, code_size, width=9, layers=3, omega=2.0, scale=1.5).double()
    points = torch.randn(2, 4, 2).double()
    code = torch.randn(2, code_size).double() if code_size else None

    def psi(z: complex) -> complex:
        return cmath.exp(1j * 2.0 * z - abs(1.5 * z) ** 2)

    def linear(layer, h: list[complex]) -> list[complex]:
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if weight.ndim == 3:
            weight, bias = torch.view_as_complex(weight), torch.view_as_complex(bias)
        return [
            sum(w * x for w, x in zip(row, h, strict=True)) + b
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]

    found = network(points, code)
    for s in range(2):
        for n in range(4):
            h = points[s, n].tolist() + (code[s].tolist() if code is not None else [])
            for layer in (network.first, *network.hidden):
                h = [psi(z) for z in linear(layer, h)]
            want = [z.real for z in linear(network.last, h)]
            assert torch.allclose(found[s, n], torch.tensor(want).double(), atol=1e-12)


def test_a_wavelet_is_local_and_oscillates():
    z = torch.tensor([0.0, 0.1, 1.0, 4.0])
    psi = Wire(omega=10.0, scale=2.0).wavelet(z)
    assert torch.allclose(psi.abs(), torch.exp(-4 * z.square()))
    assert torch.allclose(psi[:2].angle(), torch.tensor([0.0, 1.0]), atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    network = Wire(3, 1, 2, width=6, layers=2, omega=2.0, scale=1.0).double()
    points, code = (
        torch.randn(2, 3, 3).double().requires_grad_(True),
        torch.randn(2, 2).double().requires_grad_(True),
    )
    assert torch.autograd.gradcheck(network, (points, code))
    assert torch.autograd.gradgradcheck(network, (points, code))


@pytest.mark.parametrize(
    "options", [{"width": 1}, {"layers": 0}, {"omega": 0.0}, {"scale": -1.0}, {"scale": float("nan")}]
)
def test_impossible_networks_are_refused(options):
    with pytest.raises(ValueError, match=r"width|omega"):
        Wire(**options)
