"""A plane through a field: its values as colours, with isolines."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nif_cli.field import Field, evaluate

GLASS = 0.6  # how opaque it is outside
INSIDE, OUTSIDE = (0.36, 0.56, 0.84), (0.97, 0.90, 0.74)


def slice_values(
    field: Field, pose: Float[np.ndarray, "3 4"], half: float, size: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "size size"]:
    """The values on a square of the plane that `pose` spans (columns: across, down, its normal | its middle),
    `half` a side, row by row; NaN beyond the field's bounds. On the CPU."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    across, down, middle = (torch.from_numpy(pose[:, k].astype(np.float32)) for k in (0, 1, 3))
    points = (middle + half * (x[..., None] * across + y[..., None] * down)).reshape(-1, 3).to(device)
    low, high = field.bounds.to(points)
    within = ((points >= low) & (points <= high)).all(1)
    values = torch.full((len(points),), torch.nan, device=points.device)
    values[within] = evaluate(field, points[within])
    return values.reshape(size, size).cpu()


def spacing(values: Float[Tensor, "H W"], level: float, lines: int = 8) -> float:
    """A round distance (1, 2 or 5 times a power of ten) between isolines, of which there are about `lines` on
    either side of the level."""
    far = (values[torch.isfinite(values)] - level).abs()
    reach = float(far.quantile(0.9)) if len(far) else 0.0
    if not reach > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(reach / lines))
    return next((m * power for m in (1.0, 2.0, 5.0) if m * power >= reach / lines), 10 * power)


def slice_image(values: Float[Tensor, "H W"], level: float, step: float) -> UInt8[np.ndarray, "H W 4"]:
    """Blue inside, sand and half transparent outside, darker away from the level, a line every `step` and a
    black one at the level; nothing where there is no value."""
    known = torch.isfinite(values)
    above = torch.where(known, values - level, 0.0)
    rows, columns = torch.gradient(above)
    slope = torch.hypot(rows, columns).clamp(min=1e-12)  # by pixels: lines are as wide everywhere
    shade = 1 - 0.35 * (above.abs() / (10 * step)).clamp(max=1)
    colour = torch.where((above > 0)[..., None], torch.tensor(INSIDE), torch.tensor(OUTSIDE))
    off = (above / step - (above / step).round()).abs() * step
    lines = (off / slope).clamp(max=1) * 0.45 + 0.55
    # where it is flat there is no line, and none where they would lie closer than three pixels
    lines = torch.where((slope > 1e-9) & (3 * slope < step), lines, 1.0)
    surface = ((above.abs() / slope - 0.5).clamp(0, 1)) * (above != 0) + (slope <= 1e-9)
    colour = colour * (shade * lines * surface.clamp(max=1))[..., None]
    opaque = torch.where(known, torch.where((above > 0) | (surface < 1), 1.0, GLASS), 0.0)
    image = torch.cat((colour.clamp(0, 1), opaque[..., None]), -1)
    return (image * 255 + 0.5).to(torch.uint8).numpy()
