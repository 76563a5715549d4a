"""Painted shapes of the plane as one region: fills and widened strokes, later ones over earlier ones, dark
inside and light outside. The boolean operations are those of Clipper2 (through manifold3d), on a grid of 1e-8
of the drawing's size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from manifold3d import CrossSection, FillRule, OpType

from nif_cli.geometry.curves import Curves, segments_of
from nif_cli.geometry.strokes import (
    MOST_CHORDS,
    TOLERANCE,
    Stroke,
    TooMuch,
    chord_counts,
    flattened,
    widened,
)
from nif_cli.progress import watched

MOST_WIDENED = 100_000
MOST_CROSSINGS = 5e6
MOST_WORK = 2e9  # active edges that a sweep passes by, all in all


@dataclass
class Layer:
    """A shape in its own coordinates: its subpaths as cubics, whether each is closed, and the [2, 3] matrix
    to the drawing. Where `stroke` is None its inside is painted (by `rule`), otherwise the widened line;
    within all `clips`."""

    subpaths: Sequence[Float[np.ndarray, "_ 4 2"]]
    closed: Sequence[bool]
    matrix: Float[np.ndarray, "2 3"]
    dark: bool
    rule: Literal["nonzero", "evenodd"] = "nonzero"
    stroke: Stroke | None = None
    clips: tuple[tuple[Layer, ...], ...] = ()


def painted(layers: Sequence[Layer]) -> Curves:
    """The boundary of what is dark in the end, free of crossings: outer curves one way round, holes the
    other. Empty if nothing is dark. TooMuch where the work has no bound."""
    corners = [_moved(c, layer.matrix).reshape(-1, 2) for layer in layers for c in layer.subpaths]
    if not corners:
        return []
    low = np.min([c.min(0) for c in corners], 0)
    size = float(np.max(np.max([c.max(0) for c in corners], 0) - low))
    widest = max((_scale(layer.matrix) * layer.stroke.width for layer in layers if layer.stroke), default=0.0)
    size = max(size, widest)
    if not size > 0:
        return []
    canvas = _Canvas(low, size)
    fine = sum(_chords(c, layer, canvas.tolerance(layer)) for layer in layers for c in layer.subpaths)
    canvas.coarser = float(np.clip((4 * fine / MOST_CHORDS) ** 2, 1, 100))
    everything = [(layer, canvas.contours(layer)) for layer in layers]
    clips = {
        id(clip): [(part, canvas.contours(part)) for part in clip] for layer in layers for clip in layer.clips
    }
    drawn = [*everything, *itertools.chain(*clips.values())]
    canvas.check([c for _, contours in drawn for c in contours])
    canvas.lie_down(drawn)
    for key, parts in clips.items():
        canvas.clips[key] = _union([canvas.region(part, contours) for part, contours in parts])
    regions = [canvas.region(layer, contours) for layer, contours in watched(everything, "drawing", "shape")]
    found = _over(regions, [layer.dark for layer in layers])
    polygons = [np.asarray(c) for c in found.to_polygons()]
    return [c for c in map(canvas.to_drawing, filter(_is_seen, polygons)) if len(c) >= 3]


def _is_seen(polygon: np.ndarray) -> bool:
    """Not a crack of less than a millionth between shapes that should meet."""
    after = np.roll(polygon, -1, 0)
    area = abs((polygon[:, 0] * after[:, 1] - polygon[:, 1] * after[:, 0]).sum()) / 2
    return bool(2 * area > 1e-4 * np.linalg.norm(after - polygon, axis=1).sum())


class _Canvas:
    """Coordinates of the boolean operations: the drawing in a square of side 100, turned if need be."""

    def __init__(self, low: np.ndarray, size: float):
        self.widened = 0
        self.low, self.factor, self.turn, self.chords, self.coarser = low, 100 / size, np.eye(2), 0, 1.0
        self.clips: dict[int, CrossSection] = {}

    def tolerance(self, layer: Layer) -> float:
        """In the layer's own coordinates."""
        return 100 * TOLERANCE * self.coarser / self.factor / max(_scale(layer.matrix), 1e-300)

    def contours(self, layer: Layer) -> list[np.ndarray]:
        """Polygons of one layer, not yet turned."""
        tolerance = self.tolerance(layer)
        lines = []
        for cubics in layer.subpaths:
            lines.append(flattened(cubics, tolerance, MOST_CHORDS - self.chords))
            self.chords += len(lines[-1])
            self.widened += len(lines[-1]) if layer.stroke is not None else 0
            if self.widened > MOST_WIDENED:
                raise TooMuch(f"more than {MOST_WIDENED:,} chords of its strokes would have to be widened")
        if layer.stroke is not None:
            lines = [
                p
                for line, closed in zip(lines, layer.closed, strict=True)
                for p in widened(line, closed, layer.stroke, tolerance)
            ]
            self.chords += sum(map(len, lines))
        if self.chords > MOST_CHORDS:
            raise TooMuch(
                f"more than {MOST_CHORDS:,} chords are needed to follow its curves to {TOLERANCE:g} of its "
                "size"
            )
        return [(_moved(line, layer.matrix) - self.low) * self.factor for line in lines if len(line) > 1]

    def check(self, contours: Sequence[np.ndarray]) -> None:
        """TooMuch if the lines cross too often, by a sample of them."""
        if not contours:
            return
        a, b = segments_of(contours)
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(a), max(1, min(len(a), 2000, 10_000_000 // len(a))), replace=False)
        crossings = sum(_crossings(a[i], b[i], a, b) for i in chosen) / len(chosen) * len(a) / 2
        if crossings > MOST_CROSSINGS:
            raise TooMuch(
                f"its lines cross one another about {crossings:,.0f} times; at most {MOST_CROSSINGS:,.0f}"
            )

    def lie_down(self, everything: Sequence[tuple[Layer, list[np.ndarray]]]) -> None:
        """Turns the plane so that a sweep meets few edges at a time. TooMuch if there is no such way."""
        work = np.zeros(4)
        turns = [
            np.array([[c, -s], [s, c]])
            for c, s in ((1, 0), (0, 1), (0.5**0.5, 0.5**0.5), (-(0.5**0.5), 0.5**0.5))
        ]
        for layer, contours in everything:
            if layer.stroke is None and sum(map(len, contours)) > 5000:
                a, b = segments_of(contours)
                for k, turn in enumerate(turns):
                    rise = (b - a) @ turn[1]
                    bends = np.count_nonzero(np.sign(rise[1:]) != np.sign(rise[:-1]))
                    work[k] += float(np.abs(rise).sum()) / 100 * bends
        best = 0 if work[0] < 1e8 else int(work.argmin())
        if work[best] > MOST_WORK:
            raise TooMuch("too many of its lines lie side by side")
        self.turn = turns[best]

    def region(self, layer: Layer, contours: Sequence[np.ndarray]) -> CrossSection:
        turned = [c @ self.turn.T for c in contours]
        if layer.stroke is not None:  # many pieces that lie upon their neighbours
            found = _union(
                [CrossSection(turned[i : i + 256], FillRule.NonZero) for i in range(0, len(turned), 256)]
            )
        else:
            found = CrossSection(turned, FillRule.EvenOdd if layer.rule == "evenodd" else FillRule.NonZero)
        for clip in layer.clips:
            found = found ^ self.clips[id(clip)]
        return found

    def to_drawing(self, curve: np.ndarray) -> np.ndarray:
        curve = curve @ self.turn / self.factor + self.low
        return curve[np.linalg.norm(curve - np.roll(curve, 1, 0), axis=1) > 0]


def _union(parts: Sequence[CrossSection]) -> CrossSection:
    """Of a few at a time: a sweep over very many that lie upon one another takes their number squared."""
    parts = list(parts)
    while len(parts) > 1:
        parts = [CrossSection.batch_boolean(parts[i : i + 16], OpType.Add) for i in range(0, len(parts), 16)]
    return parts[0] if parts else CrossSection()


def _over(regions: Sequence[CrossSection], dark: Sequence[bool]) -> CrossSection:
    """What is dark after painting all in turn. A pair (dark, light) says what a stretch of layers does to
    those below; stretches that follow each other are joined two by two, so that none is cut by all the
    others."""
    stretches: list[tuple[CrossSection, CrossSection]] = []
    begin = 0
    for k in range(1, len(regions) + 1):
        if k == len(regions) or dark[k] != dark[begin]:
            whole = _union(regions[begin:k])
            stretches.append((whole, CrossSection()) if dark[begin] else (CrossSection(), whole))
            begin = k
    while len(stretches) > 1:
        joined = [
            ((under[0] - over[1]) + over[0], (under[1] - over[0]) + over[1])
            for under, over in zip(stretches[::2], stretches[1::2], strict=False)
        ]
        stretches = joined + stretches[len(joined) * 2 :]
    return stretches[0][0] if stretches else CrossSection()


def _chords(cubics: np.ndarray, layer: Layer, tolerance: float) -> int:
    """How many edges a subpath will have; a widened line has eight to a chord."""
    return int(chord_counts(cubics, tolerance).sum()) * (8 if layer.stroke else 1)


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _scale(matrix: np.ndarray) -> float:
    """By how much a length grows at most."""
    return float(np.linalg.norm(matrix[:, :2], 2))


def _crossings(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> int:
    """How many of the segments c -> d the segment a -> b crosses."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (
            r[..., 0] - p[..., 0]
        )

    return int(((side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)).sum())
