"""How batches of points are drawn from shapes.

A pool lives on the training device and batches are gathered there: no worker processes, no copies. The points of each
shape are shuffled once, outside before inside, so that a batch holds half of each (DeepSDF).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nif_cli.data.samples import ShapeSamples


@dataclass
class ShapeBatch:
    """Points of several shapes: `row` says which of the pool's shapes each one is. Data without distances has
    `occupied` instead."""

    row: Int[Tensor, "S"]
    points: Float[Tensor, "S N 3"]
    distance: Float[Tensor, "S N"] | None
    surface: Float[Tensor, "S M 3"] | None = None
    normals: Float[Tensor, "S M 3"] | None = None
    occupied: Bool[Tensor, "S N"] | None = None

    @property
    def inside(self) -> Bool[Tensor, "S N"]:
        """Which points are inside, from the occupancies or the distances."""
        if self.occupied is not None:
            return self.occupied
        assert self.distance is not None
        return self.distance > 0


def rows_of(shape: ShapeSamples, part: slice = slice(None)) -> Float[np.ndarray, "N 4"]:
    """Points with their distance; where only the inside is known, +1 or -1 stands for it. No rows where neither is."""
    known = shape.distance if shape.distance is not None else shape.inside
    if known is None:
        return np.empty((0, 4), np.float32)
    points = shape.points[part]
    rows = np.empty((len(points), 4), np.float32)
    rows[:, :3] = points
    rows[:, 3] = known[part] if shape.distance is not None else np.where(known[part], 1.0, -1.0)
    return rows


class ShapePool:
    """The samples of all shapes, concatenated on one device.

    `hold_out` of each shape's points are never drawn by `draw`; `held_out` returns some of them, to watch training by.
    """

    def __init__(self, shapes: Sequence[ShapeSamples], device: torch.device, seed: int = 0, hold_out: float = 0.02):
        self.device = device
        self.measured = all(s.distance is not None for s in shapes)
        rng = np.random.default_rng(seed)
        known = [len(s.points) if s.distance is not None or s.inside is not None else 0 for s in shapes]
        kept = [max(1, n - round(hold_out * n)) if n else 0 for n in known]
        self.rows = torch.empty(sum(kept), 4)
        self.held: list[Tensor] = []
        begin, outside, start = [], [], 0
        for shape, count in zip(shapes, kept, strict=True):
            rows = rows_of(shape)
            rng.shuffle(rows)
            if hold_out:
                self.held.append(torch.from_numpy(rows[count:].copy() if count < len(rows) else rows))
            rows = rows[:count]
            into = self.rows[start : start + count].numpy()
            is_outside = rows[:, 3] <= 0
            begin.append(start)
            outside.append(int(is_outside.sum()))
            into[: outside[-1]], into[outside[-1] :] = rows[is_outside], rows[~is_outside]
            start += count
        self.rows = self.rows.to(device)
        # [S, 2]: where the outside and the inside points of each shape begin, and how many there are; a shape that has
        # only one kind draws it twice
        first, outside_, counts = torch.tensor(begin), torch.tensor(outside), torch.tensor(kept)
        starts = torch.stack([first, first + outside_], 1)
        length = torch.stack([outside_, counts - outside_], 1)
        lonely = length == 0
        self.begin = torch.where(lonely, starts.flip(1), starts).to(device)
        self.length = torch.where(lonely, length.flip(1), length).to(device)
        self.surface = self.surface_begin = self.surface_length = None
        if all(s.surface is not None and s.normals is not None and len(s.surface) for s in shapes):
            both = [np.concatenate([s.surface, s.normals], 1, dtype=np.float32) for s in shapes]  # type: ignore[list-item]
            lengths = torch.tensor([len(b) for b in both])
            self.surface = torch.from_numpy(np.concatenate(both)).to(device)
            self.surface_begin = (lengths.cumsum(0) - lengths).to(device)
            self.surface_length = lengths.to(device)

    def __len__(self) -> int:
        return len(self.begin)

    def at(self, k: int, batch_points: int) -> ShapePool:
        """The pool that batch number k is drawn from."""
        return self

    def draw(self, row: Int[Tensor, "S"], points: int, surface: int, generator: torch.Generator) -> ShapeBatch:
        """`points` samples of each shape of `row`, half of them inside, and `surface` points with normals."""
        if not len(self.rows):
            points = 0
        half = torch.rand((len(row), points), generator=generator, device=self.device)
        begin, length = self.begin[row], self.length[row]  # [S, 2]
        cut = points // 2
        index = torch.empty((len(row), points), dtype=torch.long, device=self.device)
        for kind, part in ((0, slice(0, cut)), (1, slice(cut, points))):
            index[:, part] = begin[:, kind, None] + (half[:, part] * length[:, kind, None]).long()
        batch = self._batch(row, self.rows.index_select(0, index.reshape(-1)).view(len(row), points, 4))
        if surface and self.surface is not None and self.surface_begin is not None and self.surface_length is not None:
            u = torch.rand((len(row), surface), generator=generator, device=self.device)
            index = self.surface_begin[row, None] + (u * self.surface_length[row, None]).long()
            both = self.surface.index_select(0, index.reshape(-1)).view(len(row), surface, 6)
            batch.surface, batch.normals = both[..., :3], both[..., 3:]
        return batch

    def held_out(self, rows: list[int], points: int) -> ShapeBatch:
        """At most `points` held-out samples of each shape of `rows`, always the same. Data without distances brings
        surface points too (the same that training draws from: there is nothing else to watch it by)."""
        index = torch.tensor(rows, device=self.device)
        count = min(points, *(len(self.held[r]) for r in rows))
        batch = self._batch(index, torch.stack([self.held[r][:count] for r in rows]).to(self.device))
        if not self.measured and self.surface is not None:
            generator = torch.Generator(self.device).manual_seed(0)
            drawn = self.draw(index, 2, points, generator)
            batch.surface, batch.normals = drawn.surface, drawn.normals
        return batch

    def _batch(self, row: Tensor, samples: Tensor) -> ShapeBatch:
        if self.measured:
            return ShapeBatch(row, samples[..., :3], samples[..., 3])
        return ShapeBatch(row, samples[..., :3], None, occupied=samples[..., 3] > 0)


class ShardedPool:
    """Samples that lie on disk (memory-mapped, each shape's already shuffled), `shards` parts of them in turn.

    A shard is a pool of all shapes with one part of each one's points, so every batch sees every shape, whatever does not
    fit. It is read while the one before is drawn from: two are in memory at a time. Which shard batch k is drawn from
    depends on k only.
    """

    def __init__(self, shapes: Sequence[ShapeSamples], device: torch.device, seed: int, shards: int):
        self.shapes, self.device, self.seed, self.shards = shapes, device, seed, shards
        held = [slice(n - min(4096, max(1, n // 50)), n) for n in (len(s.points) for s in shapes)]
        self.first = ShapePool([_part(s, h, slice(0, 4096)) for s, h in zip(shapes, held, strict=True)], device, seed, 0.0)
        self.first.held = [torch.from_numpy(rows_of(s, h)) for s, h in zip(shapes, held, strict=True)]
        self.ends = [h.start for h in held]
        self.reader = ThreadPoolExecutor(1, "shards")
        self.current: tuple[int, ShapePool] | None = None
        self.coming: tuple[int, Future[ShapePool]] | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def held_out(self, rows: list[int], points: int) -> ShapeBatch:
        """As ShapePool's; these points are in no shard."""
        return self.first.held_out(rows, points)

    def at(self, k: int, batch_points: int) -> ShapePool:
        """The shard that batch number k is drawn from: each is drawn from about as often as it has points."""
        each = max(1, sum(self.ends) // self.shards // batch_points)
        wanted = k // each % self.shards
        if self.current is None or self.current[0] != wanted:
            self.current = None  # freed before the next one is waited for
            coming = self.coming if self.coming and self.coming[0] == wanted else (wanted, self.reader.submit(self.read, wanted))
            self.coming = None
            self.current = (wanted, coming[1].result())
            following = (wanted + 1) % self.shards
            self.coming = (following, self.reader.submit(self.read, following))
        return self.current[1]

    def read(self, shard: int) -> ShapePool:
        """Part number `shard` of every shape."""

        def cut(n: int) -> slice:
            return slice(n * shard // self.shards, n * (shard + 1) // self.shards)

        parts = []
        for shape, end in zip(self.shapes, self.ends, strict=True):
            parts.append(_part(shape, cut(end), cut(0 if shape.surface is None else len(shape.surface))))
        return ShapePool(parts, self.device, self.seed + shard, 0.0)


def _part(shape: ShapeSamples, points: slice, surface: slice) -> ShapeSamples:
    """A slice of a shape's samples. A mapped file is opened anew, so that its pages go when the slice goes."""

    def cut(array: np.ndarray | None, part: slice) -> np.ndarray | None:
        if isinstance(array, np.memmap) and array.filename is not None:
            array = np.load(array.filename, mmap_mode="r", allow_pickle=False)
        return None if array is None else array[part]

    taken = cut(shape.points, points)
    assert taken is not None
    return ShapeSamples(
        shape.id,
        shape.transform,
        taken,
        cut(shape.distance, points),
        cut(shape.inside, points),
        cut(shape.surface, surface),
        cut(shape.normals, surface),
    )
