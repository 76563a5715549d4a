"""What is done to an extracted mesh, on shapes that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.postprocess import field_normals, largest_part, refined, simplified, vertex_colors


class TwoBalls:
    """Balls of radius 0.4 and 0.2, by a value that is neither a distance nor linear across the surface."""

    level, truncation = 0.1, 0.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def value(self, points: torch.Tensor) -> torch.Tensor:
        far = torch.stack((0.4 - (points + 0.4).norm(dim=-1), 0.2 - (points - 0.6).norm(dim=-1))).amax(0)
        return 0.1 + 3 * far + 40 * far * far.abs()

    def color(self, points: torch.Tensor, directions=None) -> torch.Tensor:
        return 0.5 + 0.5 * points


def off(vertices: np.ndarray) -> float:
    """The largest distance from the two balls."""
    far = np.stack(
        (0.4 - np.linalg.norm(vertices + 0.4, axis=1), 0.2 - np.linalg.norm(vertices - 0.6, axis=1))
    )
    return float(np.abs(far).min(0).max())


@pytest.fixture(scope="module")
def mesh() -> trimesh.Trimesh:
    return extract_mesh(TwoBalls(), 48)


def test_the_largest_part_is_kept_whole(mesh):
    part, parts = largest_part(mesh)
    assert parts == 2
    assert part.is_watertight
    assert part.volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)
    assert largest_part(part)[1] == 1
    assert len(largest_part(part)[0].vertices) == len(part.vertices)


@pytest.mark.parametrize("faces", [200, 1000])
def test_a_simplified_mesh_stays_closed_and_close(mesh, faces):
    made = simplified(mesh, faces)
    assert 0.9 * faces <= len(made.faces) <= faces
    assert made.is_watertight
    assert made.is_winding_consistent
    assert made.volume == pytest.approx(mesh.volume, rel=0.02 * 1000 / faces)


def test_few_enough_faces_are_left_as_they_are(mesh):
    assert simplified(mesh, len(mesh.faces)) is mesh


def test_newton_steps_reach_the_level_set(mesh):
    """Quadratic convergence: a step squares the error, down to float32."""
    field, cell = TwoBalls(), 2 / 47
    before, once, twice = (off(refined(field, mesh.vertices, n, cell)) for n in (0, 1, 3))
    assert before > 1e-3
    assert once < before / 10
    assert twice < 1e-6


def test_refinement_leads_no_vertex_astray(mesh):
    """No farther than `reach`, and nowhere at all where there is no slope."""
    moved = refined(TwoBalls(), mesh.vertices, 5, 1e-4)
    assert np.linalg.norm(moved - mesh.vertices, axis=1).max() < 1.1e-4

    class Flat(TwoBalls):
        def value(self, points):
            return 0 * points.sum(-1)

    assert np.array_equal(refined(Flat(), mesh.vertices, 2, 0.1), mesh.vertices)


def test_what_closes_the_surface_at_the_bounds_stays(ball):
    mesh = extract_mesh(ball(1.2), 24)
    flat = (np.abs(mesh.vertices) > 1 - 1e-9).any(1)
    moved = refined(ball(1.2), mesh.vertices, 2, 0.1)
    assert flat.any()
    assert np.array_equal(moved[flat], mesh.vertices[flat])
    assert np.abs(np.linalg.norm(moved[~flat], axis=1) - 1.2).max() < 1e-6


def test_normals_are_those_of_the_field(mesh):
    made = field_normals(TwoBalls(), mesh.vertices)
    first = np.linalg.norm(mesh.vertices + 0.4, axis=1) < 0.5
    assert np.allclose(
        made[first],
        (mesh.vertices[first] + 0.4) / np.linalg.norm(mesh.vertices[first] + 0.4, axis=1)[:, None],
        atol=1e-4,
    )


def test_colors_are_those_of_the_signal(mesh):
    expected = (255 * np.clip(0.5 + 0.5 * mesh.vertices, 0, 1) + 0.5).astype(np.uint8)
    assert np.abs(vertex_colors(TwoBalls(), mesh.vertices).astype(int) - expected).max() <= 1
