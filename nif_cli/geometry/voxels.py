"""Occupancy grids as surfaces."""

from __future__ import annotations

import mcubes
import numpy as np
import trimesh
from jaxtyping import Bool, Float
from scipy import ndimage

# voxels of outside around a grid: what touches its border is closed, and has an outside to be distant from
PAD = 2


def voxel_distance(occupied: Bool[np.ndarray, "X Y Z"], fill: bool = True) -> Float[np.ndarray, "U V W"]:
    """Signed distance (in voxels, positive inside) at the centres of the grid padded by two on every side.

    The surface lies half way between an inside centre and its nearest outside centre, so every centre keeps
    its sign and is at least half a voxel away. `fill` first closes the hollows that the outside does not
    reach.
    """
    if fill:
        occupied = np.asarray(ndimage.binary_fill_holes(occupied))
    occupied = np.pad(occupied, PAD)
    inner = np.asarray(ndimage.distance_transform_edt(occupied))
    outer = np.asarray(ndimage.distance_transform_edt(~occupied))
    return np.where(occupied, inner - 0.5, 0.5 - outer).astype(np.float32)


def voxel_mesh(occupied: Bool[np.ndarray, "X Y Z"], fill: bool = True) -> trimesh.Trimesh:
    """The zero level of `voxel_distance`: a closed mesh in units of voxels, with the centre of voxel (i, j,
    k) there.

    Where the sign changes the distances are +-0.5, whatever they are elsewhere, so the grid itself says it
    all: a byte for each voxel, not the tens that distances take."""
    if fill:
        occupied = np.asarray(ndimage.binary_fill_holes(occupied))
    vertices, faces = mcubes.marching_cubes(np.pad(occupied, PAD), 0.5)
    return trimesh.Trimesh(vertices - PAD, np.asarray(faces, np.int64), process=False)
