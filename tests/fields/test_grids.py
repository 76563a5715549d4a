"""Grids of features: the hash grid against a slow reading of the paper, derivatives, and the compiled
loops."""

import math

import numpy as np
import pytest
import torch

from nif_cli.fields import grid_levels, grid_lookup
from nif_cli.fields.grids import DenseGrid, HashGrid, Triplane, VoxelArray


def slow_hash_grid(x, tables, levels, base, finest, rows_at_most):
    """Mueller et al. 2022, section 3, one point, level and corner at a time in Python's numbers: [N, levels *
    F]."""
    out = []
    for point in x.tolist():
        dim, features = len(point), []
        growth = (finest / base) ** (1 / (levels - 1))  # eq. 3
        first = 0
        for level in range(levels):
            scale = base * growth**level - 1  # eq. 2, less one
            resolution = math.ceil(round(scale, 9)) + 1
            rows = min(-(-(resolution**dim) // 8) * 8, rows_at_most)
            position = [p * scale + 0.5 for p in point]
            total = torch.zeros(tables.shape[1], dtype=tables.dtype)
            for corner in range(2**dim):
                bits = [corner >> d & 1 for d in range(dim)]
                at = [math.floor(p) + b for p, b in zip(position, bits, strict=True)]
                share = math.prod(p % 1 if b else 1 - p % 1 for p, b in zip(position, bits, strict=True))
                if rows < resolution**dim:
                    index = 0
                    for a, prime in zip(at, (1, 2654435761, 805459861), strict=False):
                        index ^= (a * prime) % 2**32  # eq. 4
                else:
                    index = sum(a * resolution**d for d, a in enumerate(at))
                total = total + share * tables[first + index % rows]
            features.append(total)
            first += rows
        out.append(torch.cat(features))
    return torch.stack(out)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_hash_grid_is_the_papers(dim, compiled):
    """With N(0, 1) features: values and gradients to 1e-12 in float64, to 1e-3 in float32."""
    grid = HashGrid(dim, levels=6, features=2, log2_table=10, base=8, finest=300.0).double()
    grid.table.data.normal_()
    x = torch.rand(40, dim, dtype=torch.float64)
    x[0], x[1] = 0, 1
    slow_table = grid.table.detach().clone().requires_grad_()
    slow = slow_hash_grid(x, slow_table, 6, 8, 300.0, 2**10)
    g = torch.randn_like(slow)
    (slow_grad,) = torch.autograd.grad(slow, slow_table, g)
    assert any(grid.levels.hashed)
    assert not all(grid.levels.hashed)
    encode = grid_lookup.encode if compiled else grid_lookup.encode_reference
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-3)):
        table = grid.table.detach().to(dtype).requires_grad_()
        out = encode(x.to(dtype), table, grid.levels)
        (grad,) = torch.autograd.grad(out, table, g.to(dtype))
        assert (out - slow).abs().max() < close
        assert (grad - slow_grad).abs().max() < close


def test_the_published_sizes():
    """16 levels from 16 to 2048, 2^19 rows of 2: 12.2 million numbers; the first five levels are dense."""
    levels = grid_levels.Levels.geometric(3, 16, 16, 2048, 2**19)
    assert levels.resolution[0], levels.resolution[-1] == (16, 2048)
    assert [not h for h in levels.hashed].count(True) == 5
    assert 2 * sum(levels.rows) == 12_196_240


def test_forward_takes_points_from_minus_one_to_one_and_is_constant_beyond():
    grid = HashGrid(2, levels=2, base=4, finest=8)
    x = torch.rand(5, 7, 2) * 2 - 1
    out = grid(x)
    assert out.shape == (5, 7, grid.features)
    assert torch.allclose(
        out.reshape(35, -1),
        grid_lookup.encode_reference((x.reshape(35, 2) + 1) / 2, grid.table, grid.levels),
        atol=1e-6,
    )
    assert torch.equal(grid(torch.tensor([[1.0, 0.3]])), grid(torch.tensor([[5.0, 0.3]])))


GRIDS = {
    "hash": lambda dim: HashGrid(dim, levels=3, features=2, log2_table=6, base=3, finest=20),
    "dense_grid": lambda dim: DenseGrid(dim, levels=2, features=2, base=3, finest=7),
    "triplane": lambda dim: Triplane(dim, resolution=6, features=2),
    "voxel": lambda dim: VoxelArray(dim, 2, resolution=5),
}


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", GRIDS)
def test_derivatives_are_those_of_finite_differences(name, dim):
    """First and second ones, by the points, the tables and both."""
    grid = GRIDS[name](dim).double()
    tables = list(grid.parameters())
    for table in tables:
        table.data.normal_()
    x = (torch.rand(1, 4, dim, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    names = [n for n, _ in grid.named_parameters()]

    def value(x, *tables):
        return torch.func.functional_call(grid, dict(zip(names, tables, strict=True)), x).sin()

    assert torch.autograd.gradcheck(value, (x, *tables), eps=1e-7, atol=1e-6, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(value, (x, *tables), eps=1e-7, atol=1e-5, nondet_tol=1e-12)


def test_loops_and_reference_agree_on_any_number_of_threads():
    grid = HashGrid(3, levels=4, log2_table=8, base=4, finest=40)
    grid.table.data.normal_()
    x, g = torch.rand(3000, 3), torch.randn(3000, grid.features)
    expected = grid_lookup.encode_reference(x, grid.table, grid.levels)
    (expected_grad,) = torch.autograd.grad(expected, grid.table, g)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = grid_lookup.encode(x, grid.table, grid.levels)
        (grad,) = torch.autograd.grad(out, grid.table, g)
        assert torch.allclose(out, expected, atol=1e-5)
        assert torch.allclose(grad, expected_grad, atol=1e-3)
        found.append((out, grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_tables_of_their_own_for_each_shape_go_through_vmap():
    """As model=metasdf calls a network: stacked tables, each with points of its own, and gradients of
    gradients."""
    grid = HashGrid(3, levels=2, log2_table=6, base=3, finest=9)
    tables, x = torch.randn(3, *grid.table.shape, requires_grad=True), torch.rand(3, 5, 3)
    together = torch.vmap(lambda t, p: torch.func.functional_call(grid, {"table": t}, p))(tables, x)
    apart = torch.stack(
        [torch.func.functional_call(grid, {"table": t}, p) for t, p in zip(tables, x, strict=True)]
    )
    assert torch.allclose(together, apart, atol=1e-6)
    (found,) = torch.autograd.grad(together.square().sum(), tables, create_graph=True)
    (expected,) = torch.autograd.grad(apart.square().sum(), tables, create_graph=True)
    assert torch.allclose(found, expected, atol=1e-5)
    (second,) = torch.autograd.grad(found.square().sum(), tables)
    assert second.abs().max() > 0


def test_points_that_are_no_numbers_read_nothing_else():
    grid = HashGrid(3, levels=3, log2_table=8)
    out = grid(torch.full((1, 2, 3), float("nan")))
    assert out.isnan().all()
    out.sum().backward()


def test_within_transforms_it_is_the_reference():
    grid = HashGrid(2, levels=2)
    x = torch.rand(9, 2)
    found = torch.func.functional_call(grid, {"table": grid.table}, (2 * x - 1,))
    mapped = torch.func.vmap(lambda rows: torch.func.functional_call(grid, {"table": rows}, (2 * x - 1,)))
    torch.testing.assert_close(mapped(grid.table[None])[0], found)
    assert torch.equal(
        mapped(grid.table[None])[0],
        grid_lookup.encode_reference((0.5 + 0.5 * (2 * x - 1)).clamp(0, 1), grid.table, grid.levels),
    )


def test_an_array_is_multilinear_between_its_values_and_has_them_at_its_points():
    voxels = VoxelArray(3, resolution=9)
    points = torch.rand(1, 500, 3) * 2 - 1
    axis = torch.linspace(-1, 1, 9)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")  # x goes fastest

    def f(x, y, z):
        return 1 + 2 * x - 3 * y + 0.5 * z + x * y * z

    voxels.table.data = f(x, y, z).reshape(-1, 1)
    inside = points * 1e-3  # within the cells around the origin f is multilinear, whatever the array
    assert torch.allclose(voxels(inside)[0, :, 0], f(*inside[0].T), atol=1e-5)
    corners = torch.stack((x, y, z), -1).reshape(1, -1, 3)
    assert torch.allclose(voxels(corners)[0], voxels.table, atol=1e-5)


def test_an_array_is_filled_with_the_nearest_samples():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (20_000, 2))
    voxels = VoxelArray(2, resolution=17)
    voxels.fill(lambda: (points, (points[:, :1] + 3 * points[:, 1:]).astype(np.float32)))
    x = torch.rand(1, 100, 2) * 2 - 1
    assert torch.allclose(voxels(x)[0, :, 0], x[0, :, 0] + 3 * x[0, :, 1], atol=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HashGrid(3, levels=0),
        lambda: HashGrid(3, log2_table=40),
        lambda: HashGrid(3, base=64, finest=16),
        lambda: DenseGrid(3, finest=5000),
        lambda: Triplane(3, resolution=1),
        lambda: VoxelArray(3, resolution=5000),
        lambda: VoxelArray(3, code_size=4),
    ],
)
def test_impossible_grids_are_refused(make):
    with pytest.raises(ValueError, match=r"levels|log2_table|base|resolution|codes"):
        make()


def test_a_grid_that_learns_lazily_has_derivatives_by_places():
    grid = HashGrid(3, levels=3, features=2, log2_table=8, base=4, finest=16, lazy=True)
    plain = HashGrid(3, levels=3, features=2, log2_table=8, base=4, finest=16)
    plain.load_state_dict(grid.state_dict())
    x = torch.rand(20, 3) * 1.6 - 0.8
    found = []
    for each in (grid, plain):
        here = x.clone().requires_grad_(True)
        found.append(torch.autograd.grad(each(here).square().sum(), here)[0])
    assert torch.allclose(*found)
    assert found[0].abs().max() > 0
