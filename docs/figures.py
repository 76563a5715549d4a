"""The drawings of docs/concepts, from fields that are written down: `python docs/figures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

IMAGES = Path(__file__).parent / "images"
INSIDE, OUTSIDE, INK = np.array([217, 95, 50]), np.array([70, 110, 150]), (30, 30, 30)
SIZE = 260


def plane(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[1 : -1 : 1j * size, -1 : 1 : 1j * size]
    return x, y


def bean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two discs and the bar between them: a signed distance, positive inside (exact outside)."""
    left, right = 0.34 - np.hypot(x + 0.4, y + 0.15), 0.24 - np.hypot(x - 0.45, y - 0.2)
    along = np.clip(((x + 0.4) * 0.85 + (y + 0.15) * 0.35) / (0.85**2 + 0.35**2), 0, 1)
    bar = 0.12 - np.hypot(x + 0.4 - 0.85 * along, y + 0.15 - 0.35 * along)
    return np.maximum(np.maximum(left, right), bar)


def coloured(value: np.ndarray, full: float, band: float | None = None, level: float = 0.0) -> Image.Image:
    """Warm inside, cool outside, paler near the level, which is drawn; with lines every `band`."""
    share = np.clip(np.abs(value - level) / full, 0, 1)[..., None]
    side = np.where((value > level)[..., None], INSIDE, OUTSIDE)
    pixels = 255 + (side - 255) * (0.12 + 0.8 * share)
    if band:
        cells = np.floor(value / band)
        pixels[edges(cells)] *= 0.8
    line = edges(value > level)
    for shift in ((0, 1), (1, 0), (1, 1)):
        line |= np.roll(line, shift, (0, 1))
    pixels[line] = INK
    return Image.fromarray(pixels.astype(np.uint8))


def edges(cells: np.ndarray) -> np.ndarray:
    found = np.zeros(cells.shape, bool)
    found[1:] |= cells[1:] != cells[:-1]
    found[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    return found


def side_by_side(parts: list[tuple[Image.Image, str]], name: str) -> None:
    gap, text = 12, 22
    width = sum(p.width for p, _ in parts) + gap * (len(parts) - 1)
    sheet = Image.new("RGB", (width, parts[0][0].height + text), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for part, title in parts:
        sheet.paste(part, (left, text))
        draw.text((left + 2, 2), title, INK, font_size=14)
        left += part.width + gap
    IMAGES.mkdir(exist_ok=True)
    sheet.save(IMAGES / name, optimize=True)


def level_sets() -> None:
    value = bean(*plane())
    parts = [
        (coloured(value, 0.7, 0.1), "f, and its level sets 0.1 apart"),
        (coloured(value, 0.7, None, -0.12), "f = -0.12: thicker"),
        (coloured(value, 0.7, None, 0.08), "f = 0.08: thinner"),
    ]
    side_by_side(parts, "level-sets.png")


def distance_occupancy() -> None:
    value = bean(*plane())
    parts = [
        (coloured(value, 0.7, 0.1), "signed distance"),
        (coloured(np.clip(value, -0.1, 0.1), 0.1, 0.025), "the same, clamped at 0.1"),
        (coloured(1 / (1 + np.exp(-value / 0.008)) - 0.5, 0.5), "occupancy"),
    ]
    side_by_side(parts, "distance-occupancy.png")


def trace() -> None:
    """A ray towards the bean: each step as long as the distance at its start."""
    image = coloured(bean(*plane(420)), 0.7)
    draw, point, way = ImageDraw.Draw(image), np.array([-0.95, 0.62]), np.array([0.955, -0.297])
    for _ in range(12):
        far = -float(bean(*point))
        if far < 0.004:
            break
        x, y, r = *((point * [1, -1] + 1) * 209.5), far * 209.5
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(90, 90, 90))
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=INK)
        after = point + way * far
        draw.line((x, y, *((after * [1, -1] + 1) * 209.5)), fill=INK, width=2)
        point = after
    side_by_side([(image, "steps as long as the distance: sphere tracing")], "sphere-tracing.png")


def ray() -> None:
    """Density along a ray through two things, the light that is left, and each sample's weight."""
    t = np.linspace(0, 1, 300)
    density = 9 * np.exp(-(((t - 0.35) / 0.05) ** 2)) + 40 * np.exp(-(((t - 0.7) / 0.06) ** 2))
    alpha = 1 - np.exp(-density * (t[1] - t[0]))
    left = np.cumprod(np.concatenate(([1.0], 1 - alpha[:-1])))
    rows = [
        ("density: what is there", density / density.max(), OUTSIDE),
        ("transmittance: light that is left", left, np.array([110, 110, 110])),
        ("weight: what the pixel gets of it", alpha * left / (alpha * left).max(), INSIDE),
    ]
    sheet = Image.new("RGB", (640, 330), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (title, values, colour) in enumerate(rows):
        bottom = 100 + 105 * k
        points = [(20 + 600 * a, bottom - 70 * v) for a, v in zip(t, values, strict=True)]
        draw.polygon([(20, bottom), *points, (620, bottom)], fill=tuple(colour.tolist()))
        draw.line((20, bottom, 620, bottom), fill=INK)
        draw.text((22, bottom - 92), title, INK, font_size=14)
    draw.text((20, 313), "camera", INK, font_size=12)
    draw.text((560, 313), "far away", INK, font_size=12)
    sheet.quantize(64, dither=Image.Dither.NONE).save(IMAGES / "ray.png", optimize=True)


if __name__ == "__main__":
    for figure in (level_sets, distance_occupancy, trace, ray):
        figure()
