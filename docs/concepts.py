"""Draws the images of the concept pages: `python docs/concepts.py` (half a minute; the codes two)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from contourpy import contour_generator
from PIL import Image, ImageDraw, ImageFont

from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.volume import composite_reference

IMAGES = Path(__file__).parent / "images" / "concepts"
SIDE, MARGIN = 340, 30
INK, RED, BLUE, GREEN = (40, 40, 50), (208, 74, 52), (46, 100, 180), (58, 140, 80)
FONT = ImageFont.load_default(15)


def shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance, positive inside, of two discs with a smooth neck, in [-1, 1]^2."""
    a, b = 0.42 - np.hypot(x + 0.3, y + 0.1), 0.3 - np.hypot(x - 0.38, y - 0.2)
    h = np.clip(0.5 + (a - b) / 0.5, 0, 1)
    return h * a + (1 - h) * b + 0.25 * h * (1 - h)


def lattice(n: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.linspace(-1, 1, n)
    return np.meshgrid(at, at)


def coloured(values: np.ndarray) -> Image.Image:
    """[-1, 1] -> blue, white, orange."""
    v = np.clip(values, -1, 1)[..., None]
    up, down = np.array([226, 134, 60.0]), np.array([70, 120, 190.0])
    return Image.fromarray(np.uint8(255 + np.maximum(v, 0) * (up - 255) + np.maximum(-v, 0) * (down - 255)))


def panel(
    title: str, image: Image.Image | None = None, height: int = SIDE
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (SIDE + MARGIN, height + MARGIN + 6), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN // 2, 6), title, INK, FONT)
    if image is not None:
        sheet.paste(image.resize((SIDE, height)), (MARGIN // 2, MARGIN))
    return sheet, draw


def lines(draw: ImageDraw.ImageDraw, values: np.ndarray, level: float, colour: tuple, width: int) -> None:
    n = len(values) - 1
    for line in contour_generator(z=values).lines(level):
        draw.line(
            [(MARGIN // 2 + SIDE * p[0] / n, MARGIN + SIDE * p[1] / n) for p in line], colour, width, "curve"
        )


def plot(title: str, curves: Sequence[tuple[np.ndarray, tuple, str]], height: int = 170) -> Image.Image:
    """Curves over [0, 1], values in [-1, 1] or [0, 1], each with its colour and name."""
    sheet, draw = panel(title, height=height)
    low = min(0.0, *(float(c[0].min()) for c in curves))
    high = max(float(c[0].max()) for c in curves)

    def at(v: np.ndarray | float) -> np.ndarray:
        return MARGIN + height - 6 - (height - 12) * (np.asarray(v) - low) / (high - low)

    draw.line([(MARGIN // 2, float(at(0))), (MARGIN // 2 + SIDE, float(at(0)))], (190, 190, 190), 1)
    x = np.linspace(MARGIN / 2, MARGIN / 2 + SIDE, len(curves[0][0]))
    for values, colour, _ in curves:
        draw.line(list(zip(x.tolist(), at(values).tolist(), strict=True)), colour, 2, "curve")
    left = MARGIN // 2 + SIDE
    for _, colour, name in reversed([c for c in curves if c[2]]):
        left -= int(draw.textlength(name, FONT)) + 14
        draw.text((left, 6), name, colour, FONT)
    return sheet


def save(name: str, rows: Sequence[Sequence[Image.Image]]) -> None:
    width = max(sum(i.width for i in row) for row in rows)
    sheet = Image.new("RGB", (width, sum(row[0].height for row in rows)), "white")
    top = 0
    for row in rows:
        left = 0
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width
        top += row[0].height
    sheet.quantize(200).save(IMAGES / f"{name}.png", optimize=True)


def level_sets() -> None:
    fine, few = shape(*lattice(341)), shape(*lattice(13))
    field, draw = panel("f, and its level sets", coloured(fine * 2))
    for level in np.arange(-0.9, 0.5, 0.1):
        lines(draw, fine, level, (150, 150, 160), 1)
    lines(draw, fine, 0, RED, 4)
    grid, draw = panel("f on a grid: where signs change", coloured(fine * 0))
    for k, (i, j) in enumerate(np.ndindex(few.shape)):
        x, y = MARGIN // 2 + SIDE * j / 12, MARGIN + SIDE * i / 12
        inside = few.flat[k] > 0
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), (226, 134, 60) if inside else (170, 190, 220))
    lines(draw, few, 0, RED, 3)
    finer, draw = panel("the same, at twice the resolution", coloured(fine * 0))
    lines(draw, shape(*lattice(25)), 0, RED, 3)
    lines(draw, fine, 0, (150, 150, 160), 1)
    save("level-sets", [[field, grid, finer]])


def distance_occupancy() -> None:
    d = shape(*lattice(341))
    occupancy = 1 / (1 + np.exp(-np.clip(d * 60, -50, 50)))
    panels = []
    for title, values in (("signed distance", d * 2), ("occupancy", occupancy * 2 - 1)):
        sheet, draw = panel(title, coloured(values))
        lines(draw, d, 0, RED, 3)
        y = MARGIN + SIDE * 155 / 340
        draw.line([(MARGIN // 2, y), (MARGIN // 2 + SIDE, y)], INK, 1)
        panels.append(sheet)
    cuts = [plot("along the line", [(d[155], BLUE, "distance")])]
    cuts.append(plot("along the line", [(occupancy[155], GREEN, "occupancy")]))
    save("distance-occupancy", [panels, cuts])


def fitted(
    features: Callable[[torch.Tensor], torch.Tensor], sines: bool, x: torch.Tensor, y: torch.Tensor
) -> np.ndarray:
    """y(x) as a network of 2 x 64 learns it in 1,500 steps of Adam."""
    torch.manual_seed(0)
    first, second, last = (
        torch.nn.Linear(features(x).shape[1], 64),
        torch.nn.Linear(64, 64),
        torch.nn.Linear(64, 1),
    )
    if sines:  # Sitzmann et al. 2020
        torch.nn.init.uniform_(second.weight, -((6 / 64) ** 0.5) / 30, (6 / 64) ** 0.5 / 30)
        torch.nn.init.uniform_(first.weight, -1, 1)

    def network() -> torch.Tensor:
        h = first(features(x))
        h = torch.sin(30 * h) if sines else torch.relu(h)
        h = torch.sin(30 * second(h)) if sines else torch.relu(second(h))
        return last(h)

    weights = [*first.parameters(), *second.parameters(), *last.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-4 if sines else 1e-3)
    for _ in range(1500):
        optimizer.zero_grad()
        (network() - y).square().mean().backward()
        optimizer.step()
    return network().detach().numpy()[:, 0]


def relu_blurs() -> None:
    x = torch.linspace(-1, 1, 400)[:, None]
    y = torch.sin(3 + 14 * (x + 1.1) ** 2.2) * 0.8
    k = torch.arange(1, 9) * torch.pi

    def waves(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.sin(k * x), torch.cos(k * x)], 1)

    rows = []
    for name, features, sines in (
        ("ReLU", lambda x: x, False),
        ("ReLU on sines of x", waves, False),
        ("SIREN", lambda x: x, True),
    ):
        rows.append(
            plot(
                name,
                [
                    (y[:, 0].numpy(), (190, 190, 190), "truth"),
                    (fitted(features, sines, x, y), RED, "learned"),
                ],
                130,
            )
        )
    save("relu-blurs", [rows])


def volume_rendering() -> None:
    t = torch.linspace(0, 4, 400)
    density = 0.25 * torch.exp(-((t - 1.1) ** 2) / 0.05) + 6.0 * torch.sigmoid((t - 2.4) * 30)
    density = density * torch.sigmoid((3.3 - t) * 30) * 1.2
    delta = torch.full_like(t, 0.01)
    samples = (
        Samples(t, delta, torch.zeros(400, dtype=torch.long))
        if len(Samples.__dataclass_fields__) == 3
        else None
    )
    if samples is None:
        from nif_cli.rendering.ray_samples import dense

        samples = dense(t[None], delta[None])
    _, weights = composite_reference(density, torch.ones(400, 3), samples, 1)
    passed = torch.exp(-(density * delta).cumsum(0))
    save(
        "volume-rendering",
        [[
            plot("density", [(density.numpy(), BLUE, "")]),
            plot("light that still passes", [(passed.numpy(), GREEN, "")]),
            plot("weight in the colour", [(weights.numpy(), RED, "")]),
        ]],
    )  # fmt: skip


def codes() -> None:
    """Shapes on the way between two codes, learned in a minute."""
    with tempfile.TemporaryDirectory() as folder:
        for words in (
            "train output_dir=run trainer.max_time=00:00:01:00 callbacks=quiet",
            "render run=run instances=[chair/0000,table/0001] interpolate=6 frames=1 size=170",
        ):
            subprocess.run(
                [sys.executable, "-m", "nif_cli", *words.split()], cwd=folder, check=True, capture_output=True
            )
        files = sorted(Path(folder, "run", "renders").rglob("*.png"))
        save("codes", [[Image.open(f).convert("RGB") for f in files]])


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    for drawing in (level_sets, distance_occupancy, relu_blurs, volume_rendering, codes):
        if len(sys.argv) == 1 or drawing.__name__ in sys.argv[1:]:
            drawing()
