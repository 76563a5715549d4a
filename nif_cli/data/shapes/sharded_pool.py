"""Shapes that do not fit in the memory of a device, drawn from in shards."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from nif_cli.data.shapes.pool import ShapeBatch, ShapePool, held, rows_of
from nif_cli.data.shapes.samples import ShapeSamples


class ShardedPool:
    """Samples that lie on disk (memory-mapped, each shape's already shuffled), `shards` parts of them in
    turn.

    A shard is a pool of all shapes with one part of each one's points, so every batch sees every shape,
    whatever does not fit. It is read while the one before is drawn from: two are in memory at a time. Which
    shard batch k is drawn from depends on k only.
    """

    def __init__(
        self, shapes: Sequence[ShapeSamples], device: torch.device, seed: int, shards: int, **settings
    ):
        self.shapes, self.device, self.seed, self.shards, self.settings = (
            shapes,
            device,
            seed,
            shards,
            settings,
        )
        self.first = ShapePool(shapes, device, seed, 0.0, held, lambda n: slice(0, min(n, 4096)), **settings)
        self.first.held = [
            torch.from_numpy(rows_of(s, held, settings.get("occupancy", False))) for s in shapes
        ]
        self.count = sum(held(len(s.points)).start for s in shapes)
        largest = sum(held(len(s.points)).start // shards + 1 for s in shapes)
        # the same memory again and again: nothing to fragment
        self.spare = [torch.empty(largest, 4) for _ in range(2)]
        self.reader = ThreadPoolExecutor(1, "shards")
        self.current: tuple[int, ShapePool, Tensor] | None = None
        self.coming: tuple[int, Future[tuple[ShapePool, Tensor]]] | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def held_out(self, rows: list[int], points: int) -> ShapeBatch:
        """As ShapePool's; these points are in no shard."""
        return self.first.held_out(rows, points)

    def at(self, k: int, batch_points: int) -> ShapePool:
        """The shard that batch number k is drawn from: each is drawn from about as often as it has points."""
        each = max(1, self.count // self.shards // batch_points)
        wanted = k // each % self.shards
        if self.current is None or self.current[0] != wanted:
            if self.current is not None:
                self.spare.append(self.current[2])
            if self.coming is None or self.coming[0] != wanted:
                if self.coming is not None:  # a jump, as when a run is resumed
                    self.spare.append(self.coming[1].result()[1])
                self.coming = (wanted, self.reader.submit(self.read, wanted))
            self.current = (wanted, *self.coming[1].result())
            following = (wanted + 1) % self.shards
            self.coming = (following, self.reader.submit(self.read, following))
        return self.current[1]

    def read(self, shard: int) -> tuple[ShapePool, Tensor]:
        """Part number `shard` of every shape, and the memory that it lies in (on the CPU)."""

        def cut(n: int) -> slice:
            return slice(n * shard // self.shards, n * (shard + 1) // self.shards)

        into = self.spare.pop()
        seed = self.seed + shard
        return ShapePool(
            self.shapes, self.device, seed, 0.0, lambda n: cut(held(n).start), cut, into, **self.settings
        ), into
