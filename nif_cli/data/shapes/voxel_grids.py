"""Shapes from occupancy grids (binvox, npy, npz)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import trimesh
from scipy.ndimage import binary_fill_holes

from nif_cli import NifError
from nif_cli.data.shapes.conditioning import grid_lookup
from nif_cli.data.shapes.formats.voxels import Grid, grid_files, read_grids
from nif_cli.data.shapes.meshes import Folder
from nif_cli.data.shapes.samples import ShapeSamples
from nif_cli.geometry.mesh import clean
from nif_cli.geometry.voxels import voxel_mesh
from nif_cli.metrics.protocols import Truth


class VoxelGrids(Folder):
    """Occupancy grids: a binvox, npy or npz file, stacked grids in one array, or a folder of such files.
    `fill` closes the hollow of a grid that holds surface voxels only. The surface is that of the grid's
    distance field; what is inside, to models that ask for that and not for distances, is what the grid
    says."""

    def __init__(self, path: str, fill: bool = True, **settings):
        super().__init__(path, **settings)
        self.fill = fill
        self.grids: dict[str, Callable[[], Grid]] = {}

    def everything(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        base = self.path if self.path.is_dir() else self.path.parent
        found = []
        for file in grid_files(self.path):
            stem = file.relative_to(base).with_suffix("").as_posix()
            grids = read_grids(file)
            for row in range(len(grids)):
                id = stem if grids.single else f"{stem}_{row:04d}"
                name = f"{file} ({id})"
                found.append((id, partial(self.read, grids.read, row, name)))
                self.grids[id] = partial(grids.read, row)
        return found

    def _sample(self, id: str, read: Callable[[], trimesh.Trimesh]) -> ShapeSamples:
        shape = super()._sample(id, read)
        occupied, to_voxels = self.grids[id]()
        positions = to_voxels.to_normalised(shape.transform.to_original(shape.points))
        filled = np.asarray(binary_fill_holes(occupied)) if self.fill else occupied
        return replace(shape, inside=grid_lookup(filled, positions))

    def read(self, grid: Callable[[int], Grid], row: int, name: str) -> trimesh.Trimesh:
        occupied, transform = grid(row)
        if not occupied.any():
            raise NifError(f"{name}: the grid is empty")
        mesh = voxel_mesh(occupied, self.fill)
        return clean(trimesh.Trimesh(transform.to_original(mesh.vertices), mesh.faces, process=False), name)

    def truth(self, id: str) -> Truth:
        """The mesh that was learned from, and the filled grid itself at 100,000 uniform points of its box
        (always the same), one voxel of air around."""
        read = dict(self.everything())[id]
        assert isinstance(read, partial)
        occupied, transform = read.args[0](read.args[1])
        if self.fill:
            occupied = np.asarray(binary_fill_holes(occupied))
        shape = np.array(occupied.shape)
        rng = np.random.default_rng(zlib.crc32(id.encode()))
        where = rng.uniform(-1.5, shape + 0.5, (100_000, 3))
        cell = np.rint(where).astype(np.int64)
        within = ((cell >= 0) & (cell < shape)).all(1)
        inside = np.zeros(len(where), bool)
        inside[within] = occupied[tuple(cell[within].T)]
        return Truth(read(), points=transform.to_original(where), inside=inside)
