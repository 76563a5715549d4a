"""Images of a folder: where they lie, as many pixels of each as memory holds, and batches of several of
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt16
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.images.formats.pixels import READABLE, Pixels, read_image
from nif_cli.data.report import Report
from nif_cli.data.shapes.samples import PointSamples
from nif_cli.geometry.transform import Transform
from nif_cli.progress import watched

KINDS = {1: "grey", 3: "RGB", 4: "RGBA"}


@dataclass
class ImageInstance:
    """What the command says of it, and how it lies: `transform` takes pixels (centres at +0.5) to normalised
    space, where the longest side spans [-1, 1]."""

    id: str
    transform: Transform
    report: Report


@dataclass
class ImagesBatch:
    """Places in [-1, 1]^2 of several images and the colours there, in [0, 1]."""

    points: Float[Tensor, "S N 2"]
    color: Float[Tensor, "S N C"]

    def __len__(self) -> int:
        return len(self.points)


@dataclass
class KeptImage(ImageInstance):
    """Some of its pixels, or all: their colours as they are, and (where some are left out) their numbers, row
    by row."""

    width: int
    colors: UInt8[Tensor, "M C"] | UInt16[Tensor, "M C"]
    where: Int[Tensor, "M"] | None

    def at(self, index: Int[Tensor, "N"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N C"]]:
        """Places and colours of these of its kept pixels."""
        number = index if self.where is None else self.where[index]
        corner = torch.tensor(self.transform.offset[:2], device=index.device)
        pixels = torch.stack((number % self.width, number // self.width), -1) + 0.5
        most = 255.0 if self.colors.dtype == torch.uint8 else 65535.0
        return (pixels + corner) * self.transform.scale, self.colors[index].float() / most

    def observed(self, points: int, rng: np.random.Generator) -> PointSamples:
        """At most `points` of its pixels, at random, as places and colours."""
        total = len(self.colors)
        index = rng.choice(total, points, replace=False) if total > points else np.arange(total)
        places, colors = self.at(torch.from_numpy(index))
        return PointSamples(places.numpy(), colors=colors.numpy())

    def to(self, device: torch.device) -> KeptImage:
        where = None if self.where is None else self.where.to(device)
        return replace(self, colors=self.colors.to(device), where=where)


def lies(pixels: Pixels) -> Transform:
    """Its place in [-1, 1]^2: the middle at the origin."""
    height, width, _ = pixels.shape
    return Transform((-width / 2, -height / 2, 0.0), 2 / max(width, height))


def about(pixels: Pixels) -> str:
    """An image in words."""
    return (
        f"{pixels.shape[1]} x {pixels.shape[0]} pixels, {KINDS[pixels.shape[2]]}, "
        f"{8 * pixels.dtype.itemsize} bits"
    )


def kept(id: str, pixels: Pixels, most: int, rng: np.random.Generator) -> KeptImage:
    """At most this many of its pixels."""
    flat = pixels.reshape(-1, pixels.shape[2])
    where = np.sort(rng.choice(len(flat), most, replace=False)) if len(flat) > most else None
    colors = torch.from_numpy(np.array(flat if where is None else flat[where]))
    index = None if where is None else torch.from_numpy(where)
    return KeptImage(id, lies(pixels), Report(about(pixels)), pixels.shape[1], colors, index)


def image_files(path: Path) -> dict[str, Path]:
    """The file that `path` names, or all images below it, by their path below the folder without the suffix
    (with it where two would be called the same). NifError where there is none."""
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise NifError(f"{path}: no such file or folder")
    files = sorted(
        p
        for p in path.rglob("*")
        if p.suffix.lower() in READABLE and p.is_file() and not p.name.startswith(".")
    )
    if not files:
        raise NifError(f"{path}: no image in this folder (looked for {', '.join(READABLE)})")
    names = [f.relative_to(path).with_suffix("").as_posix() for f in files]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return {
        f"{name}_{f.suffix[1:]}" if name in twice else name: f for name, f in zip(names, files, strict=True)
    }


def read_images(
    files: Mapping[str, Path], memory: int, seed: int, channels: int | None = None
) -> tuple[list[KeptImage], list[NifError]]:
    """Every image, with the same share of `memory` bytes for each, and why those left out cannot be read.
    NifError where none can, or where they do not all have `channels` (by default those of the first)."""
    found: list[KeptImage] = []
    wrong: list[NifError] = []
    rng = np.random.default_rng([seed, 4])
    for id, file in watched(list(files.items()), "reading", "image"):
        try:
            pixels = read_image(file)
        except NifError as error:
            wrong.append(error)
            continue
        wanted = pixels.shape[2] if channels is None else channels
        check_channels(file, pixels, wanted)
        channels = wanted
        each = pixels.shape[2] * pixels.dtype.itemsize + 8
        found.append(kept(id, pixels, max(1, memory // len(files) // each), rng))
    if not found:
        raise wrong[0]
    return found, wrong


def check_channels(file: Path, pixels: Pixels, channels: int) -> None:
    """NifError unless the image has this many."""
    if pixels.shape[2] != channels:
        raise NifError(
            f"{file}: it is {KINDS[pixels.shape[2]]} and the others are {KINDS[channels]}; all must be the "
            "same"
        )


def draw(images: Sequence[KeptImage], count: int, generator: torch.Generator) -> ImagesBatch:
    """`count` pixels of each."""
    parts = []
    for image in images:
        index = torch.randint(len(image.colors), (count,), generator=generator, device=generator.device)
        parts.append(image.at(index))
    points, colors = zip(*parts, strict=True)
    return ImagesBatch(torch.stack(points), torch.stack(colors))
