"""The values of a field on a grid, as an npz file with what leads from its indices to the user's units."""

from __future__ import annotations

import io

import numpy as np
import torch

from nif_cli.field import Field
from nif_cli.geometry.extraction import dense_values
from nif_cli.geometry.narrow_band import Grid
from nif_cli.geometry.transform import Transform


def grid_npz(
    field: Field,
    transform: Transform,
    resolution: int,
    unit: float,
    level: float,
    bounds: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> bytes:
    """`values` [X, Y, Z] float32, positive inside and 0 on the surface (distances times `unit`), at
    origin + spacing * (i, j, k); `offset` and `scale`: normalised = (point + offset) * scale. NifError where
    it does not fit in memory."""
    grid = Grid(field, resolution, level, device, None, bounds)
    values = (dense_values(grid) - np.float32(level)) * np.float32(unit)
    low = grid.low.double().numpy()
    step = grid.step.double().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        values=values,
        origin=transform.to_original(low),
        spacing=step / transform.scale,
        offset=np.asarray(transform.offset),
        scale=np.float64(transform.scale),
    )
    return buffer.getvalue()
