"""Closed curves in the plane: lists of polylines [N, 2] whose last point joins the first; x to the right, y
down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import igl
import numpy as np
import torch
from contourpy import contour_generator
from jaxtyping import Float

from nif_cli.field import Field, evaluate

Curves = Sequence[Float[np.ndarray, "_ 2"]]  # each of its own length
PART = 2**14  # points at a time


def segments_of(curves: Curves) -> tuple[Float[np.ndarray, "M 2"], Float[np.ndarray, "M 2"]]:
    """Where the segments of all curves begin and end."""
    a = np.concatenate(list(curves))
    after, last = np.arange(1, len(a) + 1), np.cumsum([len(c) for c in curves if len(c)])
    after[last - 1] = np.concatenate(([0], last[:-1]))
    return a, a[after]


def signed_distance(
    curves: Curves, points: Float[np.ndarray, "P 2"], progress: Callable[[int], object] | None = None
) -> Float[np.ndarray, "P"]:
    """Exact distance to the curves, positive where their winding number is not 0 (SVG's rule). `progress` is
    told how many points were done."""
    curves, points = _in_small_boxes(curves, points)
    a, b = segments_of(curves)
    ends = np.stack((np.arange(len(a)), np.arange(len(a)) + len(a)), 1)
    corners, tree = np.concatenate((a, b)), Chains(curves)
    out = np.empty(len(points))
    for start in range(0, len(points), PART):
        part = np.ascontiguousarray(points[start : start + PART])
        squared, _, _ = igl.point_mesh_squared_distance(part, corners, ends)
        out[start : start + PART] = np.where(tree.winding_number(part) != 0, 1, -1) * np.sqrt(
            np.asarray(squared)
        )
        if progress is not None:
            progress(len(part))
    return out


def winding_number(curves: Curves, points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P"]:
    """How often the curves go round each point: crossings of the ray to the right, upwards less downwards."""
    curves, points = _in_small_boxes(curves, points)
    return Chains(curves).winding_number(points)


def _in_small_boxes(
    curves: Curves, points: Float[np.ndarray, "P 2"]
) -> tuple[Curves, Float[np.ndarray, "P 2"]]:
    """The same, turned by an eighth and with long segments cut in pieces where a point is otherwise in the
    boxes of very many segments (parallel lines side by side, rays from one centre)."""
    a, b = segments_of(curves)
    whole = max(float(np.ptp(a, axis=0).prod()), 1e-300)
    if np.abs(b - a).prod(1).sum() < 100 * whole:
        return curves, points
    turn = np.array([[1.0, -1], [1, 1]]) * 0.5**0.5
    if np.abs((b - a) @ turn.T).prod(1).sum() < 0.5 * np.abs(b - a).prod(1).sum():
        curves, points = [c @ turn.T for c in curves], points @ turn.T
        a, b = segments_of(curves)
    longest = np.abs(b - a).prod(1) ** 0.5  # a side of the box
    step = max(float(np.ptp(a, axis=0).max()) / 64, float(longest.sum()) / 1_000_000)
    cut = []
    for c in curves:
        along = np.roll(c, -1, 0) - c
        count = np.ceil(np.abs(along).prod(1) ** 0.5 / step).clip(1).astype(np.int64)
        which = np.repeat(np.arange(len(c)), count)
        share = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)) / count[which]
        cut.append(c[which] + share[:, None] * along[which])
    return cut, points


class Chains:
    """Closed curves as a binary tree of stretches with their boxes. A stretch that lies to the right of a
    point crosses its ray as often as the line from its first to its last corner does, so only boxes that hold
    the point are looked into: exact, in about the logarithm of the number of segments."""

    def __init__(self, curves: Curves):
        curves = [c for c in curves if len(c)]
        sizes = [1 << (len(c) - 1).bit_length() for c in curves]
        # the longest first: then every stretch is a part of one curve, or some whole ones, which lie close
        # together
        order = sorted(range(len(curves)), key=lambda i: (-sizes[i], *_cell(curves[i])))
        total = 1 << max(0, sum(sizes) - 1).bit_length()
        start, end = np.zeros((total, 2)), np.zeros((total, 2))
        at = 0
        for i in order:
            curve, size = curves[i], sizes[i]
            start[at : at + size] = end[at : at + size] = curve[0]  # the rest: nothing, where it ends
            start[at : at + len(curve)] = curve
            end[at : at + len(curve) - 1] = curve[1:]
            at += size
        low, high = np.minimum(start, end), np.maximum(start, end)
        low[at:], high[at:] = np.inf, -np.inf
        self.levels = [(low, high, start, end)]  # from the leaves to the root
        while len(low) > 1:
            whole = (start[::2] == end[::2]).all(1) & (start[1::2] == end[1::2]).all(1)
            start, end = start[::2], np.where(whole[:, None], start[::2], end[1::2])
            low, high = np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2])
            self.levels.append((low, high, start, end))

    def winding_number(self, points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P"]:
        found = np.zeros(len(points))
        waiting = [(len(self.levels) - 1, np.arange(len(points)), np.zeros(len(points), np.int64))]
        while (
            waiting
        ):  # depth first in parts, so that many points near many curves take no more memory than few
            level, point, node = waiting.pop()
            if len(point) > 4 * PART:
                waiting += [
                    (level, p, n)
                    for p, n in zip(np.array_split(point, 4), np.array_split(node, 4), strict=True)
                ]
                continue
            low, high, start, end = (a[node] for a in self.levels[level])
            x, y = points[point].T
            # a corner at the ray's own height counts as below it: crossed once, not twice
            above = (end[:, 1] > y).astype(np.int64) - (start[:, 1] > y)
            if level == 0:
                with np.errstate(invalid="ignore", divide="ignore"):
                    right = start[:, 0] + (y - start[:, 1]) * ((end - start)[:, 0] / (end - start)[:, 1]) > x
            else:
                right = low[:, 0] > x
            counted = right & (above != 0)
            found += np.bincount(point[counted], above[counted], len(points))
            inside = ~right & (high[:, 0] > x) & (low[:, 1] <= y) & (high[:, 1] > y)
            if level and inside.any():
                point, node = np.tile(point[inside], 2), 2 * node[inside]
                waiting.append((level - 1, point, np.concatenate((node, node + 1))))
        return found


def _cell(curve: Float[np.ndarray, "N 2"]) -> tuple[int]:
    """Where a curve lies, as a number that is close for curves that are close (Morton's order of the
    bits)."""
    x, y = (int(v) for v in np.nan_to_num(curve[0] * 1000).clip(-(2**30), 2**30) + 2**30)
    return (int(format(x, "b"), 4) + 2 * int(format(y, "b"), 4),)


def level_set(values: Float[np.ndarray, "H W"], level: float) -> list[Float[np.ndarray, "N 2"]]:
    """The closed curves (x, y), in units of cells, where the values between grid points cross `level`;
    whatever leaves the grid is closed half a cell outside it. What is higher lies on one side of all of
    them."""
    low = min(level, float(values.min())) - 1
    lines = contour_generator(z=np.pad(values, 1, constant_values=low)).lines(level)
    return [np.asarray(line)[:-1] - 1 for line in lines if len(line) > 3]


def extract_curves(
    field: Field, resolution: int, level: float | None = None, device: torch.device | str = "cpu"
) -> Curves:
    """Marching squares over a grid of resolution^2 corners of `field.bounds`, in normalised space."""
    low, high = field.bounds.double().cpu().numpy()
    x, y = (np.linspace(a, b, resolution) for a, b in zip(low, high, strict=True))
    points = torch.from_numpy(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)).float().to(device)
    values = evaluate(field, points).float().cpu().numpy().reshape(resolution, resolution)
    curves = level_set(values, field.level if level is None else level)
    return [low + curve * (high - low) / (resolution - 1) for curve in curves]


def svg(curves: Curves) -> str:
    """One path of all curves, filled, in a view box around them; to a millionth of their size wherever they
    lie."""
    if not curves:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    everything = np.concatenate(list(curves))
    low, size = everything.min(0), np.ptp(everything, axis=0)
    margin = 0.02 * float(size.max())
    farthest = float(np.abs(everything).max()) / max(float(size.max()), 1e-300)
    digits = min(17, 7 + max(0, math.ceil(math.log10(max(farthest, 1)))))
    box = " ".join(f"{v:.{digits}g}" for v in (*(low - margin), *(size + 2 * margin)))
    path = " ".join(
        "M" + " L".join(f"{x:.{digits}g},{y:.{digits}g}" for x, y in curve) + " Z" for curve in curves
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"><path d="{path}" '
        'fill-rule="evenodd"/></svg>\n'
    )
