"""From a Field to a triangle mesh."""

from __future__ import annotations

from collections.abc import Callable

import mcubes
import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8

from nif_cli import NifError
from nif_cli.field import Field, Signal, evaluate


def grid_values(
    field: Field,
    resolution: int,
    device: torch.device | str = "cpu",
    *,
    level: float = 0.0,
    sparse: bool = True,
    progress: Callable[[int], object] | None = None,
) -> Float[np.ndarray, "X Y Z"]:
    """`field.value` at the resolution^3 corners of a grid over `field.bounds`, both ends included, float32.

    `sparse`: exact near the surface only, elsewhere some value on the same side of `level`. Blocks of cells are left out
    where the value at their centre says that the surface is farther away than their corners, unless the surface then turns
    out to enter them from a neighbour. Needs values that are distances near the surface (trust > 0); a component smaller
    than a block of which no trace is at any block's centre can be missed. `progress(n)` is called after each n points.
    """
    low, high = (bound.numpy() for bound in field.bounds.double().cpu())
    axes = [np.linspace(a, b, resolution) for a, b in zip(low, high, strict=True)]

    def at(i: np.ndarray, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        points = np.stack([axes[0][i], axes[1][j], axes[2][k]], -1)
        values = evaluate(field, torch.from_numpy(points).float().to(device)).float().cpu().numpy()
        if progress:
            progress(len(values))
        return values

    size = _block_size(field, resolution, level, float(np.linalg.norm(high - low)) / (resolution - 1)) if sparse else 0
    values = np.empty((resolution,) * 3, np.float32)
    if size < 2:
        slab = max(1, 2**18 // resolution**2)
        for start in range(0, resolution, slab):
            i, j, k = np.indices((min(slab, resolution - start), resolution, resolution)).reshape(3, -1)
            values[start : start + slab] = at(i + start, j, k).reshape(-1, resolution, resolution)
    else:
        _fill_near_surface(values, field, size, level, device, at)
    return values


SLOPE = 1.5  # what the gradient of a network that is nearly a distance is taken to stay below


def _block_size(field: Field, resolution: int, level: float, diagonal: float) -> int:
    """Cells along a block, so that the surface within its half diagonal shows in the value at its centre; 0: none."""
    size = min(8, resolution // 16)
    while size >= 2 and SLOPE * 0.5 * size * diagonal > 0.9 * (field.trust - abs(level - field.level)):
        size -= 1
    return size


def _fill_near_surface(
    values: np.ndarray, field: Field, size: int, level: float, device: torch.device | str, at: Callable[..., np.ndarray]
) -> None:
    """`values` from evaluations where blocks of `size` cells may hold the surface, from their blocks' centres elsewhere."""
    resolution = len(values)
    blocks = -(-(resolution - 1) // size)
    low, high = field.bounds.double().cpu()
    cell = (high - low) / (resolution - 1)
    index = torch.stack(torch.meshgrid(*[torch.arange(blocks)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centres = (low + (index + 0.5) * size * cell).float().to(device)
    centre = evaluate(field, centres).float().cpu().numpy().reshape((blocks,) * 3)
    if not np.isfinite(centre).all():
        values.fill(np.nan)
        return
    wanted = np.abs(centre - level) <= SLOPE * 0.5 * size * float(cell.norm())
    inside = centre > level
    for axis in range(3):  # two neighbours on different sides: the surface is between them
        a, b = (tuple(s if n == axis else slice(None) for n in range(3)) for s in (slice(None, -1), slice(1, None)))
        differ = inside[a] != inside[b]
        wanted[a] |= differ
        wanted[b] |= differ
    of_vertex = np.minimum(np.arange(resolution) // size, blocks - 1)
    for x, block in enumerate(of_vertex):
        values[x] = centre[block][np.ix_(of_vertex, of_vertex)]
    known = np.zeros(values.shape, bool)
    done = np.zeros_like(wanted)
    while (new := np.argwhere(wanted & ~done)).size:
        missing = np.zeros_like(known)
        for block in new:
            missing[_corners(block, size)] = True
        missing &= ~known
        for part in np.array_split(np.flatnonzero(missing), 1 + missing.sum() // 2**20):
            values.flat[part] = at(*np.unravel_index(part, values.shape))
        known |= missing
        done[tuple(new.T)] = True
        for block in new:  # wherever a face is not all on the side of the block beyond it, the surface goes on there
            side = values[_corners(block, size)] > level
            for axis in range(3):
                for step, face in ((-1, side.take(0, axis)), (1, side.take(-1, axis))):
                    beyond = block.copy()
                    beyond[axis] += step
                    if 0 <= beyond[axis] < blocks and (face != inside[tuple(beyond)]).any():
                        wanted[tuple(beyond)] = True


def _corners(block: np.ndarray, size: int) -> tuple[slice, ...]:
    """The grid's vertices that belong to a block, those it shares with its neighbours included."""
    return tuple(slice(int(i) * size, (int(i) + 1) * size + 1) for i in block)


def extract_mesh(
    field: Field,
    resolution: int,
    *,
    level: float | None = None,
    sparse: bool = True,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> trimesh.Trimesh:
    """Marching cubes over a grid of resolution^3 corners (`sparse`: see grid_values); faces wind outwards, vertices are in
    normalised space (float64).

    A surface that leaves `field.bounds` is closed there. Returns an empty mesh where the field nowhere crosses `level`
    (default: the field's own). Raises NifError when values are not finite or the grid does not fit in memory.
    """
    if resolution < 2:
        raise NifError(f"resolution={resolution}: at least 2 grid points a side are needed (128 or 256 is usual)")
    level = field.level if level is None else level
    try:
        values = grid_values(field, resolution, device, level=level, sparse=sparse, progress=progress)
        if not np.isfinite(values).all():
            raise NifError(
                "the field has values that are not finite: the training has diverged; train again with a smaller model.lr"
            )
        # One layer of "outside" around the grid closes what the box cuts.
        outside = np.float32(min(level, float(values.min())) - 1.0)
        vertices, faces = mcubes.marching_cubes(np.pad(values, 1, constant_values=outside), level)
    except MemoryError as error:
        raise NifError(
            f"resolution={resolution}: a grid of {resolution**3 * 4 / 2**30:.0f} GiB does not fit in memory; lower it"
        ) from error
    low, high = field.bounds.double().cpu().numpy()
    vertices = low + (vertices - 1.0).clip(0, resolution - 1) * (high - low) / (resolution - 1)
    return trimesh.Trimesh(vertices, np.asarray(faces, np.int64), process=False)


def vertex_colors(
    signal: Signal, vertices: Float[np.ndarray, "V 3"], device: torch.device | str = "cpu"
) -> UInt8[np.ndarray, "V 3"]:
    """sRGB of a coloured surface at vertices in normalised space, as bytes."""
    points = torch.from_numpy(np.asarray(vertices, np.float32)).to(device)
    with torch.no_grad():
        colors = [signal.color(part).clamp(0, 1) * 255 + 0.5 for part in points.split(2**16)]
    return torch.cat(colors).to(torch.uint8).cpu().numpy()
