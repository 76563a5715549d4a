"""From a Field to a triangle mesh."""

from __future__ import annotations

from collections.abc import Callable

import mcubes
import numpy as np
import torch
import trimesh
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.field import Field, evaluate


def grid_values(
    field: Field, resolution: int, device: torch.device | str = "cpu", progress: Callable[[int], object] | None = None
) -> Float[np.ndarray, "X Y Z"]:
    """`field.value` at the resolution^3 corners of a grid over `field.bounds`, both ends included, float32.

    Slab by slab: memory beyond the grid itself is bounded. `progress(n)` is called after each n points.
    """
    low, high = field.bounds.double().cpu()
    axes = [
        torch.linspace(float(a), float(b), resolution, dtype=torch.float64).float().to(device)
        for a, b in zip(low, high, strict=True)
    ]
    values = np.empty((resolution,) * 3, np.float32)
    slab = max(1, 2**18 // resolution**2)
    for start in range(0, resolution, slab):
        points = torch.stack(torch.meshgrid(axes[0][start : start + slab], axes[1], axes[2], indexing="ij"), -1)
        values[start : start + slab] = evaluate(field, points.reshape(-1, 3)).float().cpu().numpy().reshape(points.shape[:3])
        if progress:
            progress(points[..., 0].numel())
    return values


def extract_mesh(
    field: Field,
    resolution: int,
    *,
    level: float | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> trimesh.Trimesh:
    """Marching cubes over a dense grid of resolution^3 corners; faces wind outwards, vertices in normalised space (float64).

    A surface that leaves `field.bounds` is closed there. Returns an empty mesh where the field nowhere crosses `level`
    (default: the field's own). Raises NifError when values are not finite or the grid does not fit in memory.
    """
    if resolution < 2:
        raise NifError(f"resolution={resolution}: at least 2 grid points a side are needed (128 or 256 is usual)")
    level = field.level if level is None else level
    try:
        values = grid_values(field, resolution, device, progress)
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
