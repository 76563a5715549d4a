"""Normalised space: the similarity between it and the user's own units."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

BALL_RADIUS = 1 / 1.03  # the farthest vertex of a normalised shape (DeepSDF's preprocessing)


@dataclass(frozen=True)
class Transform:
    """From a user's units to normalised space: normalised = (p + offset) * scale (DeepSDF's
    NormalizationParameters)."""

    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def to_normalised(self, points: np.ndarray) -> np.ndarray:
        """[..., 3] in the user's units -> normalised space, float64."""
        return (np.asarray(points, np.float64) + np.asarray(self.offset)) * self.scale

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """[..., 3] in normalised space -> the user's units, float64."""
        return np.asarray(points, np.float64) / self.scale - np.asarray(self.offset)

    def towards(self, other: Transform, share: float) -> Transform:
        """The transform on the way to another one: lengths and places change steadily."""
        x, y, z = (a + share * (b - a) for a, b in zip(self.offset, other.offset, strict=True))
        return Transform((x, y, z), self.scale ** (1 - share) * other.scale**share)

    def as_dict(self) -> dict:
        return asdict(self)


def unit_ball(vertices: Float[np.ndarray, "V 3"]) -> Transform:
    """The transform that centres the bounding box and brings the farthest vertex to radius 1/1.03
    (DeepSDF)."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    radius = float(np.linalg.norm(vertices - centre, axis=1).max())
    x, y, z = (float(-c) for c in centre)
    return Transform((x, y, z), BALL_RADIUS / radius)


def unit_cube(vertices: Float[np.ndarray, "V 3"]) -> Transform:
    """The transform that centres the bounding box and brings its longest side to 1 (occupancy networks)."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    x, y, z = (float(-c) for c in centre)
    return Transform((x, y, z), 1 / float(np.ptp(vertices, axis=0).max()))


SPACES = {"ball": (unit_ball, 1.0), "cube": (unit_cube, 0.55)}
