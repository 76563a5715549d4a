"""How batches of points are drawn from shapes.

A pool lives on the training device and batches are gathered there: no worker processes, no copies. The points
of each shape are shuffled once, outside before inside, so that a batch holds half of each (DeepSDF).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nif_cli.data.datamodule import ConditioningSpec
from nif_cli.data.shapes.samples import Images, Known, ShapeSamples, VoxelGrid
from nif_cli.untrusted import read_npy


@dataclass
class ShapeBatch:
    """Points of several shapes: `row` says which of the pool's shapes each one is. Data without distances has
    `occupied` instead. `seen` is what a model that looks at shapes is shown of each: points [S, P, 3],
    images [S, 3, H, W] (bytes) or voxels [S, R, R, R]."""

    row: Int[Tensor, "S"]
    points: Float[Tensor, "S N 3"]
    distance: Float[Tensor, "S N"] | None
    surface: Float[Tensor, "S M 3"] | None = None
    normals: Float[Tensor, "S M 3"] | None = None
    occupied: Bool[Tensor, "S N"] | None = None
    seen: Float[Tensor, "S P 3"] | UInt8[Tensor, "S 3 H W"] | Bool[Tensor, "S R R R"] | None = None
    colors: Float[Tensor, "S M 3"] | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def inside(self) -> Bool[Tensor, "S N"]:
        """Which points are inside, from the occupancies or the distances."""
        if self.occupied is not None:
            return self.occupied
        assert self.distance is not None
        return self.distance > 0

    def split(self, shapes: int) -> list[ShapeBatch]:
        """Batches of `shapes` shapes each, as views."""
        parts = {
            f.name: value.split(shapes) for f in fields(self) if (value := getattr(self, f.name)) is not None
        }
        return [
            ShapeBatch(**{"distance": None, **dict(zip(parts, columns, strict=True))})
            for columns in zip(*parts.values(), strict=True)
        ]


Part = Callable[[int], slice]  # which of a shape's n points


def everything(n: int) -> slice:
    return slice(0, n)


def rows_of(shape: ShapeSamples, part: Part = everything, inside: bool = False) -> Float[np.ndarray, "N 4"]:
    """Points with their distance, copied; where only the inside is known (or `inside` is asked for, and
    known), +1 or -1 stands for it. No rows where neither is."""
    known = (
        shape.inside if shape.distance is None or (inside and shape.inside is not None) else shape.distance
    )
    if known is None:
        return np.empty((0, 4), np.float32)
    chosen = part(len(shape.points))
    values = _read(known, chosen)
    rows = np.empty((len(values), 4), np.float32)
    rows[:, :3] = _read(shape.points, chosen)
    rows[:, 3] = values if known is shape.distance else np.where(values, 1.0, -1.0)
    return rows


def _read(array: np.ndarray, part: slice) -> np.ndarray:
    """A slice. A mapped file is opened anew, so that its pages go when the slice goes."""
    if isinstance(array, np.memmap) and array.filename is not None:
        array = read_npy(Path(array.filename), "samples", mapped=True)
    return array[part]


class ShapePool:
    """The samples of all shapes, concatenated on one device.

    `hold_out` of each shape's points are never drawn by `draw`; `held_out` returns some of them, to watch
    training by. `points` and `surface` choose a part of each shape's samples; `into` [., 4] is memory for the
    points. `look` is what batches show of each shape. With `occupancy` they hold what is inside, as the
    source has it, and not distances; without `balanced` their points are drawn as they come, not half of them
    inside.
    """

    def __init__(
        self,
        shapes: Sequence[ShapeSamples],
        device: torch.device,
        seed: int = 0,
        hold_out: float = 0.02,
        points: Part = everything,
        surface: Part = everything,
        into: Tensor | None = None,
        look: ConditioningSpec | None = None,
        occupancy: bool = False,
        balanced: bool = True,
    ):
        self.device, self.look, self.balanced = device, look, balanced
        self.measured = all(
            s.distance is not None and not (occupancy and s.inside is not None) for s in shapes
        )
        rng = np.random.default_rng(seed)
        has = [s.distance is not None or s.inside is not None for s in shapes]
        known = [_length(points, len(s.points)) if h else 0 for s, h in zip(shapes, has, strict=True)]
        kept = [max(1, n - round(hold_out * n)) if n else 0 for n in known]
        self.rows = torch.empty(sum(kept), 4) if into is None else into[: sum(kept)]
        self.held: list[Tensor] = []
        begin, outside, start = [], [], 0
        for shape, count in zip(shapes, kept, strict=True):
            rows = rows_of(shape, points, occupancy)
            rng.shuffle(rows)
            if hold_out:
                self.held.append(torch.from_numpy(rows[count:].copy() if count < len(rows) else rows))
            rows = rows[:count]
            place: np.ndarray = self.rows[start : start + count].numpy()
            is_outside = rows[:, 3] <= 0
            begin.append(start)
            outside.append(int(is_outside.sum()))
            place[: outside[-1]], place[outside[-1] :] = rows[is_outside], rows[~is_outside]
            start += count
        self.rows = self.rows.to(device)
        # [S, 2]: where the outside and the inside points of each shape begin, and how many there are; a shape
        # that has only one kind draws it twice
        first, outside_, counts = torch.tensor(begin), torch.tensor(outside), torch.tensor(kept)
        self.first, self.count = first.to(device), counts.to(device)
        starts = torch.stack([first, first + outside_], 1)
        length = torch.stack([outside_, counts - outside_], 1)
        lonely = length == 0
        self.begin = torch.where(lonely, starts.flip(1), starts).to(device)
        self.length = torch.where(lonely, length.flip(1), length).to(device)
        self.images, self.voxels = _images_and_voxels(shapes, look, device)
        self.surface = self.surface_begin = self.surface_length = None
        if all(s.surface is not None and (s.normals is not None or look) and len(s.surface) for s in shapes):
            table, lengths = _surfaces(shapes, surface)
            self.surface, self.surface_length = table.to(device), lengths.to(device)
            self.surface_begin = (lengths.cumsum(0) - lengths).to(device)

    def __len__(self) -> int:
        return len(self.begin)

    def at(self, k: int, batch_points: int) -> ShapePool:
        """The pool that batch number k is drawn from."""
        return self

    def draw(
        self, row: Int[Tensor, "S"], points: int, surface: int, generator: torch.Generator
    ) -> ShapeBatch:
        """`points` samples of each shape of `row`, half of them inside, and `surface` points with normals."""
        if not len(self.rows):
            points = 0
        half = torch.rand((len(row), points), generator=generator, device=self.device)
        begin, length = self.begin[row], self.length[row]  # [S, 2]
        cut = points // 2
        index = torch.empty((len(row), points), dtype=torch.long, device=self.device)
        if self.balanced:
            for kind, part in ((0, slice(0, cut)), (1, slice(cut, points))):
                index[:, part] = begin[:, kind, None] + (half[:, part] * length[:, kind, None]).long()
        else:
            index = self.first[row, None] + (half * self.count[row, None]).long()
        batch = self._batch(row, self.rows.index_select(0, index.reshape(-1)).view(len(row), points, 4))
        if (
            surface
            and self.surface is not None
            and self.surface_begin is not None
            and self.surface_length is not None
        ):
            u = torch.rand((len(row), surface), generator=generator, device=self.device)
            index = self.surface_begin[row, None] + (u * self.surface_length[row, None]).long()
            both = self.surface.index_select(0, index.reshape(-1)).view(len(row), surface, -1)
            batch.surface, batch.normals = both[..., :3], both[..., 3:6]
            batch.colors = both[..., 6:] if both.shape[-1] > 6 else None
        batch.seen = self.seen(row, generator)
        return batch

    def seen(self, row: Int[Tensor, "S"], generator: torch.Generator) -> Tensor | None:
        """What `look` shows of each shape of `row`: a fresh cloud, one of its images, its voxels."""
        if self.look is None:
            return None
        if self.voxels is not None:
            size = self.look.size
            bits = torch.arange(7, -1, -1, device=self.device, dtype=torch.uint8)
            return (self.voxels[row, :, None] >> bits & 1).bool().view(len(row), size, size, size)
        if self.images is not None:
            begin, length = self.images[1][row].unbind(1)
            u = torch.rand(len(row), generator=generator, device=self.device)
            return self.images[0][begin + (u * length).long()].permute(0, 3, 1, 2)
        assert self.surface is not None
        assert self.surface_begin is not None
        assert self.surface_length is not None
        u = torch.rand((len(row), self.look.size), generator=generator, device=self.device)
        index = self.surface_begin[row, None] + (u * self.surface_length[row, None]).long()
        points = self.surface.index_select(0, index.reshape(-1))[:, :3].view(*u.shape, 3)
        return points + self.look.noise * torch.randn(points.shape, generator=generator, device=self.device)

    def held_out(self, rows: list[int], points: int) -> ShapeBatch:
        """At most `points` held-out samples of each shape of `rows`, always the same. Data without distances
        brings surface points too (the same that training draws from: there is nothing else to watch it
        by)."""
        index = torch.tensor(rows, device=self.device)
        count = min(points, *(len(self.held[r]) for r in rows))
        batch = self._batch(index, torch.stack([self.held[r][:count] for r in rows]).to(self.device))
        if not self.measured and self.surface is not None:
            generator = torch.Generator(self.device).manual_seed(0)
            drawn = self.draw(index, 2, points, generator)
            batch.surface, batch.normals = drawn.surface, drawn.normals
        batch.seen = self.seen(index, torch.Generator(self.device).manual_seed(1))
        return batch

    def _batch(self, row: Tensor, samples: Tensor) -> ShapeBatch:
        if self.measured:
            return ShapeBatch(row, samples[..., :3], samples[..., 3])
        return ShapeBatch(row, samples[..., :3], None, occupied=samples[..., 3] > 0)


def held(n: int) -> slice:
    """The last points of a shape that lies on disk (shuffled): held out."""
    return slice(n - min(4096, max(1, n // 50)), n)


def _length(part: Part, n: int) -> int:
    return len(range(*part(n).indices(n)))


def _surfaces(
    shapes: Sequence[ShapeSamples], part: Part
) -> tuple[Float[Tensor, "N 6"] | Float[Tensor, "N 9"], Int[Tensor, "S"]]:
    """Surface points of all shapes, one after the other, with normals (0: none) and, where all have some,
    colours; and how many each shape has."""
    lengths = torch.tensor([_length(part, len(s.surface)) for s in shapes])  # type: ignore[arg-type]
    coloured = all(s.colors is not None for s in shapes)
    table = torch.zeros(int(lengths.sum()), 9 if coloured else 6)
    for shape, rows in zip(shapes, table.split(lengths.tolist()), strict=True):
        assert shape.surface is not None
        chosen = part(len(shape.surface))
        for column, array in enumerate((shape.surface, shape.normals, shape.colors if coloured else None)):
            if array is not None:
                values = torch.from_numpy(np.array(_read(array, chosen), np.float32))
                rows[:, 3 * column : 3 * column + 3] = values
    return table, lengths


def _images_and_voxels(
    shapes: Sequence[ShapeSamples], look: ConditioningSpec | None, device: torch.device
) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
    """All images [V, H, W, 3] with [S, 2]: where those of each shape begin and how many they are; and all
    voxel grids, their bits packed [S, R^3 / 8]."""
    if look is None or look.kind == "points":
        return None, None
    seen = [s.known or Known() for s in shapes]
    if look.kind == "voxels":
        bits = [np.packbits(k.voxels.occupied) for k in seen if isinstance(k.voxels, VoxelGrid)]
        return None, torch.from_numpy(np.stack(bits)).to(device)
    pixels = [k.images.pixels for k in seen if isinstance(k.images, Images)]
    count = torch.tensor([len(p) for p in pixels])
    return (
        torch.from_numpy(np.concatenate(pixels)).to(device),
        torch.stack((count.cumsum(0) - count, count), 1).to(device),
    ), None
