"""The page of images and of drawings: the image, and parts of it magnified beyond its pixels."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from nif_cli.field import Field
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.image_files import displayed, scaled
from nif_cli.rendering.images import image_size, image_values, plane_image
from nif_cli.schemas import ViewRuns
from nif_cli.viewer.menu import Menu
from nif_cli.viewer.worker import Check, Worker

COARSE = 128  # pixels along the longest side, at once


def shown_part(
    field: Any, transform: Transform, zoom: float, at: tuple[float, float], longest: int, device: torch.device
) -> UInt8[np.ndarray, "H W 3"]:
    """An image of 1 / `zoom` of the sides around `at` (parts of its width and height, 0 to 1), on white."""
    if isinstance(field, Field):
        low, high = field.bounds.to(device)
        half = (high - low) / 2 / zoom
        middle = low + torch.tensor(at).to(low) * (high - low)
        middle = torch.minimum(torch.maximum(middle, low + half), high - half)
        part = _Part(field, torch.stack((middle - half, middle + half)))
        return plane_image(part, longest, device)
    width, height = image_size(transform)
    across, down = width / zoom, height / zoom
    x, y = (
        min(max(a * n - m / 2, 0.0), n - m)
        for a, n, m in zip(at, (width, height), (across, down), strict=True)
    )
    values = image_values(field, transform, (x, y, across, down), scaled(across, down, longest), device)
    values = values.clamp(0, 1)
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
    return displayed(values.expand(-1, -1, 3))


class _Part:
    """A field of the plane within a smaller box."""

    def __init__(self, field: Field, bounds: torch.Tensor):
        self.bounds, self.level, self.truncation, self.value = (
            bounds,
            field.level,
            field.truncation,
            field.value,
        )


class ImagePage:
    """The image lies in the plane that the camera looks at."""

    def __init__(self, server: Any, menu: Menu, config: ViewRuns, worker: Worker):
        self.server, self.menu, self.worker, self.device = server, menu, worker, menu.run.device
        server.scene.set_up_direction("-y")
        server.initial_camera.position, server.initial_camera.look_at = (0.0, 0.0, -2.6), (0.0, 0.0, 0.0)
        gui = server.gui
        self.status = gui.add_markdown("...")
        self.instance = gui.add_dropdown("instance", menu.names, initial_value=menu.names[0])
        self.size = gui.add_slider("size", 64, max(1024, config.size), 16, config.size)
        self.zoom = gui.add_slider("zoom", 1.0, 64.0, 0.5, 1.0, hint="into the field, beyond its pixels")
        self.x = gui.add_slider("x", 0.0, 1.0, 0.005, 0.5)
        self.y = gui.add_slider("y", 0.0, 1.0, 0.005, 0.5)
        for handle in (self.instance, self.size, self.zoom, self.x, self.y):
            handle.on_update(lambda _: self.renew())
        self.renew()

    def renew(self) -> None:
        self.worker.submit("image", self._draw)

    def _draw(self, check: Check) -> None:
        began = time.monotonic()
        name, zoom = self.instance.value, float(self.zoom.value)
        field, transform = self.menu.field(name), self.menu.transform(name)
        height = width = 0
        for longest in sorted({min(COARSE, int(self.size.value)), int(self.size.value)}):
            check()
            made = shown_part(field, transform, zoom, (self.x.value, self.y.value), longest, self.device)
            height, width = made.shape[:2]
            unit = 2.0 / max(width, height)
            self.server.scene.add_image("/image", made, unit * width, unit * height, format="png")
            self.status.content = f"{width} x {height} pixels, {time.monotonic() - began:.1f} s"
