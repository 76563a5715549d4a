"""From a Field to a triangle mesh."""

from __future__ import annotations

from collections.abc import Callable

import mcubes
import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.field import Field
from nif_cli.files import available_memory
from nif_cli.geometry.lattice import Grid
from nif_cli.geometry.marching_cubes import marching_cubes
from nif_cli.geometry.narrow_band import find_band


def extract_mesh(
    field: Field,
    resolution: int,
    *,
    level: float | None = None,
    sparse: bool = True,
    coarse: int | None = None,
    bounds: Float[Tensor, "2 3"] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], object] | None = None,
) -> trimesh.Trimesh:
    """Marching cubes over a grid of resolution^3 points, both ends of the bounds included (`bounds`, or else
    the field's); faces wind outwards, vertices are in normalised space (float64).

    `sparse`: only where the surface is (see find_band; `coarse`: cells a side that it starts from). A surface
    that leaves the bounds is closed there. `progress(n, left)` is called after each n evaluations with an
    estimate of how many are left; `metadata` of the mesh counts them all. Returns an empty mesh where the
    field nowhere crosses `level` (default: the field's own). Raises NifError when values are not finite or
    the grid does not fit in memory.
    """
    if resolution < 2:
        raise NifError(
            f"resolution={resolution}: at least 2 grid points a side are needed (128 or 256 is usual)"
        )
    grid = Grid(field, resolution, field.level if level is None else level, device, progress, bounds)
    if not sparse:
        return mesh_of_values(grid, dense_values(grid))
    vertices, faces = marching_cubes(find_band(grid, coarse), grid.level)
    return _mesh(grid, vertices.cpu().numpy(), faces.cpu().numpy())


def mesh_of_values(grid: Grid, values: Float[np.ndarray, "X Y Z"]) -> trimesh.Trimesh:
    """PyMCubes' mesh of values at all points of the grid: the reference for the sparse way."""
    # One layer of "outside" around the grid closes what the box cuts.
    outside = np.float32(min(grid.level, float(values.min())) - 1.0)
    return _mesh(grid, *mcubes.marching_cubes(np.pad(values, 1, constant_values=outside), grid.level))


def _mesh(grid: Grid, vertices: Float[np.ndarray, "V 3"], faces: np.ndarray) -> trimesh.Trimesh:
    """Vertices in steps of the grid -> a mesh in normalised space; those in the layer around it are moved to
    its sides."""
    vertices = grid.low.numpy() + (vertices - 1.0).clip(0, grid.resolution - 1) * grid.step.numpy()
    mesh = trimesh.Trimesh(vertices, np.asarray(faces, np.int64), process=False)
    mesh.metadata["evaluations"] = grid.evaluations
    return mesh


def dense_values(grid: Grid) -> Float[np.ndarray, "X Y Z"]:
    """The field's values at all points of the grid, float32."""
    n = grid.resolution
    if n**3 * 8 > available_memory():  # once more with the layer around it
        raise NifError(
            f"resolution={n}: a grid of {n**3 * 8 / 2**30:.0f} GiB does not fit in memory; lower it, or "
            "method=sparse"
        )
    values = np.empty((n,) * 3, np.float32)
    slab = max(1, 2**18 // n**2)
    for start in range(0, n, slab):
        i, j, k = torch.meshgrid(
            torch.arange(start + 1, min(n, start + slab) + 1),
            torch.arange(1, n + 1),
            torch.arange(1, n + 1),
            indexing="ij",
        )
        places = torch.stack((i, j, k), -1).to(grid.device)
        left = (n - start - len(i)) * n**2
        values[start : start + slab] = (
            grid.values(places.reshape(-1, 3), left).reshape(-1, n, n).cpu().numpy()
        )
    return values
