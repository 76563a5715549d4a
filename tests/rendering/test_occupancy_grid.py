"""The grid of occupied cells: where rays look, and where they need not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nif_cli.rendering.occupancy_grid import GridMarch, OccupancyGrid
from nif_cli.rendering.rays import Rays


def some_rays(count: int, seed: int = 0) -> Rays:
    generator = torch.Generator().manual_seed(seed)
    at = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 2
    to = torch.rand(count, 3, generator=generator) - 0.5
    return Rays(at, torch.nn.functional.normalize(to - at, dim=-1))


def patchy(resolution: int = 32, cascades: int = 1, seed: int = 0) -> OccupancyGrid:
    grid = OccupancyGrid(resolution, cascades)
    coarse = torch.rand((cascades, 1, 8, 8, 8), generator=torch.Generator().manual_seed(seed)) > 0.7
    fine = torch.nn.functional.interpolate(coarse.float(), scale_factor=resolution // 8)[:, 0]
    grid.occupied = (
        fine * (torch.rand(fine.shape, generator=torch.Generator().manual_seed(seed + 1)) > 0.5)
    ).to(torch.uint8)
    return grid


def samples_of(march: GridMarch, rays: int, limit: int):
    """All samples of a march, taken `limit` at a time: (ray, t, delta) sorted."""
    alive, parts = torch.arange(rays), []
    while len(alive):
        samples, going = march.next(alive, limit)
        assert (torch.bincount(samples.ray, minlength=len(alive)) <= limit).all()
        parts.append(
            torch.stack((alive[samples.ray].double(), samples.t.double(), samples.delta.double()), -1)
        )
        alive = alive[going]
    found = torch.cat(parts)
    return found[torch.from_numpy(np.lexsort((found[:, 1], found[:, 0])))]


@pytest.mark.parametrize(("cascades", "cone"), [(1, 0.0), (3, 0.02)])
def test_compiled_march_is_the_plain_one(cascades, cone):
    grid, rays = patchy(32, cascades), some_rays(50)
    near, far = torch.full((50,), 0.1), torch.full((50,), 9.0)
    fast = samples_of(GridMarch(grid, rays, near, far, 0.02, cone), 50, 7)
    plain = samples_of(GridMarch(grid, rays, near, far, 0.02, cone, compiled=False), 50, 7)
    assert len(plain) > 200
    # a sample on the border of two cells may be in either
    ours, theirs = ({(int(r), round(float(t), 3)) for r, t, _ in x} for x in (fast, plain))
    assert len(ours ^ theirs) <= 0.02 * len(theirs)
    both = min(len(fast), len(plain))
    if len(fast) == len(plain):
        torch.testing.assert_close(fast[:both], plain[:both], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("plain", [False, True])
def test_a_full_grid_is_sampled_evenly(plain):
    rays = Rays(torch.tensor([[-2.0, 0.1, 0.2]]), torch.tensor([[1.0, 0.0, 0.0]]))
    march = GridMarch(
        OccupancyGrid(32), rays, torch.zeros(1), torch.full((1,), 10.0), 0.01, compiled=not plain
    )
    found = samples_of(march, 1, 64)
    assert abs(len(found) - 200) <= 1  # from -1 to 1
    assert 1 <= float(found[0, 1]) <= 1.011
    torch.testing.assert_close(found[:, 2], torch.full_like(found[:, 2], 0.01), atol=1e-6, rtol=1e-4)


def test_every_sample_is_in_an_occupied_cell_and_none_is_missing():
    grid, rays = patchy(), some_rays(30)
    near, far = torch.zeros(30), torch.full((30,), 4.0)
    found = samples_of(GridMarch(grid, rays, near, far, 0.013), 30, 16)
    ray, t = found[:, 0].long(), found[:, 1].float()
    cell = grid.at(rays.origins[ray] + t[:, None] * rays.directions[ray])
    assert (grid.occupied.view(-1)[cell] > 0).float().mean() > 0.99
    shifted = GridMarch(grid, rays, near, far, 0.013, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(samples_of(shifted, 30, 16)[:5], found[:5])


def test_steps_grow_with_the_distance_and_leave_no_gap():
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0.6, 0.8]]))
    march = GridMarch(OccupancyGrid(32, 4), rays, torch.full((1,), 0.05), torch.full((1,), 7.0), 0.01, 0.02)
    found = samples_of(march, 1, 1000)
    t, delta = found[:, 1], found[:, 2]
    torch.testing.assert_close(delta[0], torch.tensor(0.01, dtype=torch.float64), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(delta[-1] / t[-1], torch.tensor(0.02, dtype=torch.float64), atol=0, rtol=0.02)
    ends = t + delta / 2
    torch.testing.assert_close(ends[:-1], (t - delta / 2)[1:], atol=2e-3, rtol=1e-3)


def test_cells_and_points():
    grid = OccupancyGrid(32, 3)
    cells = torch.randint(3 * 32**3, (2000,), generator=torch.Generator().manual_seed(0))
    centres = grid.centres(cells)
    # belongs to a smaller cascade
    inner = (cells >= 32**3) & (centres.abs().amax(-1) < 2.0 ** (cells // 32**3 - 1))
    assert torch.equal(grid.at(centres)[~inner], cells[~inner])
    assert (grid.at(centres[inner]) != cells[inner]).all()
    assert grid.at(torch.tensor([[0.0, 0.0, 4.1]])).item() == -1


def test_the_grid_finds_a_ball_and_forgets():
    grid = OccupancyGrid(32)

    def ball(points):
        return torch.where(points.norm(dim=-1) < 0.5, 100.0, 0.0)

    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        grid.update(ball, generator=generator)
    centres = grid.centres(torch.arange(32**3)).norm(dim=-1)
    full = grid.occupied.view(-1) > 0
    cell = 3**0.5 / 32
    assert full[centres < 0.5 - cell].all()
    assert not full[centres > 0.5 + cell].any()
    torch.testing.assert_close(grid.bounds(0), torch.tensor([[-0.5] * 3, [0.5] * 3]), atol=1 / 16, rtol=0)
    for _ in range(200):
        grid.update(lambda points: torch.zeros(len(points)), share=0.5, generator=generator)
    assert grid.density.max() < 0.05


def test_what_is_not_allowed_is_never_occupied():
    grid = OccupancyGrid(16)
    allowed = torch.zeros(1, 16, 16, 16, dtype=torch.bool)
    allowed[0, :4] = True
    grid.allow(allowed)
    grid.update(lambda points: torch.full((len(points),), 1e6))
    assert torch.equal(grid.occupied > 0, allowed)


def test_an_empty_field_does_not_close_the_grid_at_once():
    """All-white collapse: where all densities are low, the densest cells stay open."""
    grid = OccupancyGrid(16)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        grid.update(lambda points: 1e-3 * torch.rand(len(points), generator=generator), generator=generator)
    assert 0.1 < float(grid.occupied.float().mean()) < 0.9


@pytest.mark.parametrize("wrong", [{"resolution": 100}, {"cascades": 0}, {"threshold": 0.0}, {"decay": 1.0}])
def test_grids_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OccupancyGrid(**wrong)
