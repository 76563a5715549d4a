"""Law of writing: another reader finds a mesh where it was meant, to 1e-6 of its size, or it is said that it
does not."""

import numpy as np
import pytest
import trimesh

from nif_cli.geometry.mesh import load_mesh
from nif_cli.geometry.writing import WRITABLE, mesh_bytes, remark


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("away", [0.0, 5e5, 4e6])
def test_what_is_written_is_read_where_it_was_meant(format, size, away, tmp_path):
    mesh = trimesh.creation.box([size, size / 2, size / 3])
    mesh.vertices = mesh.vertices + np.array([away, away / 7, -away / 100])
    path = tmp_path / f"box.{format}"
    path.write_bytes(mesh_bytes(mesh, format))

    def apart(found: trimesh.Trimesh) -> float:
        return float(np.abs(np.asarray(found.bounds) - mesh.bounds).max()) / size

    other = trimesh.load_scene(path, process=False).to_mesh()
    exact = max(1e-6, 4 * np.spacing(away) / size)  # what a double holds
    assert apart(load_mesh(path)) < exact
    said = remark(mesh, format)
    assert (apart(other) < exact) == (said is None)
    assert said is None or "warning" in said
