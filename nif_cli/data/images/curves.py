"""Closed curves in the plane to learn from: an SVG file, a black-and-white image, or a star made on the
spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.data.datamodule import Batches, Data
from nif_cli.data.images.formats.outlines import read_outline
from nif_cli.data.images.formats.svg import read_drawing
from nif_cli.data.report import Report
from nif_cli.geometry.curves import Curves, segments_of, signed_distance
from nif_cli.geometry.transform import Transform, unit_ball
from nif_cli.progress import Bar


@dataclass
class CurveBatch:
    """Points of the plane and their signed distances, positive inside."""

    points: Float[Tensor, "N 2"]
    distance: Float[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.points)


@dataclass
class Outline:
    id: str
    transform: Transform
    report: Report


class CurveData(Data):
    """`samples` points of known distance, half of them near the curves, half anywhere in [-1, 1]^2; 2 % are
    held out. In an image the dark is inside. Batch k is a function of (seed, k)."""

    holds = "a curve"
    kind = "curve"

    def __init__(
        self, path: str | None = None, samples: int = 100_000, batch_points: int = 4096, seed: int = 0
    ):
        super().__init__()
        if samples < 100 or batch_points < 1:
            raise ValueError(f"samples={samples}, batch_points={batch_points}: too few")
        self.path, self.samples = None if path is None else Path(path).expanduser(), samples
        self.batch_points, self.seed = batch_points, seed
        self.made: tuple[Outline, Tensor] | None = None

    def curves(self) -> Curves:
        """In the user's units: those of the SVG, or pixels."""
        return self.read()[0]

    def read(self) -> tuple[Curves, list[str]]:
        """The curves, and what there is to say of the file."""
        if self.path is None:
            angle = np.linspace(0, 2 * np.pi, 11)[:-1]
            radius = np.where(np.arange(10) % 2, 0.4, 1.0)
            star = np.stack((radius * np.sin(angle), -radius * np.cos(angle)), -1)
            return [star, 0.2 * star[::-1]], []
        if self.path.suffix.lower() in (".svg", ".svgz"):
            return read_drawing(self.path)
        return read_outline(self.path), []

    def prepare(self) -> list[Outline]:
        if self.made is None:
            curves, said = self.read()
            everything = np.concatenate(list(curves))
            transform = unit_ball(np.pad(everything, ((0, 0), (0, 1))))
            curves = [_moved(c, transform) for c in curves]
            rng = np.random.default_rng(self.seed)
            a, b = segments_of(curves)
            length = np.linalg.norm(b - a, axis=1)
            chosen = rng.choice(len(a), self.samples // 2, p=length / length.sum())
            near = a[chosen] + rng.random((len(chosen), 1)) * (b - a)[chosen]
            near += rng.normal(size=near.shape) * np.array([0.05, 0.01])[np.arange(len(near)) % 2][:, None]
            points = np.concatenate((near, rng.uniform(-1, 1, (self.samples - len(near), 2)))).astype(
                np.float32
            )
            with Bar(len(points), "distances", "point") as bar:
                distance = signed_distance(curves, points.astype(np.float64), bar.update)
            rows = np.column_stack((points, distance)).astype(np.float32)
            rng.shuffle(rows)
            line = "; ".join((f"{len(curves)} closed curves, {len(everything):,} points", *said))
            report = Report(line, tuple(said))
            self.made = (
                Outline(self.path.stem if self.path else "star", transform, report),
                torch.from_numpy(rows),
            )
        return [self.made[0]]

    def summary(self) -> str:
        return f"1 outline, {self.samples:,} points"

    def rows(self, held: bool) -> Float[Tensor, "N 3"]:
        """The held-out samples, or the others."""
        self.prepare()
        assert self.made is not None
        cut = max(1, self.samples // 50)
        return self.made[1][:cut] if held else self.made[1][cut:]

    def train_batches(self, device: torch.device) -> CurveBatches:
        return CurveBatches(self, device)

    def held_out_batches(self, device: torch.device) -> list[CurveBatch]:
        rows = self.rows(True).to(device)
        return [CurveBatch(rows[:, :2], rows[:, 2])]


class CurveBatches(Batches[CurveData]):
    def __init__(self, data: CurveData, device: torch.device):
        self.data, self.rows, self.generator = data, data.rows(False).to(device), torch.Generator(device)

    def batch(self, k: int) -> CurveBatch:
        self.generator.manual_seed(self.data.seed * 7_368_787 + k + 1)
        size = (self.data.batch_points,)
        rows = self.rows[
            torch.randint(len(self.rows), size, generator=self.generator, device=self.rows.device)
        ]
        return CurveBatch(rows[:, :2], rows[:, 2])


def _moved(curve: np.ndarray, transform: Transform) -> np.ndarray:
    return (curve + np.asarray(transform.offset[:2])) * transform.scale
