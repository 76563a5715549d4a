"""From fields to meshes: analytic balls come back as what they are."""

import numpy as np
import pytest
import torch
import trimesh

from nif_cli import NifError
from nif_cli.geometry.extraction import extract_mesh, grid_values


def test_a_ball_comes_back(ball):
    """Vertices lie on the ball to second order, the mesh is closed and winds outwards (positive volume)."""
    centre = np.array([0.1, -0.2, 0.05])
    mesh = extract_mesh(ball(0.6, tuple(centre)), 48)
    radii = np.linalg.norm(mesh.vertices - centre, axis=1)
    assert abs(radii - 0.6).max() < 2e-3  # (h^2 / 8r with h = 2/47, doubled on a diagonal)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)


def test_error_falls_with_the_square_of_the_cell(ball):
    worst = [abs(np.linalg.norm(extract_mesh(ball(), n).vertices, axis=1) - 0.6).max() for n in (17, 33, 65)]
    assert worst[0] > 2.5 * worst[1]
    assert worst[1] > 2.5 * worst[2]


def test_a_higher_level_lies_further_inside(ball):
    mesh = extract_mesh(ball(0.6), 40, level=0.2)
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.4, abs=3e-3)


def test_the_fields_own_level_is_the_default(ball):
    field = ball(0.6)
    field.level = -0.1
    assert np.linalg.norm(extract_mesh(field, 40).vertices, axis=1).mean() == pytest.approx(0.7, abs=3e-3)


@pytest.mark.parametrize("radius", [1.2, 5.0])
def test_a_surface_that_leaves_the_bounds_is_closed(ball, radius):
    """What the box cuts is closed there, inside the box, and still winds outwards."""
    mesh = extract_mesh(ball(radius), 24)
    assert mesh.is_watertight
    assert abs(mesh.vertices).max() <= 1 + 1e-9
    inside = 8.0 if radius > 2 else _ball_in_cube_volume(radius)
    assert mesh.volume == pytest.approx(inside, rel=0.02)


def _ball_in_cube_volume(radius: float) -> float:
    axis = (np.arange(200) + 0.5) / 100 - 1
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return float((x * x + y * y + z * z < radius**2).mean() * 8)


def test_bounds_need_not_be_a_cube(ball):
    field = ball(0.3, (2.0, 0.0, -1.0))
    field.bounds = torch.tensor([[1.5, -0.5, -2.0], [2.5, 1.0, -0.5]])
    mesh = extract_mesh(field, 64)
    assert np.allclose(mesh.bounds.mean(0), [2, 0, -1], atol=5e-3)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.02)


def test_the_grid_includes_both_ends_and_reports_every_point(ball):
    seen = []
    values = grid_values(ball(0.6), 9, progress=seen.append)
    assert sum(seen) == 9**3
    axis = torch.linspace(-1, 1, 9)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    assert torch.allclose(torch.from_numpy(values), ball(0.6).value(points), atol=1e-6)


def test_slabs_do_not_show(ball):
    """A grid larger than one slab equals the field evaluated at once."""
    field, n = ball(0.6), 90  # 90^3 points are three slabs
    axis = torch.linspace(-1, 1, n, dtype=torch.float64).float()
    whole = field.value(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)).numpy()
    assert np.array_equal(grid_values(field, n, sparse=False), whole)


def test_nothing_inside_is_an_empty_mesh(ball):
    assert len(extract_mesh(ball(-1.0), 8).faces) == 0


@pytest.mark.parametrize("resolution", [1, 0, -3])
def test_too_small_a_grid_is_refused(ball, resolution):
    with pytest.raises(NifError, match=f"resolution={resolution}"):
        extract_mesh(ball(), resolution)


def test_a_grid_beyond_memory_is_refused(ball):
    with pytest.raises(NifError, match=r"resolution=200000.*memory"):
        extract_mesh(ball(), 200_000)


def test_a_diverged_field_is_refused(ball):
    field = ball(float("nan"))
    with pytest.raises(NifError, match="not finite"):
        extract_mesh(field, 8)


def test_smallest_grid(ball):
    """Two points a side with everything inside give the box itself."""
    mesh = extract_mesh(ball(9.0), 2)
    assert isinstance(mesh, trimesh.Trimesh)
    assert np.allclose(mesh.bounds, [[-1] * 3, [1] * 3])


class Analytic:
    """A field from a function of space whose values are distances up to `trust`."""

    level = 0.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def __init__(self, value, trust=float("inf")):
        self.value, self.trust = value, trust


def _torus(p: torch.Tensor) -> torch.Tensor:
    return 0.12 - torch.stack((p[..., :2].norm(dim=-1) - 0.6, p[..., 2])).norm(dim=0)


def _plate(p: torch.Tensor) -> torch.Tensor:
    outside = (p - torch.tensor([0.1, 0.0, 0.03])).abs() - torch.tensor([0.7, 0.8, 0.02])
    return -(outside.clamp(min=0).norm(dim=-1) + outside.amax(-1).clamp(max=0))


def _steep(p: torch.Tensor) -> torch.Tensor:
    """A ball whose values grow four times as fast as distances on one side: the surface is followed, not predicted."""
    return (0.5 - p.norm(dim=-1)) * torch.where(p[..., 0] > 0, 4.0, 1.0)


@pytest.mark.parametrize("value", [_torus, _plate, _steep], ids=lambda f: f.__name__)
@pytest.mark.parametrize("trust", [float("inf"), 0.1])
@pytest.mark.parametrize("resolution", [40, 64, 97])
@pytest.mark.parametrize("level", [0.0, 0.01])
def test_sparse_is_dense(value, trust, resolution, level):
    """The same triangles, from far fewer evaluations; a clamped distance is enough."""
    field = Analytic(lambda p: value(p).clamp(-trust, trust), trust)
    seen = []
    sparse = extract_mesh(field, resolution, level=level, progress=seen.append)
    dense = extract_mesh(field, resolution, level=level, sparse=False)
    assert np.array_equal(sparse.faces, dense.faces)
    assert np.allclose(sparse.vertices, dense.vertices, atol=1e-6)
    if trust > 1 or resolution == 97:  # else blocks that small values could vouch for would be single cells
        assert sum(seen) < 0.6 * resolution**3


def test_values_that_are_no_distances_are_all_evaluated():
    """A logit says nothing about the surface's distance: every grid point counts."""
    seen = []
    extract_mesh(Analytic(lambda p: 30 * (0.3 - p.norm(dim=-1)), trust=0.0), 32, progress=seen.append)
    assert sum(seen) == 32**3
