"""Occupancy grids: every format gives the same grid, and every voxel centre keeps its sign."""

import os
from pathlib import Path

import numpy as np
import pytest

from nif_cli import NifError
from nif_cli.data.shapes.formats.voxels import grid_files, read_grids, write_binvox
from nif_cli.data.shapes.voxel_grids import VoxelGrids
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.transform import Transform
from nif_cli.geometry.voxels import voxel_distance, voxel_mesh


def blob(shape: tuple[int, int, int] = (9, 7, 8), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.4


def test_formats_agree(tmp_path: Path) -> None:
    grids = np.stack([blob(seed=s) for s in range(3)])
    np.savez(tmp_path / "packed.npz", occupancy=np.packbits(grids), shape=np.array(grids.shape))
    np.save(tmp_path / "plain.npy", grids.astype(np.float32))
    np.savez(tmp_path / "plain.npz", voxels=grids.astype(np.uint8))
    for name in ("packed.npz", "plain.npy", "plain.npz"):
        read = read_grids(tmp_path / name)
        assert len(read) == 3
        assert all((read.read(i)[0] == grids[i]).all() for i in range(3))
    place = Transform((0.1, 0.2, -0.3), 5.0)
    write_binvox(tmp_path / "one.binvox", grids[0], place)
    read = read_grids(tmp_path / "one.binvox")
    grid, transform = read.read(0)
    assert read.single
    assert (grid == grids[0]).all()
    assert np.allclose([*transform.offset, transform.scale], [*place.offset, place.scale])
    assert [f.name for f in grid_files(tmp_path)] == ["one.binvox", "packed.npz", "plain.npy", "plain.npz"]


def test_every_centre_keeps_its_sign() -> None:
    """Of the distance field, and of the mesh that is extracted from it; also at the grid's border."""
    for seed in range(3):
        grid = blob(seed=seed)
        distance = voxel_distance(grid, fill=False)
        assert ((distance > 0) == np.pad(grid, 2)).all()
        assert np.abs(distance).min() >= 0.5
        mesh = voxel_mesh(grid, fill=False)
        assert mesh.is_watertight
        centres = np.argwhere(np.ones(grid.shape, bool)).astype(float)
        signed = MeshDistance(mesh.vertices, mesh.faces).signed(centres)
        assert ((signed > 0) == grid.reshape(-1)).all()


def test_a_hollow_is_filled() -> None:
    grid = np.zeros((9, 9, 9), bool)
    grid[1:8, 1:8, 1:8] = True
    full = grid.copy()
    grid[2:7, 2:7, 2:7] = False
    assert ((voxel_distance(grid) > 0) == np.pad(full, 2)).all()


def test_units(tmp_path: Path) -> None:
    """Without units of its own a grid spans +-0.5; what is read back in the user's units is where the voxels
    are."""
    grid = np.zeros((8, 8, 8), bool)
    grid[6:, :, :] = True
    np.save(tmp_path / "wall.npy", grid)
    data = VoxelGrids(str(tmp_path / "wall.npy"), samples=100, surface_samples=100)
    [(id, read)] = data.meshes()
    assert id == "wall"
    mesh = read()
    assert np.allclose(mesh.bounds, [[0.25, -0.5, -0.5], [0.5, 0.5, 0.5]], atol=0.01)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(occupancy=np.zeros(4, np.uint8), shape=np.array([4, 4, 4])), "must be 8 packed bytes"),
        (dict(occupancy=np.zeros(8, np.uint8), shape=np.array([4, -4, 4])), "positive whole numbers"),
        (dict(occupancy=np.zeros(8, np.uint8), shape=np.array([2**40, 2**40, 2**40])), "packed bytes"),
        (dict(a=np.zeros(3), b=np.zeros(3)), "no grid in it"),
        (dict(voxels=np.zeros((3, 3))), "grids are"),
        (dict(voxels=np.array([[["a"]]])), "booleans or numbers"),
        (dict(voxels=np.array([[[None]]])), "never read"),
    ],
)
def test_bad_grids(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(NifError, match=message):
        read_grids(tmp_path / "bad.npz")


def test_bad_binvox(tmp_path: Path) -> None:
    path = tmp_path / "a.binvox"
    write_binvox(path, blob())
    good = path.read_bytes()
    for content in (
        good[:-2],
        b"",
        b"#binvox 1\ndim 2 2\ndata\n",
        b"solid",
        good.replace(b"dim 9", b"dim 5"),
    ):
        path.write_bytes(content)
        with pytest.raises(NifError, match=r"a\.binvox"):
            read_grids(path).read(0)


def test_empty_grid_and_nan(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((4, 4, 4)))
    with pytest.raises(NifError, match="the grid is empty"):
        VoxelGrids(str(tmp_path / "none.npy")).meshes()[0][1]()
    np.save(tmp_path / "nan.npy", np.full((4, 4, 4), np.nan))
    with pytest.raises(NifError, match="NaN"):
        VoxelGrids(str(tmp_path / "nan.npy")).meshes()[0][1]()


@pytest.mark.data
@pytest.mark.skipif("NIF_DATA" not in os.environ, reason="NIF_DATA is not set")
def test_real_chairs() -> None:
    data = VoxelGrids(str(Path(os.environ["NIF_DATA"]) / "modelnet-chairs" / "voxels.npz"))
    meshes = data.meshes()
    assert len(meshes) == 600
    assert meshes[7][0] == "voxels_0007"
    for _, read in meshes[:3]:
        assert read().is_watertight
