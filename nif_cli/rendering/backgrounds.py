"""Images in front of another colour, or of nothing: what was blended with one background is blended with
another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ImageColor
from torch import Tensor

from nif_cli import NifError
from nif_cli.rendering.image_files import displayed, sheet


def colour_of(background: Any) -> Float[Tensor, "3"]:
    """sRGB in [0, 1] of what a user writes: a name, #rrggbb, or three numbers from 0 to 1. NifError for what
    is none."""
    if isinstance(background, list):
        numbers = [float(x) for x in background if isinstance(x, int | float) and 0 <= x <= 1]
        if len(numbers) == len(background) == 3:
            return torch.tensor(numbers)
    elif isinstance(background, str):
        try:
            return torch.tensor(ImageColor.getrgb(background)[:3]) / 255
        except ValueError:
            pass
    raise NifError(
        f"background={background}: must be a colour's name (white, black, skyblue), '#rrggbb' or three "
        "numbers from 0 to 1"
    )


def over(
    rgb: Float[Tensor, "H W 3"],
    opacity: Float[Tensor, "H W"],
    background: Float[Tensor, "3"],
    was: float = 1.0,
) -> Float[Tensor, "H W 3"]:
    """The image in front of `background` instead of the grey `was` that it was blended with."""
    return rgb + (1 - opacity)[..., None] * (background - was)


def cut_out(
    rgb: Float[Tensor, "H W 3"], opacity: Float[Tensor, "H W"], was: float = 1.0
) -> UInt8[np.ndarray, "H W 4"]:
    """With straight alpha, as PNG has it."""
    premultiplied = over(rgb, opacity, torch.zeros(3), was)
    straight = premultiplied / opacity[..., None].clamp(min=1 / 255)
    return np.dstack((displayed(straight), displayed(opacity[..., None])))


def transparent_sheet(images: Sequence[UInt8[np.ndarray, "_ _ 4"]]) -> UInt8[np.ndarray, "H W 4"]:
    """`sheet` of images with alpha, transparent where there is none."""
    colours = sheet([image[..., :3] for image in images])
    clear = sheet([np.repeat(255 - image[..., 3:], 3, 2) for image in images])
    return np.dstack((colours, 255 - clear[..., 0]))
