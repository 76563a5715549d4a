"""New images from some of their pixels, by a run that has learned weights for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.images.folder import about, check_channels, kept, lies
from nif_cli.data.images.formats.pixels import Pixels, read_image
from nif_cli.data.shapes.observations import keep_half
from nif_cli.data.shapes.samples import PointSamples
from nif_cli.field import Field, Signal
from nif_cli.files import available_memory
from nif_cli.inference.shapes import infer
from nif_cli.metrics.image import compare_images
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Inferred
from nif_cli.rendering.images import image_values
from nif_cli.schemas import NewShapes

Made = tuple[str, Path, Pixels, Inferred]


def adapted(
    config: NewShapes, model: MetaSdf, files: dict[str, Path], failed: list[NifError]
) -> Iterator[Made]:
    """Every image with what it took to adapt to `points` of its pixels, `together` at a time; those that
    cannot be read, or are of another kind than the run's, go to `failed`."""
    names = list(files)
    for start in range(0, len(names), config.together):
        part: list[str] = []
        seen: list[PointSamples] = []
        for number, id in enumerate(names[start : start + config.together], start):
            try:
                pixels = read_image(files[id])
                check_channels(files[id], pixels, model.subject.out)
                if 16 * pixels.shape[0] * pixels.shape[1] > available_memory():
                    raise NifError(f"{files[id]}: {about(pixels)} do not fit in memory")
                seen.append(observed(config, id, pixels, number))
                part.append(id)
            except NifError as error:
                failed.append(error)
        if part:
            for id, made in zip(part, infer(model, seen, config), strict=True):
                yield id, files[id], read_image(files[id]), made  # again: no more than one of them in memory


def observed(config: NewShapes, id: str, pixels: Pixels, number: int) -> PointSamples:
    """`points` of its pixels, at random; with `keep` of one half of it only."""
    rng = np.random.default_rng([config.seed, number])
    most = config.points if config.keep is None else pixels[..., 0].size
    seen = kept(id, pixels, most, rng).observed(most, rng)
    if config.keep is None:
        return seen
    half = keep_half(seen, config.keep)
    return half.part(rng.permutation(len(half.points))[: config.points])


def image_with_metrics(
    signal: Field | Signal, pixels: Pixels, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """The image [H, W, C] that the signal makes, at its own size, and how close it is."""
    height, width, _ = pixels.shape
    assert isinstance(signal, Signal)
    made = image_values(signal, lies(pixels), (0, 0, width, height), (width, height), device).clamp(0, 1)
    truth = torch.from_numpy(np.array(pixels)).float() / float(np.iinfo(pixels.dtype).max)
    return made, compare_images(made, truth)
