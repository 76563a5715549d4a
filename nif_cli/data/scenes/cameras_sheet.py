"""One image of what was found: the photographs, and the cameras around the points from above and from the
side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from nif_cli.data.scenes.formats.colmap_model import Posed
from nif_cli.rendering.image_files import RgbImage, labelled, sheet
from nif_cli.untrusted import opened_image, shown

THUMB, MOST, COLUMNS = 120, 36, 9
PLAN = 540  # pixels of the plan's side; two of them are as wide as the photographs above
CAMERA, LOST = (200, 60, 30), (190, 0, 0)


def cameras_sheet(
    images: Path, posed: list[Posed], lost: dict[str, str], points: Float[np.ndarray, "P 3"], half: float
) -> UInt8[np.ndarray, "H W 3"]:
    """At most 36 of the photographs, those without a camera (`lost`) marked, above two plans of the world,
    whose z is up; `half` is half the side of the scene's box."""
    names = [p.name for p in sorted(posed, key=lambda p: p.name)]
    chosen = names[:: max(1, -(-len(names) // MOST))]
    bad = [name for name in lost if (images / name).is_file()][: MOST // 4]
    thumbs = [_thumb(images / name, name, name in lost) for name in [*chosen, *bad]]
    above = sheet(thumbs, COLUMNS)
    plans = [_plan(posed, points, half, axes, said) for axes, said in PLANS]
    below = np.concatenate(plans, 1)
    width = max(above.shape[1], below.shape[1])
    return np.concatenate([_widened(part, width) for part in (above, below)], 0)


PLANS = (((0, 1), "from above (x to the right, y up)"), ((0, 2), "from the side (x to the right, z up)"))


def _widened(image: RgbImage, width: int) -> UInt8[np.ndarray, "H W 3"]:
    return np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)


def _thumb(path: Path, name: str, lost: bool) -> UInt8[np.ndarray, "H W 3"]:
    with opened_image(path) as image:
        image.draft("RGB", (THUMB, THUMB))
        small = image.convert("RGB")
        small.thumbnail((THUMB, THUMB))
    if lost:
        draw, (width, height) = ImageDraw.Draw(small), small.size
        draw.line((0, 0, width, height), LOST, 3)
        draw.line((0, height, width, 0), LOST, 3)
    return labelled(np.asarray(small), shown(name.rpartition("/")[2], 16))


def _plan(
    posed: list[Posed], points: Float[np.ndarray, "P 3"], half: float, axes: tuple[int, int], said: str
) -> UInt8[np.ndarray, "H W 3"]:
    at = np.stack([p.pose[:, 3] for p in posed])
    reach = 1.15 * max(float(np.abs(at).max()), float(np.quantile(np.abs(points), 0.9)) if len(points) else 0)
    canvas = Image.new("RGB", (PLAN, PLAN), "white")
    draw = ImageDraw.Draw(canvas)

    def place(p: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 2"]:
        flat = p[..., list(axes)] / reach * [1, -1]
        return (flat + 1) * PLAN / 2

    some = points[:: max(1, len(points) // 20_000)]
    for x, y in place(some):
        draw.point((float(x), float(y)), (120, 130, 150))
    (left, bottom), (right, top) = place(np.full(3, -half)), place(np.full(3, half))
    draw.rectangle((left, top, right, bottom), outline=(190, 190, 190))
    for image in posed:
        where = image.pose[:, 3]
        side, ahead = 0.05 * reach * image.pose[:, 0], -0.09 * reach * image.pose[:, 2]
        corners = [where, where + ahead - side, where + ahead + side]
        draw.polygon([tuple(map(float, place(c))) for c in corners], outline=CAMERA)
        x, y = place(where)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=CAMERA)
    note = f"{said}; {len(posed)} cameras, {len(points):,} points, grey: the box +-{half:g}"
    draw.text((6, 4), note, "black", font=ImageFont.load_default(12))
    draw.rectangle((0, 0, PLAN - 1, PLAN - 1), outline=(225, 225, 225))
    return np.asarray(canvas)
