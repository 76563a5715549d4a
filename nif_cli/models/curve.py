"""A closed curve of the plane in a network: f(x, y) = 0, the smallest implicit field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nif_cli.data.images.curves import CurveBatch, CurveData
from nif_cli.field import BoundField, bind, evaluate
from nif_cli.fields.network import Network
from nif_cli.losses import clamped_l1
from nif_cli.models.model import Instance, Model


class Curve(Model):
    """The signed distance of a curve, clamped to +-`clamp`, by regression."""

    learns = CurveData
    units: ClassVar = {"distance error": "of the unit ball", "iou": "of 1"}

    def __init__(
        self,
        field: Callable[..., Network],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float = 1e-3,
        clamp: float = 0.1,
    ):
        super().__init__(lr, optimizer, scheduler)
        if not clamp > 0:
            raise ValueError(f"clamp={clamp}: must be positive")
        self.network, self.clamp = field(dim=2, out=1, code_size=0), clamp

    def attach_data(self, data: CurveData) -> None:
        (outline,) = data.prepare()

        def samples() -> tuple[np.ndarray, np.ndarray]:
            rows = data.rows(False).numpy()
            return rows[:, :2], rows[:, 2:].clip(-self.clamp, self.clamp)

        self.network.fill(samples)
        self.instances = {outline.id: Instance(outline.id, outline.transform)}

    def allocate(self, ids: list[str]) -> None:
        pass

    @property
    def bounds(self) -> Tensor:
        """[2, 2]"""
        return torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

    def field(self, id: str) -> BoundField:
        return bind(self.network, bounds=self.bounds, truncation=self.clamp)

    def loss(self, batch: CurveBatch) -> dict[str, Tensor]:
        return {"l1": clamped_l1(self.network(batch.points[None], None)[0, :, 0], batch.distance, self.clamp)}

    def final_metrics(self, data: CurveData) -> dict[str, float]:
        """At the held-out samples: the mean error of distances below the clamp, and the intersection over
        union."""
        rows = data.rows(True).to(self.device)
        found, truth = evaluate(self.field(next(iter(self.instances))), rows[:, :2]), rows[:, 2]
        near, inside, true = truth.abs() < self.clamp, found > 0, truth > 0
        union = (inside | true).sum().clamp(min=1)
        return {
            "distance error": float((found - truth)[near].abs().mean()),
            "iou": float((inside & true).sum() / union),
        }
