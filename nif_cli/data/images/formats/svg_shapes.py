"""The basic shapes of SVG (rect, circle, ellipse, line, polyline, polygon) as cubic splines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nif_cli.data.images.formats.svg_path import Pen, Subpath, length, parse_numbers, path, round_arc


def shape(
    tag: str, attribute: Mapping[str, str], size: tuple[float, float], budget: int
) -> tuple[list[Subpath], bool]:
    """The outline of a path, polygon, polyline, line, rect, circle or ellipse in its own coordinates; `size`
    is what per cent are of. As `path`; ValueError if a length is none."""
    if tag == "path":
        return path(attribute.get("d", ""), budget)
    pen = Pen(budget)
    mean = math.hypot(*size) / math.sqrt(2)
    x, y = ("x", "cx", "x1", "x2", "width", "rx"), ("y", "cy", "y1", "y2", "height", "ry")
    at = {
        k: length(attribute.get(k), size[0] if k in x else size[1] if k in y else mean, math.nan)
        for k in (*x, *y, "r")
    }
    give = {k: 0.0 if math.isnan(v) else v for k, v in at.items()}
    good = True
    if tag in ("polyline", "polygon"):
        v = parse_numbers(attribute.get("points", ""))
        good = len(v) % 2 == 0
        corners = np.reshape(v[: len(v) - len(v) % 2], (-1, 2))
    elif tag == "line":
        corners = np.array([[give["x1"], give["y1"]], [give["x2"], give["y2"]]])
    elif tag == "rect":
        return _rectangle(give, at, pen)
    else:
        rx, ry = (give["r"],) * 2 if tag == "circle" else (give["rx"], give["ry"])
        if tag == "ellipse" and math.isnan(at["ry"] + at["rx"]):
            rx = ry = max(rx, ry)
        if min(rx, ry) <= 0:
            return [], True
        pen.add(round_arc(0, 2 * math.pi) * [rx, ry] + [give["cx"], give["cy"]])
        pen.end(True)
        return pen.done, True
    if len(corners) > 1:
        pen.at = pen.start = corners[0]
        pen.lines(corners[1:])
        if tag == "polygon":
            pen.lines(corners[:1])
        pen.end(tag == "polygon")
    return pen.done, good


def _rectangle(give: dict[str, float], at: dict[str, float], pen: Pen) -> tuple[list[Subpath], bool]:
    """With round corners where it has them: rx is ry where one is missing."""
    w, h = give["width"], give["height"]
    if min(w, h) <= 0:
        return [], True
    rx, ry = (at["ry" if math.isnan(at["rx"]) else "rx"], at["rx" if math.isnan(at["ry"]) else "ry"])
    rx, ry = (min(max(0.0 if math.isnan(r) else r, 0.0), side / 2) for r, side in ((rx, w), (ry, h)))
    middle = np.array([give["x"] + w / 2, give["y"] + h / 2])
    inner = np.array([w / 2 - rx, h / 2 - ry])
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    if min(rx, ry) == 0:
        corners = middle + signs * [w / 2, h / 2]
        pen.at = pen.start = corners[0]
        pen.lines(corners[1:])
    else:
        pen.at = pen.start = middle + np.array([inner[0] + rx, inner[1]])
        for k, sign in enumerate(signs):
            corner = round_arc(k * math.pi / 2, math.pi / 2) * [rx, ry] + (middle + sign * inner)
            pen.lines(corner[:1, 0])
            pen.add(corner)
    pen.lines(pen.start[None])
    pen.end(True)
    return pen.done, True
