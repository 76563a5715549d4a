"""One HTML file that shows meshes in any browser, from the disk, without network: its viewer (page.html) is a
few hundred lines of WebGL, its meshes are packed into it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Integer

from nif_cli import NifError

TEMPLATE = Path(__file__).with_name("page.html")
STEPS = 2**16 - 1  # along the longest side: positions are known to 8e-6 of it
MOST = 400 * 2**20  # bytes that a browser still opens


def packed(rows: Integer[np.ndarray, "N K"], width: int) -> str:
    """Whole numbers as text: zigzag differences between rows, byte planes of `width` bytes, zlib, base64."""
    values = np.asarray(rows, np.int64)
    delta = np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), np.int64)).ravel()
    zigzag = np.where(delta < 0, -2 * delta - 1, 2 * delta).astype(np.uint32)
    planes = b"".join((zigzag >> (8 * b)).astype(np.uint8).tobytes() for b in range(width))
    return base64.b64encode(zlib.compress(planes, 9)).decode()


def part(name: str, mesh: trimesh.Trimesh, lines: Float[np.ndarray, "L 2 3"] | None = None) -> dict[str, Any]:
    """A mesh for `page`: its positions on a grid of 65,535 steps along its longest side, its colours where it
    has some; `lines` are segments to be drawn beside it, in the same units."""
    low, high = (np.asarray(b, np.float64) for b in mesh.bounds)
    size = float(max((high - low).max(), 1e-300))
    step = size / STEPS
    # rows in the order in which faces ask for them: differences are small
    order = np.unique(mesh.faces.ravel(), return_index=True)
    vertices = order[0][np.argsort(order[1])]
    number = np.empty(len(mesh.vertices), np.int64)
    number[vertices] = np.arange(len(vertices))
    grid = np.rint((np.asarray(mesh.vertices)[vertices] - low) / step).astype(np.int64)
    visual: Any = mesh.visual
    made: dict[str, Any] = {
        "name": name,
        "n": len(vertices),
        "f": len(mesh.faces),
        # about the middle, as a browser computes in single precision
        "low": ((low - high) / 2).tolist(),
        "step": step,
        "middle": [0.0, 0.0, 0.0],
        "size": size,
        "vertices": packed(grid, 3),
        "faces": packed(number[mesh.faces], 4),
    }
    if visual.kind == "vertex":
        made["colours"] = packed(np.asarray(visual.vertex_colors)[vertices, :3].astype(np.int64), 2)
    if lines is not None and len(lines):
        made["lines"] = np.round((lines - (low + high) / 2) / size, 5).ravel().tolist()
        made["lines"] = [x * size for x in made["lines"]]
    return made


def page(title: str, parts: Sequence[dict[str, Any]], way: bool = False, up: str = "y") -> str:
    """The page of these meshes, with a menu of them; `way`: with a slider too, along which one becomes the
    next; `up`: the axis that points up at first, y or z. NifError for more than a browser opens."""
    text = json.dumps({"title": title, "way": way, "up": up, "meshes": list(parts)}, separators=(",", ":"))
    if len(text) > MOST:
        raise NifError(
            f"format=html: a page of {len(text) / 2**20:.0f} MiB, which no browser opens; lower resolution=, "
            "or faces="
        )
    # a name cannot end the element that it stands in
    return TEMPLATE.read_text().replace("/*DATA*/", text.replace("<", "\\u003c"), 1)
