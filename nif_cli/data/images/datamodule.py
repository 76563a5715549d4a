"""The data module of images: pixels live on the training device, all or some tiles of them, and batches are
drawn there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import Batches, Data, in_turn
from nif_cli.data.images.folder import (
    ImageInstance,
    ImagesBatch,
    KeptImage,
    about,
    draw,
    image_files,
    lies,
    read_images,
)
from nif_cli.data.images.formats.pixels import Pixels, read_image
from nif_cli.data.images.toy import colour_card
from nif_cli.data.memory import memory_limit
from nif_cli.data.report import Report

TILE = 256  # pixels along the side of a tile


@dataclass
class PixelBatch:
    """Places in [-1, 1]^2 (x to the right, y down) and the colours there, in [0, 1]."""

    points: Float[Tensor, "N 2"]
    color: Float[Tensor, "N C"]

    def __len__(self) -> int:
        return len(self.points)


class ImageData(Data):
    """One image, or (`path` is a folder) many; `crop` [x, y, width, height] is a part of one. Without
    `path` a test card made on the spot. Of many, the last `test` are held out: split=train is the others,
    split=test those, split=all everything; those that cannot be read are left out, and a batch has
    `batch_points` pixels of `batch_pictures` of them.

    Of every pixel the seed decides whether it is among the `hold_out` part that is never trained on. A
    image that takes more than `memory` (npy files only: others are unpacked whole) is trained on tile by
    tile: some of them at a time, in an order shuffled by the seed. Batch k is a function of (seed, k).
    """

    holds = "an image"
    kind = "image"

    def __init__(
        self,
        path: str | None = None,
        crop: Sequence[int] | None = None,
        hold_out: float = 0.0,
        batch_points: int | None = None,
        memory: str | int | None = None,
        seed: int = 0,
        test: int = 0,
        split: Literal["train", "test", "all"] = "train",
        batch_pictures: int = 4,
    ):
        super().__init__()
        if test < 0 or batch_pictures < 1:
            raise ValueError(f"test={test}, batch_pictures={batch_pictures}: at least 0 and 1")
        if not 0 <= hold_out < 1:
            raise ValueError(f"hold_out={hold_out}: a part of the pixels, in [0, 1)")
        if batch_points is not None and batch_points < 1:
            raise ValueError(f"batch_points={batch_points}: at least 1")
        if crop is not None and (len(crop) != 4 or min(crop) < 0 or min(crop[2:]) < 1):
            raise ValueError(f"crop={list(crop)}: must be [x, y, width, height] in pixels")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed={seed}: must be in 0 .. 2^31 - 1")
        self.path, self.crop = None if path is None else Path(path).expanduser(), crop
        self.hold_out, self.seed = hold_out, seed
        # of a folder the steps are many times as dear
        self.batch_points = batch_points or (4096 if self.many else 16384)
        self.memory = memory_limit(memory)
        self._pixels: Pixels | None = None
        self.pool: PixelPool | None = None
        self.test, self.split, self.batch_pictures = test, split, batch_pictures
        self._images: list[KeptImage] = []
        self.left_out: list[NifError] = []

    @property
    def many(self) -> bool:
        return self.path is not None and self.path.is_dir()

    def files(self, split: str | None = None) -> dict[str, Path]:
        """Of a folder, those of `split`; by default of its own."""
        assert self.path is not None
        split = split or self.split
        found = list(image_files(self.path).items())
        train = len(found) - self.test
        if split != "all" and train < 1:
            raise NifError(
                f"data.test={self.test}: {self.path} has {len(found)} images, so none is left to train on"
            )
        if split == "test" and not self.test:
            raise NifError(f"data.split=test: no image of {self.path} is held out; give data.test=<count>")
        return dict(found if split == "all" else found[train:] if split == "test" else found[:train])

    def images(self) -> list[KeptImage]:
        """Those of a folder; read once."""
        if not self._images:
            if self.crop is not None or self.hold_out:
                raise NifError(
                    "data.crop and data.hold_out are for one image; of a folder data.test images are held out"
                )
            self._images, self.left_out = read_images(self.files(), self.memory, self.seed)
        return self._images

    def test_images(self, count: int) -> list[KeptImage]:
        """At most `count` of the held-out ones."""
        if not self.test or self.split != "train":
            return []
        few = dict(list(self.files("test").items())[:count])
        return read_images(few, self.memory, self.seed, self.channels)[0]

    def pixels(self) -> Pixels:
        """The image, cropped; read once."""
        if self._pixels is None:
            if self.test or self.split != "train":
                raise NifError(
                    f"data.test, data.split: {self.path or 'the colour card'} is one image; they are for "
                    "folders"
                )
            whole = colour_card() if self.path is None else read_image(self.path)
            if self.crop is not None:
                x, y, width, height = self.crop
                if x + width > whole.shape[1] or y + height > whole.shape[0]:
                    size = f"{whole.shape[1]} x {whole.shape[0]}"
                    raise NifError(
                        f"data.crop={list(self.crop)}: it leaves the image, which is {size} pixels"
                    )
                whole = whole[y : y + height, x : x + width]
            self._pixels = whole
        return self._pixels

    @property
    def channels(self) -> int:
        return self.images()[0].colors.shape[1] if self.many else self.pixels().shape[2]

    def prepare(self) -> Sequence[ImageInstance]:
        if self.many:
            return self.images()
        held = f", {self.hold_out:.0%} of the pixels held out" if self.hold_out else ""
        id = self.path.stem if self.path else "colour_card"
        return [ImageInstance(id, lies(self.pixels()), Report(f"{about(self.pixels())}{held}"))]

    def summary(self) -> str:
        if self.many:
            total, some = (
                sum(len(p.colors) for p in self.images()),
                any(p.where is not None for p in self.images()),
            )
            left = f"; {len(self.left_out)} left out ({self.left_out[0]})" if self.left_out else ""
            return f"{len(self.images())} images, {total:,} {'of their ' * some}pixels{left}"
        height, width, _ = self.pixels().shape
        return f"1 image, {width * height:,} pixels"

    def held(self) -> Bool[np.ndarray, "H W"]:
        """Which pixels are held out."""
        height, width, _ = self.pixels().shape
        return np.random.default_rng([self.seed, 1]).random((height, width), np.float32) < self.hold_out

    def make_pool(self, device: torch.device) -> PixelPool:
        if self.pool is None or self.pool.device != device:
            self.pool = PixelPool(self, device)
        return self.pool

    def train_batches(self, device: torch.device) -> PixelBatches | ImageBatches:
        return (ImageBatches if self.many else PixelBatches)(self, device)

    def held_out_batches(self, device: torch.device) -> list[Any]:
        """Held-out pixels, or some of all where none are; of a folder 2,048 pixels of each of 64 images at
        most."""
        if self.many:
            generator = torch.Generator(device).manual_seed(self.seed)
            return [draw([p.to(device)], 2048, generator) for p in self.images()[:64]]
        return [self.make_pool(device).watched()]


class PixelPool:
    """The pixels of an image on one device, as the integers they are."""

    def __init__(self, data: ImageData, device: torch.device):
        self.data, self.device = data, device
        pixels = data.pixels()
        self.height, self.width, channels = pixels.shape
        self.most = float(np.iinfo(pixels.dtype).max)
        self.scale = 2 / max(self.width, self.height)
        each = channels * pixels.dtype.itemsize + (8 if data.hold_out else 0)
        self.whole = pixels.size // channels * each <= data.memory
        if self.whole:
            self.colors = torch.from_numpy(np.array(pixels).reshape(-1, channels)).to(device)
            self.allowed = (
                torch.from_numpy(np.flatnonzero(~data.held())).to(device) if data.hold_out else None
            )
            if self.allowed is not None and not len(self.allowed):
                raise NifError(f"data.hold_out={data.hold_out}: no pixel is left to train on")
        else:
            if data.hold_out:
                raise NifError(
                    "data.hold_out: an image larger than data.memory is trained on as a whole; give "
                    "hold_out=0"
                )
            rows, columns = -(-self.height // TILE), -(-self.width // TILE)
            self.tiles = np.random.default_rng([data.seed, 2]).permutation(rows * columns)
            self.together = max(1, min(len(self.tiles), data.memory // (TILE * TILE * each)))
            self.shown = -1

    def draw(self, k: int, count: int, generator: torch.Generator) -> PixelBatch:
        """`count` pixels for batch number k."""
        if not self.whole:
            return self._draw_from_tiles(k, count, generator)
        among = len(self.colors) if self.allowed is None else len(self.allowed)
        index = torch.randint(among, (count,), generator=generator, device=self.device)
        return self._batch(index if self.allowed is None else self.allowed[index])

    def _batch(self, index: Tensor) -> PixelBatch:
        x, y = index % self.width, index // self.width
        return self._at(x, y, self.colors[index])

    def _at(self, x: Tensor, y: Tensor, colors: Tensor) -> PixelBatch:
        centred = torch.stack((x + 0.5 - self.width / 2, y + 0.5 - self.height / 2), -1)
        return PixelBatch(centred.float() * self.scale, colors.float() / self.most)

    def _draw_from_tiles(self, k: int, count: int, generator: torch.Generator) -> PixelBatch:
        """From the tiles whose turn it is: each turn has as many batches as its tiles have pixels."""
        turn = k * count // (self.together * TILE * TILE)
        if turn != self.shown:
            pixels, columns = self.data.pixels(), -(-self.width // TILE)
            chosen = self.tiles[np.arange(turn * self.together, (turn + 1) * self.together) % len(self.tiles)]
            parts, x, y = [], [], []
            for tile in chosen:
                top, left = tile // columns * TILE, tile % columns * TILE
                part = np.array(pixels[top : top + TILE, left : left + TILE])
                rows, across = np.indices(part.shape[:2], np.int32)
                parts.append(part.reshape(-1, part.shape[2]))
                x.append((left + across).ravel())
                y.append((top + rows).ravel())
            self.colors, self.x, self.y = (
                torch.from_numpy(np.concatenate(a)).to(self.device) for a in (parts, x, y)
            )
            self.shown = turn
        index = torch.randint(len(self.colors), (count,), generator=generator, device=self.device)
        return self._at(self.x[index], self.y[index], self.colors[index])

    def watched(self, count: int = 2**16) -> PixelBatch:
        """At most `count` pixels to watch training by, always the same: held-out ones where there are any."""
        rng = np.random.default_rng([self.data.seed, 3])
        pixels = self.data.pixels()
        if self.data.hold_out:
            index = np.flatnonzero(self.data.held())
            index = index if len(index) <= count else np.sort(rng.choice(index, count, replace=False))
        else:
            total = self.height * self.width
            index = np.sort(rng.integers(total, size=count)) if total > count else np.arange(total)
        y, x = np.divmod(index, self.width)
        colors = torch.from_numpy(np.ascontiguousarray(pixels[y, x])).to(self.device)
        return self._at(torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device), colors)


class PixelBatches(Batches[ImageData]):
    def __init__(self, data: ImageData, device: torch.device):
        self.data, self.pool = data, data.make_pool(device)
        self.generator = torch.Generator(device)

    def batch(self, k: int) -> PixelBatch:
        self.generator.manual_seed(self.data.seed * 7_368_787 + k + 1)
        return self.pool.draw(k, self.data.batch_points, self.generator)


class ImageBatches(Batches[ImageData]):
    """Batches of a folder."""

    def __init__(self, data: ImageData, device: torch.device):
        self.data, self.images = data, [p.to(device) for p in data.images()]
        self.generator, self.order = torch.Generator(device), torch.Generator()

    def batch(self, k: int) -> ImagesBatch:
        size = min(self.data.batch_pictures, len(self.images))
        rows = in_turn(len(self.images), size, k, self.data.seed, self.order).tolist()
        self.generator.manual_seed(self.data.seed * 7_368_787 + k + 1)
        return draw(
            [self.images[row] for row in rows], max(2, self.data.batch_points // size), self.generator
        )
