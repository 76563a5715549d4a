"""What shapes are in memory, whatever file they came from, and how batches are drawn from them.

A pool lives on the training device and batches are gathered there: no worker processes, no copies. The points of each
shape are shuffled once, outside before inside, so that a batch holds half of each (DeepSDF).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nif_cli.geometry.mesh import Transform


@dataclass
class ShapeSamples:
    """One shape in normalised space. `distance` is positive inside; a source that knows no distances leaves it None."""

    id: str
    transform: Transform
    points: Float[np.ndarray, "N 3"]
    distance: Float[np.ndarray, "N"] | None = None
    inside: Bool[np.ndarray, "N"] | None = None
    surface: Float[np.ndarray, "M 3"] | None = None
    normals: Float[np.ndarray, "M 3"] | None = None
    report: str = ""


@dataclass
class ShapeBatch:
    """Points of several shapes: `row` says which of the pool's shapes each one is."""

    row: Int[Tensor, "S"]
    points: Float[Tensor, "S N 3"]
    distance: Float[Tensor, "S N"]
    surface: Float[Tensor, "S M 3"] | None = None
    normals: Float[Tensor, "S M 3"] | None = None


class ShapePool:
    """The samples of all shapes, concatenated on one device.

    `hold_out` of each shape's points are never drawn by `draw`; `held_out` returns some of them, to watch training by.
    """

    def __init__(self, shapes: list[ShapeSamples], device: torch.device, seed: int = 0, hold_out: float = 0.02):
        rng = np.random.default_rng(seed)
        train, held, starts, outside, counts = [], [], [0], [], []
        for shape in shapes:
            assert shape.distance is not None
            rows = np.concatenate([shape.points, shape.distance[:, None]], 1, dtype=np.float32)
            rng.shuffle(rows)
            kept = max(1, len(rows) - round(hold_out * len(rows)))
            held.append(torch.from_numpy(rows[kept:] if kept < len(rows) else rows))
            rows = rows[:kept]
            rows = rows[np.argsort(rows[:, 3] > 0, kind="stable")]
            outside.append(int((rows[:, 3] <= 0).sum()))
            counts.append(len(rows))
            starts.append(starts[-1] + len(rows))
            train.append(torch.from_numpy(rows))
        self.device = device
        self.rows = torch.cat(train).to(device)
        self.held = held
        # [S, 2]: where the outside and the inside points of each shape begin, and how many there are; a shape that has
        # only one kind draws it twice
        first = torch.tensor(starts[:-1])
        outside_, counts_ = torch.tensor(outside), torch.tensor(counts)
        begin = torch.stack([first, first + outside_], 1)
        length = torch.stack([outside_, counts_ - outside_], 1)
        lonely = length == 0
        self.begin = torch.where(lonely, begin.flip(1), begin).to(device)
        self.length = torch.where(lonely, length.flip(1), length).to(device)
        self.surface = self.surface_begin = self.surface_length = None
        if all(s.surface is not None and s.normals is not None for s in shapes):
            both = [np.concatenate([s.surface, s.normals], 1, dtype=np.float32) for s in shapes]  # type: ignore[list-item]
            lengths = torch.tensor([len(b) for b in both])
            self.surface = torch.from_numpy(np.concatenate(both)).to(device)
            self.surface_begin = (lengths.cumsum(0) - lengths).to(device)
            self.surface_length = lengths.to(device)

    def __len__(self) -> int:
        return len(self.begin)

    def draw(self, row: Int[Tensor, "S"], points: int, surface: int, generator: torch.Generator) -> ShapeBatch:
        """`points` samples of each shape of `row`, half of them inside, and `surface` points with normals."""
        half = torch.rand((len(row), points), generator=generator, device=self.device)
        begin, length = self.begin[row], self.length[row]  # [S, 2]
        cut = points // 2
        index = torch.empty((len(row), points), dtype=torch.long, device=self.device)
        for kind, part in ((0, slice(0, cut)), (1, slice(cut, points))):
            index[:, part] = begin[:, kind, None] + (half[:, part] * length[:, kind, None]).long()
        samples = self.rows.index_select(0, index.reshape(-1)).view(len(row), points, 4)
        batch = ShapeBatch(row, samples[..., :3], samples[..., 3])
        if surface and self.surface is not None and self.surface_begin is not None and self.surface_length is not None:
            u = torch.rand((len(row), surface), generator=generator, device=self.device)
            index = self.surface_begin[row, None] + (u * self.surface_length[row, None]).long()
            both = self.surface.index_select(0, index.reshape(-1)).view(len(row), surface, 6)
            batch.surface, batch.normals = both[..., :3], both[..., 3:]
        return batch

    def held_out(self, rows: list[int], points: int) -> ShapeBatch:
        """At most `points` held-out samples of each shape of `rows`, always the same."""
        count = min(points, *(len(self.held[r]) for r in rows))
        samples = torch.stack([self.held[r][:count] for r in rows]).to(self.device)
        return ShapeBatch(torch.tensor(rows, device=self.device), samples[..., :3], samples[..., 3])
