"""Curves as an image, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

MARKED = 30  # steps that have their own line and dots
COLOURS = ((31, 90, 180), (200, 80, 30), (60, 140, 60), (130, 70, 150), (120, 120, 120), (180, 150, 20))


def chart(
    curves: Mapping[str, Mapping[int, float]], x_label: str, y_label: str, width: int = 640, height: int = 400
) -> UInt8[np.ndarray, "H W 3"]:
    """Values against numbers of steps, by name. Steps are spaced as log(1 + steps), so that 0 has its place;
    values logarithmically. What is not finite or not positive is left out. Few points are marked, many are
    a line."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = 70, width - 20, 30, height - 45
    shown = {
        name: {k: v for k, v in sorted(c.items()) if math.isfinite(v) and v > 0} for name, c in curves.items()
    }
    steps = sorted({k for c in shown.values() for k in c})
    values = [v for c in shown.values() for v in c.values()]
    if not values:
        return np.asarray(image)
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    span = math.log1p(steps[-1]) or 1.0

    def place(k: int, v: float) -> tuple[float, float]:
        return left + (right - left) * math.log1p(k) / span, bottom - (bottom - top) * (
            math.log10(v) - low
        ) / (high - low)

    decades = range(math.floor(low), math.ceil(high) + 1)
    marks = [float(f"{m}e{e}") for e in decades for m in (1, 2, 5)]  # inf beyond 1e308, 0 below 1e-324
    ticks = [v for v in marks if 0 < v < math.inf and low <= math.log10(v) <= high]
    for v in ticks if len(ticks) > 1 else dict.fromkeys((min(values), max(values))):
        y = place(0, v)[1]
        draw.line((left, y, right, y), (225, 225, 225))
        draw.text((left - 8, y), f"{v:.4g}", "black", anchor="rm")
    last = -100.0
    few = len(steps) <= MARKED
    rounds = [0, *(m * 10**e for e in range(10) for m in (1, 2, 5))]
    for k in steps if few else [k for k in rounds if k <= steps[-1]]:
        x = place(k, values[0])[0]
        draw.line((x, top, x, bottom), (240, 240, 240))
        if x - last > 24:
            draw.text((x, bottom + 6), str(k), "black", anchor="ma")
            last = x
    draw.rectangle((left, top, right, bottom), outline="black")
    draw.text(((left + right) / 2, height - 8), x_label, "black", anchor="mb")
    draw.text((left, 6), y_label, "black", anchor="la")
    for n, (name, curve) in enumerate(shown.items()):
        colour = COLOURS[n % len(COLOURS)]
        points = [place(k, v) for k, v in curve.items()]
        if len(points) > 1:
            draw.line(points, colour, 2)
        for x, y in points if few or len(points) == 1 else ():
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
        draw.text((right - 8, top + 8 + 14 * n), name, colour, anchor="ra")
    return np.asarray(image)
