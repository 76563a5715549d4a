"""Cubic B-splines: what they reproduce exactly, their smoothness, the prior, and the compiled loops."""

import math

import pytest
import torch
from narrowing import sure

from nif_cli.fields import grid_lookup
from nif_cli.fields.grid_levels import Levels
from nif_cli.fields.spline import Spline


def coefficients(levels: Levels, function) -> torch.Tensor:
    """Those whose splines are centred where `function` of [0, 1]^D is taken; the first axis goes fastest."""
    n = levels.resolution[0]
    axis = (torch.arange(n, dtype=torch.float64) - 1) / (n - 3)
    mesh = torch.meshgrid(*[axis] * levels.dim, indexing="ij")
    return function(torch.stack(mesh[::-1], -1).reshape(-1, levels.dim))[:, None]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("encode", [grid_lookup.encode, grid_lookup.encode_reference])
def test_linear_functions_are_reproduced_up_to_the_border(dim, encode):
    levels = Levels.spline(dim, 7)
    slope = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)[:dim]
    x = torch.rand(200, dim, dtype=torch.float64)
    x[0], x[1] = 0, 1
    table = coefficients(levels, lambda p: 0.4 + p @ slope)
    assert torch.allclose(encode(x, table, levels)[:, 0], 0.4 + x @ slope, atol=1e-12)


def test_squares_too_but_for_a_constant():
    """The spline of t^2's values is t^2 + h^2 / 3 (Unser 1999: the kernel's variance is a third of a cell
    squared)."""
    levels = Levels.spline(2, 9)
    x = torch.rand(50, 2, dtype=torch.float64)
    found = grid_lookup.encode_reference(x, coefficients(levels, lambda p: p.square().sum(-1)), levels)[:, 0]
    assert torch.allclose(found, x.square().sum(-1) + 2 * (1 / 6) ** 2 / 3, atol=1e-12)


def test_two_derivatives_are_continuous_across_cells():
    field = Spline(2, 1, resolution=6, detail=0).double()
    field.tables[0].data.normal_()
    # between the first and the second of three cells
    edge = torch.tensor([2 / 3 - 1, 0.1], dtype=torch.float64)
    sides = [edge + torch.tensor([e, 0.0], dtype=torch.float64) for e in (-1e-9, 1e-9)]
    left, right = (torch.func.hessian(lambda p: field(p[None, None], None).sum())(p) for p in sides)
    assert left.abs().max() > 1
    assert torch.allclose(left, right, atol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_loops_and_reference_agree(dim):
    field = Spline(dim, 2, resolution=5, detail=8).double()
    for table in field.tables:
        table.data.normal_()
    for table, levels in zip(field.tables, field.levels, strict=True):
        x = torch.rand(100, dim, dtype=torch.float64)
        g = torch.randn(100, table.shape[1], dtype=torch.float64)
        out, expected = grid_lookup.encode(x, table, levels), grid_lookup.encode_reference(x, table, levels)
        assert torch.allclose(out, expected, atol=1e-12)
        (grad,), (expected_grad,) = (torch.autograd.grad(o, table, g) for o in (out, expected))
        assert torch.allclose(grad, expected_grad, atol=1e-12)


def test_derivatives_are_those_of_finite_differences():
    field = Spline(2, 2, resolution=5, detail=6).double()
    names, values = zip(*field.named_parameters(), strict=True)
    for v in values:
        v.data.normal_()
    x = (torch.rand(1, 4, 2, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()

    def value(x, *values):
        return torch.func.functional_call(field, dict(zip(names, values, strict=True)), (x, None)).sin()

    assert torch.autograd.gradcheck(value, (x, *values), eps=1e-6, atol=1e-6, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(value, (x, *values), eps=1e-6, atol=1e-5, nondet_tol=1e-12)


def test_the_prior_is_the_thin_plate_energy():
    """Nothing for a slope; for x^2 (second difference 2 / (n - 3)^2 in one axis) and x y (mixed difference
    once) its square."""
    for dim in (2, 3):
        field = Spline(dim, 1, resolution=4, detail=10, smoothness=0.5).double()
        levels, n, h = field.levels[1], 10, 1 / 7

        def energy(function, field=field, levels=levels):
            field.tables[1].data = coefficients(levels, function)
            return float(field.penalty().detach())

        assert energy(lambda p: 3 + 2 * p[:, 0] - p[:, 1]) == pytest.approx(0, abs=1e-20)
        assert energy(lambda p: p[:, 0] ** 2) == pytest.approx(0.5 * (2 * h**2) ** 2 * (n - 2) / n)
        assert energy(lambda p: p[:, 0] * p[:, 1]) == pytest.approx(0.5 * 2 * h**4 * (n - 1) ** 2 / n**2)


def test_what_all_channels_share_has_one_direction():
    field = Spline(2, 3, resolution=4, detail=8)
    field.tables[1].data.normal_()
    sure(field.direction).data = torch.tensor([2.0, 0.0, 1.0])
    values = field(torch.rand(1, 50, 2), None)[0].detach()
    assert torch.allclose(values, values[:, :1] * torch.tensor([1.0, 0.0, 0.5]), atol=1e-6)
    assert math.isclose(
        float(values[:, 0].square().mean() / values.square().sum(1).mean()), 0.8, rel_tol=1e-4
    )


@pytest.mark.parametrize(
    "wrong", [{"resolution": 3}, {"resolution": 20, "detail": 10}, {"smoothness": -1.0}, {"code_size": 4}]
)
def test_impossible_splines_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        Spline(2, 1, **{"detail": 0, **wrong})
