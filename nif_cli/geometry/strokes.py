"""Curves as chords, and lines widened by a pen: the polygons that are painted (painting.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# how far a chord may be from its curve, of the drawing's size; up to 100 times that where it has very many
TOLERANCE = 2e-6
MOST_CHORDS = 2_000_000


class TooMuch(Exception):
    """The shapes are too many, or cross too often, to be painted in bounded time; says so."""


@dataclass
class Stroke:
    """How a line is widened, in its own coordinates."""

    width: float
    join: str = "miter"  # or round, bevel
    cap: str = "butt"  # or round, square
    miter: float = 4.0


def flattened(
    cubics: Float[np.ndarray, "N 4 2"], tolerance: float, most: int = MOST_CHORDS
) -> Float[np.ndarray, "M 2"]:
    """Points along segments that follow one another, the last end included: as many chords to each as keep
    within `tolerance` of it (an eighth of the second derivative times the step squared)."""
    count = chord_counts(cubics, tolerance)
    if count.sum() > most:
        raise TooMuch(
            f"more than {MOST_CHORDS:,} chords are needed to follow its curves to {TOLERANCE:g} of its size"
        )
    which = np.repeat(np.arange(len(cubics)), count)
    t = ((np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)) / count[which])[:, None]
    p, s = cubics[which], 1 - t
    points = s**3 * p[:, 0] + 3 * s * s * t * p[:, 1] + 3 * s * t * t * p[:, 2] + t**3 * p[:, 3]
    points = np.concatenate((points, cubics[-1:, 3]))
    return points[np.concatenate(([True], (points[1:] != points[:-1]).any(1)))]


def chord_counts(cubics: np.ndarray, tolerance: float) -> np.ndarray:
    # |B''| <= 6 bend, and a chord over a step h is off by h^2 |B''| / 8 at most
    bend = np.linalg.norm(cubics[:, :-2] - 2 * cubics[:, 1:-1] + cubics[:, 2:], axis=-1).max(1)
    return np.ceil(np.sqrt(6 * bend / (8 * tolerance)) - 1e-6).clip(1, 1e7).astype(np.int64)


def widened(
    line: Float[np.ndarray, "M 2"], closed: bool, stroke: Stroke, tolerance: float
) -> list[Float[np.ndarray, "_ 2"]]:
    """Polygons, all the same way round, whose union is the line drawn with a pen: a rectangle to each
    segment, a wedge or disc at each corner, the caps."""
    half = stroke.width / 2
    steps = max(8, math.ceil(math.pi / math.sqrt(min(1.0, 2 * tolerance / half)))) if half > 0 else 8
    disc = half * np.stack([f(np.arange(steps) * 2 * math.pi / steps) for f in (np.cos, np.sin)], -1)
    if half <= 0:
        return []
    if closed and len(line) > 1 and (line[0] == line[-1]).all():
        line = line[:-1]
    if len(line) == 1:  # a dot
        square = half * np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
        return [] if stroke.cap == "butt" else [line[0] + (disc if stroke.cap == "round" else square)]
    a, b = (line, np.roll(line, -1, 0)) if closed else (line[:-1], line[1:])
    along = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    if not closed and stroke.cap == "square":
        a, b = a.copy(), b.copy()
        a[0] -= half * along[0]
        b[-1] += half * along[-1]
    side = half * np.stack((-along[:, 1], along[:, 0]), -1)
    # with both ends among the corners, so that wedges have whole edges in common with it
    found = _one_way_round(np.stack((a - side, b - side, b, b + side, a + side, a), 1))
    at, first, second = (a, np.roll(side, 1, 0), side) if closed else (a[1:], side[:-1], side[1:])
    turn = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    cosine = ((first * second).sum(1) / half**2).clip(-1, 1)
    outer = -np.where(turn > 0, 1.0, -1.0)[:, None]
    reach = np.sqrt(2 / (1 + cosine).clip(min=1e-12))  # 1 / cos(half the turn): of the tip, in half widths
    pointed = (stroke.join not in ("round", "bevel")) & (reach <= stroke.miter) | (
        reach < 1 + tolerance / half
    )
    tip = np.where(pointed, reach, 1 / reach)[:, None] * half * _unit(first + second)
    wedges = np.stack((at, at + outer * first, at + outer * tip, at + outer * second), 1)
    discs = (stroke.join == "round") & ((reach >= 1 + tolerance / half) | (cosine < 0))
    found += _one_way_round(wedges[(turn != 0) & ~discs]) + [p + disc for p in at[discs]]
    if not closed and stroke.cap == "round":
        found += [line[0] + disc, line[-1] + disc]
    return found


def _one_way_round(polygons: Float[np.ndarray, "P K 2"]) -> list[np.ndarray]:
    """Each counterclockwise, where y is up."""
    q = polygons - polygons[:, :1]
    after = np.roll(q, -1, 1)
    area = (q[..., 0] * after[..., 1] - q[..., 1] * after[..., 0]).sum(1)
    return list(np.where((area < 0)[:, None, None], polygons[:, ::-1], polygons))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-300)
