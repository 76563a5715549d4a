"""A coloured surface: one network for its signed distance, another of the same kind for its colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.textured import TexturedMeshes
from nif_cli.field import BoundColoredField
from nif_cli.fields.network import Network
from nif_cli.metrics.image import psnr
from nif_cli.models.sdf import Sdf


class Texture(Sdf):
    """As model=sdf with objective=regression, and squared error of 0.5 + 0.5 y to the colours of surface
    points, which are moved by N(0, `blur`^2) so that the colours are known a little off the surface too."""

    learns = TexturedMeshes
    units: ClassVar = {"colour psnr": "dB"}

    def __init__(
        self,
        field: Callable[..., Network],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float = 1e-3,
        clamp: float = 0.1,
        blur: float = 0.003,
    ):
        super().__init__(field, optimizer, scheduler, lr=lr, clamp=clamp)
        if not blur >= 0:
            raise ValueError(f"blur={blur}: must not be negative")
        self.needs = replace(self.needs, surface_share=1.0)
        self.colors, self.blur = field(dim=3, out=3, code_size=0), blur

    def attach_data(self, data: ShapeData) -> None:
        super().attach_data(data)
        (shape,) = data.prepare()
        if shape.colors is None or shape.surface is None:
            raise NifError("model=texture needs colours; this data has none")
        surface, colors = shape.surface, shape.colors
        self.colors.fill(lambda: (surface, 2 * colors - 1))

    def field(self, id: str) -> BoundColoredField:
        return BoundColoredField(self.network, None, None, 0.0, self.bounds, self.clamp, self.colors)

    def loss(self, batch: ShapeBatch) -> dict[str, Tensor]:
        terms = super().loss(batch)
        if batch.colors is not None and batch.surface is not None:
            near = batch.surface + self.blur * torch.randn_like(batch.surface)
            terms["colour"] = (0.5 + 0.5 * self.colors(near, None) - batch.colors).square().mean()
        return terms

    def final_metrics(self, data: TexturedMeshes) -> dict[str, float]:
        """PSNR of the colours at (at most 65,536 of) the surface points."""
        (shape,) = data.prepare()
        assert shape.surface is not None
        assert shape.colors is not None
        points, colors = (torch.from_numpy(a[: 2**16]).to(self.device) for a in (shape.surface, shape.colors))
        with torch.no_grad():
            return {"colour psnr": psnr(self.field(shape.id).color(points).clamp(0, 1), colors)}
