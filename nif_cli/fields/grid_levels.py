"""The levels of a grid of features: where a point's rows are (Mueller et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

PRIMES = (1, 2654435761, 805459861)  # Teschner et al. 2003, as in Mueller et al. 2022, eq. 4


@dataclass(frozen=True)
class Levels:
    """Where each level lies in the table and how its rows are found. A point x in [0, 1]^D is at x * scale +
    shift on the level's lattice of `resolution`^D corners; corner c is row sum c_d resolution^d, or the hash
    of c, modulo `rows`."""

    dim: int
    shift: float
    scale: tuple[float, ...]
    resolution: tuple[int, ...]
    rows: tuple[int, ...]
    taps: int = 2
    """Corners that a point sees along each axis: 2 (multilinear), or 4 (cubic B-splines)."""

    @property
    def start(self) -> tuple[int, ...]:
        """The first row of each level."""
        return tuple(int(n) for n in np.concatenate(([0], np.cumsum(self.rows)[:-1])))

    @property
    def hashed(self) -> tuple[bool, ...]:
        """Which levels have fewer rows than corners."""
        return tuple(
            rows < resolution**self.dim for rows, resolution in zip(self.rows, self.resolution, strict=True)
        )

    def first(self, count: int) -> Levels:
        """The first, coarsest of them, whose rows lie where they did."""
        return replace(
            self, scale=self.scale[:count], resolution=self.resolution[:count], rows=self.rows[:count]
        )

    @classmethod
    def geometric(cls, dim: int, levels: int, base: int, finest: float, table: int | None) -> Levels:
        """Those of Mueller et al. 2022 (eq. 2, 3) in the details of their code: level l has scale base * b^l
        - 1 and resolution ceil(scale) + 1, b such that the last has `finest`; positions are shifted by half a
        cell, so that levels do not share their cell faces; a level has resolution^D rows, rounded up to a
        multiple of 8, but at most `table`.
        """
        # eq. 3: log b
        growth = math.log(finest / base) / max(1, levels - 1)
        scale = [base * math.exp(level * growth) - 1 for level in range(levels)]
        resolution = [math.ceil(s - 1e-9) + 1 for s in scale]  # b^l is rounded: 64.0000000001 is 64
        rows = [-(-(r**dim) // 8) * 8 for r in resolution]
        return cls(
            dim, 0.5, tuple(scale), tuple(resolution), tuple(min(r, table) if table else r for r in rows)
        )

    @classmethod
    def plain(cls, dim: int, resolution: int) -> Levels:
        """One array whose outermost values lie on the border."""
        return cls(dim, 0.0, (resolution - 1.0,), (resolution,), (resolution**dim,))

    @classmethod
    def spline(cls, dim: int, resolution: int) -> Levels:
        """One array of the coefficients of uniform cubic B-splines; the outermost lie a cell beyond the
        border."""
        return cls(dim, 0.0, (resolution - 3.0,), (resolution,), (resolution**dim,), taps=4)
