"""Meshes as people have them, from the folder that NIF_DATA names."""

from pathlib import Path

import numpy as np
import pytest
from narrowing import sure

from nif_cli.data.shapes.meshes import Meshes
from nif_cli.geometry.mesh import inspect_mesh, load_mesh

pytestmark = pytest.mark.data
CLOSED = ["armadillo", "penguin", "rocker-arm", "spot", "spot-uv", "wingnut"]
OPEN = ["stanford-bunny", "suzanne", "teapot"]


@pytest.mark.parametrize("name", CLOSED)
def test_closed_meshes_are_closed_once_merged(meshes: Path, name):
    """Texture seams (spot-uv) are no holes."""
    mesh = load_mesh(meshes / f"{name}.obj")
    report = inspect_mesh(mesh)
    assert report.watertight, str(report)
    assert mesh.volume > 0


@pytest.mark.parametrize("name", OPEN)
def test_open_meshes_say_so(meshes: Path, name):
    report = inspect_mesh(load_mesh(meshes / f"{name}.obj"))
    assert not report.watertight
    assert "not watertight" in str(report)


def test_a_textured_mesh_is_one_piece(meshes: Path):
    """Its seams split vertices in the file; merged, no part and no boundary is left of them."""
    report = inspect_mesh(load_mesh(meshes / "spot-uv.obj"))
    assert (report.components, report.boundary_edges) == (1, 0)


def test_a_mesh_with_holes_is_sampled(meshes: Path):
    """The bunny: distances are finite, both signs appear, and the middle of its body is inside."""
    (shape,) = Meshes(str(meshes / "stanford-bunny.obj"), samples=4000, surface_samples=1000).prepare()
    distance = sure(shape.distance)
    assert np.isfinite(distance).all()
    assert 0.05 < (distance > 0).mean() < 0.8
    assert "not watertight" in shape.report.text
    far = np.linalg.norm(shape.points, axis=1) > 1.05
    assert (distance[far] < 0).all()
