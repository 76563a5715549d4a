"""Radiance networks: the published sizes, what depends on what, and that the fast way is the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from narrowing import sure

from nif_cli import NifError
from nif_cli.fields import grid_lookup, grids
from nif_cli.fields.nerf import NerfNetwork
from nif_cli.fields.ngp import NgpNetwork, spherical_harmonics
from nif_cli.optim.adam import Adam


def places(count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    points = 2 * torch.rand(count, 3, generator=generator) - 1
    return points, torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


def small(**options) -> NgpNetwork:
    return NgpNetwork(**{"log2_table": 10, "levels": 4, "finest": 64, "half": False, **options})


def test_the_published_network_has_its_595844_parameters():
    assert sum(p.numel() for p in NerfNetwork().parameters()) == 595_844


@pytest.mark.parametrize("make", [lambda **k: NerfNetwork(width=32, layers=4, skip=1, **k), small])
def test_density_sees_the_shape_alone(make):
    torch.manual_seed(0)
    network = make(shape_code=3, appearance_code=2)
    for p in network.parameters():  # a hash grid starts at next to nothing
        torch.nn.init.normal_(p, std=0.3)
    if isinstance(network, NerfNetwork):  # its density is cut at 0
        torch.nn.init.constant_(network.sigma.bias, 5.0)
    points, directions = places(50)
    shape, appearance = torch.randn(50, 3), torch.randn(50, 2)
    density, rgb = network(points, directions, shape, appearance)
    assert density.shape == (50,)
    assert (density >= 0).all()
    assert ((rgb >= 0) & (rgb <= 1)).all()
    torch.testing.assert_close(network.density(points, shape), density)
    again, other = network(points, -directions, shape, appearance + 1)
    assert torch.equal(again, density)
    assert not torch.allclose(other, rgb)
    changed, _ = network(points, directions, shape + 1, appearance)
    assert not torch.allclose(changed, density)


def test_spherical_harmonics_are_orthonormal():
    """Integrated over the sphere: exact for these degrees by Gauss-Legendre in z and even angles around
    it."""
    import numpy as np

    z, weight = np.polynomial.legendre.leggauss(8)
    angle = (np.arange(16) + 0.5) * 2 * np.pi / 16
    zz, aa = np.meshgrid(z, angle, indexing="ij")
    side = np.sqrt(1 - zz**2)
    directions = torch.from_numpy(np.stack((side * np.cos(aa), side * np.sin(aa), zz), -1).reshape(-1, 3))
    values = spherical_harmonics(directions)
    areas = torch.from_numpy((weight[:, None] * np.full(16, 2 * np.pi / 16)).reshape(-1))
    torch.testing.assert_close(
        values.T @ (areas[:, None] * values), torch.eye(16, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_densities_are_cut_before_they_overflow():
    network = small()
    with torch.no_grad():
        network.grid.table.fill_(1e4)
    points, directions = places(10)
    for half in (False, True):
        network.computes_in_half = half
        density, rgb = network(points, directions)
        assert torch.isfinite(density).all()
        assert torch.isfinite(rgb).all()
        assert density.max() <= 3.3e6  # exp(15)


def test_a_density_that_is_zero_everywhere_comes_back():
    """White collapse: a ReLU that is dead has no gradient; this one lets through what asks for more, and
    nothing else."""
    network = NerfNetwork(width=16, layers=2, skip=0)
    torch.nn.init.constant_(network.sigma.bias, -1.0)
    torch.nn.init.zeros_(network.sigma.weight)
    points, directions = places(8)
    density, _ = network(points, directions)
    assert not density.any()
    (-density.sum()).backward()
    assert network.sigma.bias.grad is not None
    assert network.sigma.bias.grad.item() == -8
    network.zero_grad()
    network.density(points).sum().backward()
    assert network.sigma.bias.grad.item() == 0


def test_the_lazy_gradient_is_the_gradient(monkeypatch):
    """The buffer that is emptied row by row holds what autograd finds, also over several steps."""
    torch.manual_seed(0)
    network = small()
    torch.nn.init.normal_(network.grid.table, std=0.1)
    points, directions = places(200)
    found = []
    for compiled in (True, False):
        if not compiled:
            network.grid.forget()
            network.grid.lazy = False
            monkeypatch.setattr(grids, "encode", grid_lookup.encode_reference)
        for repeat in range(2):
            network.zero_grad()
            density, rgb = network(points[repeat:], directions[repeat:])
            (density.sum() + rgb.square().sum()).backward()
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)


def test_a_step_of_adam_moves_touched_rows_as_adam_does_and_no_others():
    torch.manual_seed(0)
    network = small(log2_table=16, levels=2, finest=32)
    table = network.grid.table
    plain = torch.nn.Parameter(table.detach().clone())
    theirs = torch.optim.Adam([plain], lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    ours = Adam([table], lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    points, directions = places(20)
    for _ in range(3):  # always the same places: for their rows, lazy and plain Adam are the same
        ours.zero_grad()
        network(points, directions)[1].sum().backward()
        assert table.grad is not None
        plain.grad = sure(table.grad).clone()
        ours.step()
        theirs.step()
        assert not table.grad.any()  # empty again
    torch.testing.assert_close(table, plain)
    before = table.detach().clone()
    network(points, directions)[1].sum().backward()
    ours.param_groups[0]["lr"] = 0.0
    ours.step()
    assert torch.equal(table, before)
    (state,) = ours.state_dict()["state"].values()
    assert state["exp_avg"].untyped_storage().nbytes() == table.nbytes  # no more than itself


def stepped():
    """A network, its Adam after a step, and what the step looked at."""
    torch.manual_seed(0)
    network = small(log2_table=10, levels=2, finest=32)
    optimizer = Adam(network.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    points, directions = places(50)
    network(points, directions)[1].sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return network, optimizer, points, directions


@pytest.mark.parametrize("among", [False, True])
def test_a_lazily_kept_table_refuses_a_dense_gradient(among):
    """It would be added to rows that nothing marks, or, alone, be read by loops that do not know how the rows
    lie."""
    network, _, points, directions = stepped()
    loss = network.grid.table.square().sum()
    if among:
        loss = loss + network(points, directions)[1].sum()
    with pytest.raises(AssertionError, match="kept lazily got a dense one"):
        loss.backward()


def test_moments_survive_the_end_of_laziness():
    """Where a table's gradient becomes dense after all, Adam goes on as if it had always been."""
    network, optimizer, points, directions = stepped()
    table = network.grid.table
    state = {name: x.clone() for name, x in optimizer.state[table].items()}
    assert not state["exp_avg"].eq(0).all()
    plain = torch.nn.Parameter(table.detach().clone())
    theirs = torch.optim.Adam([plain], lr=1e-2, betas=(0.9, 0.99), eps=1e-15, fused=True)
    theirs.state[plain] = {name: x.contiguous() for name, x in state.items()}
    network.grid.forget()
    network.grid.lazy = False
    for group in optimizer.param_groups:
        group["fused"] = True
    for _ in range(3):
        optimizer.zero_grad()
        network(points, directions)[1].sum().backward()
        plain.grad = sure(table.grad).clone()
        optimizer.step()
        theirs.step()
        torch.testing.assert_close(table, plain)
    torch.testing.assert_close(optimizer.state[table]["exp_avg_sq"], theirs.state[plain]["exp_avg_sq"])


@pytest.mark.parametrize("option", ["amsgrad", "maximize"])
def test_an_adam_that_the_rows_do_not_have_is_refused(option):
    network = small(log2_table=10, levels=2, finest=32)
    network(*places(5))[1].sum().backward()
    options: dict[str, Any] = {option: True}
    with pytest.raises(NifError, match=option):
        Adam(network.parameters(), lr=1e-2, **options).step()


@pytest.mark.parametrize("wrong", [{"width": 0}, {"log2_table": 40}, {"levels": 0}])
def test_networks_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NgpNetwork(**wrong)
    with pytest.raises(ValueError, match="skip"):
        NerfNetwork(skip=8)
