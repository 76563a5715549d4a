"""Encodings: their features, periods and kernels."""

import math

import pytest
import torch

from nif_cli.fields.encodings import Fourier, Positional


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("dim", [2, 3])
def test_positional_counts_its_features(dim, include):
    encoding = Positional(dim, 5, include_input=include)
    out = encoding(torch.rand(4, 7, dim))
    assert out.shape == (4, 7, encoding.features) == (4, 7, dim * (10 + include))
    if include:
        x = torch.rand(6, dim)
        assert torch.equal(encoding(x)[:, :dim], x)


def test_positional_is_sines_and_cosines_of_octaves():
    x = torch.tensor([[0.3]])
    angles = 0.3 * torch.tensor([1.0, 2.0, 4.0])
    expected = torch.cat([torch.tensor([0.3]), angles.sin(), angles.cos()])
    assert torch.allclose(Positional(1, 3)(x)[0], expected)


def test_positional_with_pi_has_period_two():
    """base = pi: the cube [-1, 1] is one period of the slowest wave."""
    encoding = Positional(3, 4, base=math.pi, include_input=False)
    x = torch.rand(10, 3) - 1
    assert torch.allclose(encoding(x), encoding(x + 2), atol=1e-4)
    assert not torch.allclose(encoding(x), encoding(x + 1), atol=0.1)


def test_fourier_features_lie_on_a_sphere_and_depend_on_differences():
    """|gamma(x)|^2 is the number of frequencies; gamma(x) . gamma(y) is a function of x - y."""
    encoding = Fourier(3, 64, 2.0).double()
    x, y, shift = torch.rand(3, 20, 3, dtype=torch.float64)
    gx, gy = encoding(x), encoding(y)
    assert gx.shape == (20, encoding.features) == (20, 128)
    assert torch.allclose(gx.square().sum(-1), torch.tensor(64.0, dtype=torch.float64))
    moved = (encoding(x + shift) * encoding(y + shift)).sum(-1)
    assert torch.allclose((gx * gy).sum(-1), moved)


def test_fourier_frequencies_have_the_scale_as_their_deviation():
    directions = Fourier(3, 5000, 3.0).directions / (2 * math.pi)
    assert directions.std().item() == pytest.approx(3, rel=0.03)
    assert abs(directions.mean().item()) < 0.1


def test_fourier_is_fixed_by_its_seed_and_saved():
    torch.manual_seed(1)
    a = Fourier(3, 8, seed=4)
    torch.manual_seed(2)
    assert torch.equal(a.directions, Fourier(3, 8, seed=4).directions)
    assert not torch.equal(a.directions, Fourier(3, 8, seed=5).directions)
    assert "directions" in a.state_dict()
    assert not list(a.parameters())


@pytest.mark.parametrize(
    "make", [lambda: Positional(3, 0), lambda: Fourier(3, 0), lambda: Fourier(3, 8, 0.0)]
)
def test_impossible_encodings_are_refused(make):
    with pytest.raises(ValueError, match=r"frequencies|features"):
        make()
