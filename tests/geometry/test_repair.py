"""Meshes that enclose nothing as they stand become solids."""

import numpy as np
import pytest
import trimesh

from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.mesh import inspect_mesh, signed_volume
from nif_cli.geometry.repair import boundary_loops, filled, oriented, solid


def doubled(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Each face in both directions, as ShapeNet ships them."""
    return trimesh.Trimesh(mesh.vertices, np.concatenate((mesh.faces, mesh.faces[:, ::-1])), process=False)


def inside(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    return MeshDistance(mesh.vertices, mesh.faces).winding_number(points) > 0.5


def test_doubled_faces_enclose_nothing_until_oriented(rng: np.random.Generator) -> None:
    ball = trimesh.creation.icosphere(3)
    points = rng.uniform(-1.2, 1.2, (2000, 3))
    broken = doubled(ball)
    report = inspect_mesh(broken)
    assert report.doubled_faces == len(ball.faces)
    assert abs(report.volume) < 1e-9
    assert "50% of the faces are there twice" in report.doubts
    assert not inside(broken, points).any()
    assert (inside(oriented(broken), points) == inside(ball, points)).all()


def test_inside_out_is_turned() -> None:
    ball = trimesh.creation.icosphere(2)
    turned = trimesh.Trimesh(ball.vertices, ball.faces[:, ::-1], process=False)
    assert "inside out" in inspect_mesh(turned).doubts
    assert signed_volume(oriented(turned)) == pytest.approx(signed_volume(ball))


def test_each_part_is_turned_by_itself() -> None:
    a, b = trimesh.creation.box(), trimesh.creation.box()
    b.apply_translation([3, 0, 0])
    mesh = trimesh.Trimesh(
        np.concatenate((a.vertices, b.vertices)),
        np.concatenate((a.faces, b.faces[:, ::-1] + len(a.vertices))),
        process=False,
    )
    assert inside(oriented(mesh), np.array([[0.0, 0, 0], [3, 0, 0], [1.5, 0, 0]])).tolist() == [
        True,
        True,
        False,
    ]


def test_holes_are_found_and_closed(rng: np.random.Generator) -> None:
    ball = trimesh.creation.icosphere(3)
    keep = np.abs(ball.triangles_center[:, 2]) < 0.8
    pipe = trimesh.Trimesh(ball.vertices, ball.faces[keep], process=False)
    pipe.remove_unreferenced_vertices()
    assert len(boundary_loops(pipe.faces)) == 2
    closed = filled(pipe)
    report = inspect_mesh(closed)
    assert report.watertight
    assert signed_volume(closed) > 0
    assert inside(closed, np.zeros((1, 3))).all()


def test_two_holes_that_touch() -> None:
    """Both rims pass through one vertex: two loops, not one knot."""
    grid = trimesh.creation.box()
    grid = grid.subdivide().subdivide()
    middle = int(np.argmin(np.linalg.norm(grid.vertices - [0.5, 0, 0], axis=1)))
    around = np.flatnonzero((grid.faces == middle).any(1))
    gone = [around[0], around[len(around) // 2]]
    mesh = trimesh.Trimesh(grid.vertices, np.delete(grid.faces, gone, 0), process=False)
    assert sorted(len(loop) for loop in boundary_loops(mesh.faces)) == [3, 3]
    assert inspect_mesh(filled(mesh)).watertight


@pytest.mark.parametrize("broken", ["sheet", "doubled", "overlap", "hole", "hollow"])
def test_solid(broken: str, rng: np.random.Generator) -> None:
    """Closed, faces outwards, within a cell of the original, full where that is full or hollow."""
    ball = trimesh.creation.icosphere(4)
    if broken == "sheet":
        mesh = trimesh.Trimesh(
            [[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False
        )
    elif broken == "doubled":
        mesh = doubled(ball)
    elif broken == "overlap":
        other = ball.copy()
        other.apply_translation([0.7, 0, 0])
        mesh = trimesh.util.concatenate([ball, other])
        assert isinstance(mesh, trimesh.Trimesh)
    elif broken == "hole":
        mesh = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0.95], process=False)
    else:
        cavity = ball.copy()
        cavity.apply_scale(0.5)
        mesh = trimesh.Trimesh(
            np.concatenate((ball.vertices, cavity.vertices)),
            np.concatenate((ball.faces, cavity.faces[:, ::-1] + len(ball.vertices))),
            process=False,
        )
    made = solid(mesh, 48)
    assert made.is_watertight
    assert signed_volume(made) > 0
    cell = float(np.ptp(mesh.vertices, axis=0).max()) / 48
    assert inspect_mesh(made).overlap == 0
    moved = MeshDistance(mesh.vertices, mesh.faces).distance(made.vertices)
    assert moved.max() < (1.5 * cell if broken != "hole" else 0.35)  # the lid spans a rim of radius 0.31
    if broken != "sheet":
        points = rng.uniform(-1, 1, (2000, 3))
        radius = np.linalg.norm(points, axis=1)
        found = inside(made, points)
        assert found[radius < 0.9].all()
        if broken != "overlap":
            assert not found[radius > 1 + 2 * cell].any()
