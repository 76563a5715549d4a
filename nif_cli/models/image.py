"""An image in a network: places to colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.images.datamodule import ImageData, PixelBatch
from nif_cli.field import BoundSignal
from nif_cli.fields.network import Network
from nif_cli.metrics.image import IMAGE_METRICS, compare_images
from nif_cli.models.model import Instance, Model
from nif_cli.rendering.images import image_values


class Image(Model):
    """A network of two coordinates whose values, 0.5 + 0.5 y, are colours in [0, 1]; least squares.
    `channels` (grey 1, RGB 3, RGBA 4) are filled in by nif train, from the image."""

    learns = ImageData
    units: ClassVar = {
        f"{name}{part}": metric.unit for name, metric in IMAGE_METRICS.items() for part in ("", " held-out")
    }

    def __init__(
        self,
        field: Callable[..., Network],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float = 1e-3,
        channels: int | None = None,
    ):
        super().__init__(lr, optimizer, scheduler)
        if channels not in (None, 1, 3, 4):
            raise ValueError(
                f"channels={channels}: 1 (grey), 3 (RGB) or 4 (RGBA), or null for those of the image"
            )
        self.channels = channels or 3
        self.network = field(dim=2, out=self.channels, code_size=0)

    def attach_data(self, data: ImageData) -> None:
        if data.many:
            raise NifError(
                f"{data.path}: a folder; model=image learns one image, model=metasdf a folder of them"
            )
        (image,) = data.prepare()
        if self.channels != data.channels:
            raise NifError(f"model.channels={self.channels}: the image has {data.channels}; leave it out")

        def samples() -> tuple[np.ndarray, np.ndarray]:
            pixels = data.pixels()
            y, x = np.nonzero(~data.held())
            centred = np.stack((x + 0.5, y + 0.5), -1) + np.asarray(image.transform.offset[:2])
            return centred * image.transform.scale, pixels[y, x] / (0.5 * np.iinfo(pixels.dtype).max) - 1

        self.network.fill(samples)
        self.instances = {image.id: Instance(image.id, image.transform)}

    def allocate(self, ids: list[str]) -> None:
        pass

    def field(self, id: str) -> BoundSignal:
        """The image, over its rectangle in [-1, 1]^2."""
        x, y, _ = self.instances[id].transform.offset
        half = torch.tensor([-x, -y]) * self.instances[id].transform.scale
        return BoundSignal(self.network, torch.stack((-half, half)))

    def loss(self, batch: PixelBatch) -> dict[str, Tensor]:
        predicted = 0.5 + 0.5 * self.network(batch.points[None], None)[0]
        return {"mse": (predicted - batch.color).square().mean()}

    def final_metrics(self, data: ImageData) -> dict[str, float]:
        """PSNR and SSIM of the whole image at its own size, or apart on the pixels that were trained on and
        those held out."""
        (id,) = self.instances
        pixels = data.pixels()
        height, width, _ = pixels.shape
        if pixels.size > 2**28:
            return {}
        truth = torch.from_numpy(np.array(pixels)).float() / float(np.iinfo(pixels.dtype).max)
        made = image_values(
            self.field(id), self.instances[id].transform, (0, 0, width, height), (width, height), self.device
        )
        held = torch.from_numpy(data.held())
        parts = {"": ~held, " held-out": held} if data.hold_out else {"": torch.ones_like(held)}
        found = {name: compare_images(made, truth, part) for name, part in parts.items()}
        return {f"{m}{name}": found[name][m] for m in found[""] for name in found}
