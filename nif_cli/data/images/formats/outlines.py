"""Closed curves: of SVG files, and of images whose dark parts are inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nif_cli import NifError
from nif_cli.data.images.formats.pixels import read_image
from nif_cli.geometry.curves import Curves, level_set


def read_outline(path: Path) -> Curves:
    """Where an image is half as bright as white; dark is inside, so is what touches the border."""
    pixels = read_image(path)
    colour = pixels[..., :3].mean(-1) / np.iinfo(pixels.dtype).max
    if pixels.shape[2] == 4:  # on white
        alpha = pixels[..., 3] / np.iinfo(pixels.dtype).max
        colour = colour * alpha + 1 - alpha
    curves = level_set(1 - colour, 0.5)
    if not curves:
        raise NifError(
            f"{path}: nothing in it is darker than half of white; a curve needs a dark shape on a light "
            "ground"
        )
    return [curve + 0.5 for curve in curves]  # pixel centres
