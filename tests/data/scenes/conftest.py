"""Cameras around the origin and an image for each, for the formats to write and read."""

import math

import numpy as np
import pytest
from PIL import Image

from nif_cli.rendering.camera_paths import turntable


@pytest.fixture
def poses():
    """Ten cameras, camera to world in OpenGL axes, float64 [10, 3, 4]."""
    return np.stack([p.double().numpy() for k in (10, 35) for p in turntable(5, k, "z", 4.0)])


@pytest.fixture
def images():
    """`images(folder, names, channels, size)` writes one for each name; its red is its number."""

    def write(folder, names, channels=3, size=(20, 10)):
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            y, x = np.mgrid[: size[1], : size[0]]
            image = np.stack([0 * x + number, 10 * x, 10 * y, 255 * (x > 3)], -1)[..., :channels].astype(
                np.uint8
            )
            Image.fromarray(image).save(folder / name)

    return write


@pytest.fixture
def angle():
    """The horizontal angle of view of a camera 20 pixels wide whose focal length is 25."""
    return 2 * math.atan(10 / 25)
