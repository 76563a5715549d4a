"""From fields to meshes: analytic balls come back as what they are."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import KDTree

from nif_cli import NifError
from nif_cli.geometry.extraction import dense_values, extract_mesh
from nif_cli.geometry.lattice import Grid
from nif_cli.geometry.narrow_band import find_band


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


def test_the_dense_grid_includes_both_ends_and_slabs_do_not_show(ball):
    """A grid larger than one slab equals the field evaluated at once; every point is reported, with what is
    left."""
    field, n, seen = ball(0.6), 90, []  # 90^3 points are three slabs
    axis = torch.linspace(-1, 1, n, dtype=torch.float64).float()
    whole = field.value(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)).numpy()
    assert np.array_equal(
        dense_values(Grid(field, n, 0.0, "cpu", lambda *counts: seen.append(counts))), whole
    )
    assert sum(done for done, _ in seen) == n**3
    assert [left for _, left in seen] == (n**3 - np.cumsum([done for done, _ in seen])).tolist()


def test_nothing_inside_is_an_empty_mesh(ball):
    assert len(extract_mesh(ball(-1.0), 8).faces) == 0


@pytest.mark.parametrize("resolution", [1, 0, -3])
def test_too_small_a_grid_is_refused(ball, resolution):
    with pytest.raises(NifError, match=f"resolution={resolution}"):
        extract_mesh(ball(), resolution)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_grid_beyond_memory_is_refused(ball, sparse):
    with pytest.raises(NifError, match=r"resolution=200000.*memory"):
        extract_mesh(ball(), 200_000, sparse=sparse)


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
    """A field from a function of space whose values are distances up to `truncation`."""

    level = 0.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def __init__(self, function, truncation=float("inf")):
        self.function, self.truncation = function, truncation

    def value(self, points: torch.Tensor) -> torch.Tensor:
        return self.function(points)


def _torus(p: torch.Tensor) -> torch.Tensor:
    return 0.12 - torch.stack((p[..., :2].norm(dim=-1) - 0.6, p[..., 2])).norm(dim=0)


def _plate(p: torch.Tensor) -> torch.Tensor:
    outside = (p - torch.tensor([0.1, 0.0, 0.03])).abs() - torch.tensor([0.7, 0.8, 0.02])
    return -(outside.clamp(min=0).norm(dim=-1) + outside.amax(-1).clamp(max=0))


def _steep(p: torch.Tensor) -> torch.Tensor:
    """A ball whose values grow four times as fast as distances on one side: the surface is followed, not
    predicted."""
    return (0.5 - p.norm(dim=-1)) * torch.where(p[..., 0] > 0, 4.0, 1.0)


def same_triangles(a: trimesh.Trimesh, b: trimesh.Trimesh, atol: float = 1e-6) -> bool:
    """Whether two meshes are the same set of oriented triangles, whatever the order of their vertices and
    faces."""
    if len(a.vertices) != len(b.vertices) or len(a.faces) != len(b.faces):
        return False
    if not len(b.faces):
        return True
    places, of_b = np.unique(b.vertices, axis=0, return_inverse=True)  # the box's edges hold some twice
    distance, of_a = map(np.asarray, KDTree(places).query(a.vertices))
    n = len(places)
    turned = [
        [(f[:, k] * n + f[:, (k + 1) % 3]) * n + f[:, (k + 2) % 3] for k in range(3)]
        for f in (of_a[a.faces], of_b[b.faces])
    ]
    ours, theirs = (np.sort(np.min(t, 0)) for t in turned)
    return distance.max() <= atol and np.array_equal(ours, theirs)


@pytest.mark.parametrize("value", [_torus, _plate, _steep], ids=lambda f: f.__name__)
@pytest.mark.parametrize("truncation", [float("inf"), 0.1, 0.0])
@pytest.mark.parametrize("resolution", [40, 64, 97])
@pytest.mark.parametrize("level", [0.0, 0.01])
def test_sparse_is_dense(value, truncation, resolution, level):
    """The same triangles, from far fewer evaluations: of distances, of distances clamped at `truncation`, of
    logits."""
    field = Analytic(
        (lambda p: value(p).clamp(-truncation, truncation)) if truncation else (lambda p: 30 * value(p)),
        truncation,
    )
    sparse = extract_mesh(field, resolution, level=level)
    dense = extract_mesh(field, resolution, level=level, sparse=False)
    assert same_triangles(sparse, dense)
    if resolution == 97:
        assert sparse.metadata["evaluations"] < 0.25 * resolution**3


def test_triangles_are_those_of_pymcubes():
    """All of the 256 cells: random values, dense and sparse."""
    values = torch.randn(9, 9, 9, generator=torch.Generator().manual_seed(1))

    def value(p):
        i, j, k = ((p + 1) * 4).round().long().unbind(-1)
        return values[i, j, k]

    sparse, dense = (extract_mesh(Analytic(value, 0.0), 9, sparse=s) for s in (True, False))
    assert same_triangles(sparse, dense)


def test_work_grows_with_the_surface(ball):
    """Evaluations: few more than the vertices of crossed cells, four times as many at twice the
    resolution."""
    few, many = (extract_mesh(ball(0.6), n).metadata["evaluations"] for n in (128, 256))
    assert many < 4.2 * few
    band = find_band(Grid(ball(0.6), 128, 0.0, "cpu"))
    inside = (band.values > 0)[band.corners]
    touched = len(torch.unique(band.corners[inside.any(1) & ~inside.all(1)]))
    assert few < 1.5 * touched


def test_small_parts_that_the_coarse_lattice_can_see_are_found():
    """Nine balls of different sizes, the smallest a hundredth of the box: a distance tells of them wherever
    they are."""
    rng = np.random.default_rng(3)
    centres = torch.from_numpy(rng.uniform(-0.8, 0.8, (9, 3))).float()
    radii = torch.linspace(0.02, 0.15, 9)
    field = Analytic(lambda p: (radii - (p[..., None, :] - centres).norm(dim=-1)).amax(-1))
    sparse, dense = (extract_mesh(field, 128, sparse=s) for s in (True, False))
    assert same_triangles(sparse, dense)


def test_coarse_finds_what_a_logit_hides():
    """Values that are no distances say nothing of a part between the points of the coarse lattice; a finer
    one does."""

    def value(p):
        # a ball of radius 1/80, flat beyond 1/27
        near = 10 * (0.5 - 40 * (p - 0.703).norm(dim=-1)).clamp(min=-1)
        return torch.maximum(20 * (0.3 - p.norm(dim=-1)).clamp(-1, 1), near)

    field = Analytic(value, 0.0)
    dense = extract_mesh(field, 128, sparse=False)
    assert dense.body_count == 2
    assert extract_mesh(field, 128).body_count == 1
    assert same_triangles(extract_mesh(field, 128, coarse=64), dense)


def test_a_surface_is_followed_across_cells_that_nothing_predicts():
    """A rod whose values are flat but for its end: it is followed from there."""

    def value(p):
        rod = 0.03 - torch.stack((p[..., 1] - 0.013, p[..., 2] + 0.017)).norm(dim=0)
        rod = torch.minimum(rod, 0.8 - p[..., 0].abs())
        return torch.maximum(
            rod.clamp(min=-0.001), 0.2 - (p - torch.tensor([0.8, 0.0, 0.0])).norm(dim=-1)
        ).clamp(max=0.01)

    sparse, dense = (extract_mesh(Analytic(value, 0.0), 100, sparse=s) for s in (True, False))
    assert same_triangles(sparse, dense)
