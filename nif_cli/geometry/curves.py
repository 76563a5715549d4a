"""Closed curves in the plane: lists of polylines [N, 2] whose last point joins the first; x to the right, y down."""

from __future__ import annotations

from collections.abc import Sequence

import igl
import numpy as np
import torch
from contourpy import contour_generator
from jaxtyping import Float

from nif_cli.field import Field, evaluate

Curves = Sequence[Float[np.ndarray, "_ 2"]]


def segments_of(curves: Curves) -> tuple[Float[np.ndarray, "M 2"], Float[np.ndarray, "M 2"]]:
    """Where the segments of all curves begin and end."""
    return np.concatenate(list(curves)), np.concatenate([np.roll(c, -1, 0) for c in curves])


def signed_distance(curves: Curves, points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P"]:
    """Exact distance to the curves, positive where their winding number is not 0 (SVG's rule)."""
    a, b = segments_of(curves)
    # a wall on each segment, so tall that its nearest point is at the height of the points
    tall = 4 * float(np.abs(np.concatenate((a, b, points))).max() + 1)
    wall = np.concatenate([np.column_stack((p, np.full(len(p), z))) for p in (a, b) for z in (-tall, tall)])
    n, i = len(a), np.arange(len(a))
    faces = np.concatenate([np.column_stack((i, i + n, i + 2 * n)), np.column_stack((i + n, i + 3 * n, i + 2 * n))])
    squared, _, _ = igl.point_mesh_squared_distance(np.column_stack((points, np.zeros(len(points)))), wall, faces)
    return np.where(winding_number(curves, points) != 0, 1, -1) * np.sqrt(np.asarray(squared))


def winding_number(curves: Curves, points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P"]:
    """How often the curves go round each point: crossings of the ray to the right, upwards less downwards."""
    a, b = segments_of(curves)
    rise = b[:, 1] - a[:, 1]
    slope = (b[:, 0] - a[:, 0]) / np.where(rise == 0, 1, rise)
    parts = []
    for part in np.array_split(points, 1 + len(points) * len(a) // 2**22):
        x, y = part[:, :1], part[:, 1:]
        up, down = (a[:, 1] <= y) & (b[:, 1] > y), (a[:, 1] > y) & (b[:, 1] <= y)
        right = a[:, 0] + (y - a[:, 1]) * slope > x
        parts.append(((up & right).sum(1) - (down & right).sum(1)).astype(np.float64))
    return np.concatenate(parts)


def level_set(values: Float[np.ndarray, "H W"], level: float) -> list[Float[np.ndarray, "N 2"]]:
    """The closed curves (x, y), in units of cells, where the values between grid points cross `level`; whatever leaves the
    grid is closed half a cell outside it. What is higher lies on one side of all of them."""
    low = min(level, float(values.min())) - 1
    lines = contour_generator(z=np.pad(values, 1, constant_values=low)).lines(level)
    return [np.asarray(line)[:-1] - 1 for line in lines if len(line) > 3]


def extract_curves(field: Field, resolution: int, level: float | None = None, device: torch.device | str = "cpu") -> Curves:
    """Marching squares over a grid of resolution^2 corners of `field.bounds`, in normalised space."""
    low, high = field.bounds.double().cpu().numpy()
    x, y = (np.linspace(a, b, resolution) for a, b in zip(low, high, strict=True))
    points = torch.from_numpy(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)).float().to(device)
    values = evaluate(field, points).float().cpu().numpy().reshape(resolution, resolution)
    curves = level_set(values, field.level if level is None else level)
    return [low + curve * (high - low) / (resolution - 1) for curve in curves]


def svg(curves: Curves) -> str:
    """One path of all curves, filled, in a view box around them."""
    if not curves:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    everything = np.concatenate(list(curves))
    low, size = everything.min(0), np.ptp(everything, axis=0)
    margin = 0.02 * float(size.max())
    box = " ".join(f"{v:.6g}" for v in (*(low - margin), *(size + 2 * margin)))
    path = " ".join("M" + " L".join(f"{x:.6g},{y:.6g}" for x, y in curve) + " Z" for curve in curves)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"><path d="{path}" fill-rule="evenodd"/></svg>\n'
