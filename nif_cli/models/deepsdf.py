"""DeepSDF (Park et al. 2019): one decoder, a latent code for each shape, both learned (an auto-decoder)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.data.pool import ShapeBatch
from nif_cli.data.shapes import ShapeData
from nif_cli.field import BoundField, bind
from nif_cli.losses import clamped_l1
from nif_cli.models.model import Instance, Model
from nif_cli.models.optimizers import Adam


class DeepSdf(Model):
    """Codes of `code_size` are kept by instance id, start from N(0, 1/code_size) and move only when their shape is in the
    batch; their norm stays at most `code_norm`. Loss: L1 clamped to +-`clamp`, plus `prior` times the mean squared norm
    of the batch's codes, which fades in over the first `prior_warmup` of the training (eq. 9).
    """

    def __init__(
        self,
        field: Callable[..., nn.Module],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float = 5e-4,
        code_lr: float = 1e-3,
        code_size: int = 256,
        code_norm: float = 1.0,
        clamp: float = 0.1,
        prior: float = 1e-4,
        prior_warmup: float = 0.05,
    ):
        super().__init__(lr, optimizer, scheduler)
        if code_size < 1 or not clamp > 0 or not code_lr > 0 or not code_norm > 0:
            raise ValueError(
                f"code_size={code_size}, clamp={clamp}, code_lr={code_lr}, code_norm={code_norm}: all must be positive"
            )
        self.network = field(dim=3, out=1, code_size=code_size)
        self.code_size, self.code_lr, self.code_norm = code_size, code_lr, code_norm
        self.clamp, self.prior, self.prior_warmup = clamp, prior, prior_warmup
        self.codes: nn.Embedding | None = None

    def adopt(self, data: ShapeData) -> None:
        shapes = data.prepare()
        data.require("model=deepsdf", "distance")
        if not issubclass(getattr(self._optimizer, "func", Adam), Adam):
            raise NifError(
                "optimizer: model=deepsdf needs optimizer=adam, which moves a code only when its shape is in the batch"
            )
        known = {i: self.codes.weight.detach()[row].clone() for row, i in enumerate(self.instances)} if self.codes else {}
        self.allocate([s.id for s in shapes])
        assert self.codes is not None
        nn.init.normal_(self.codes.weight, 0, 1 / math.sqrt(self.code_size))
        with torch.no_grad():  # weights taken from another run: shapes that it knew keep their codes
            for row, shape in enumerate(shapes):
                if shape.id in known:
                    self.codes.weight[row] = known[shape.id]
        self.instances = {s.id: Instance(s.id, s.transform) for s in shapes}

    def allocate(self, ids: list[str]) -> None:
        self.codes = nn.Embedding(len(ids), self.code_size, sparse=True, _weight=torch.zeros(len(ids), self.code_size))

    def parameter_groups(self) -> list[dict]:
        assert self.codes is not None
        return [
            *self.groups_of(self.network),
            {"params": list(self.codes.parameters()), "lr": self.code_lr},
        ]

    def code(self, id: str) -> Tensor:
        """[Z]: the learned code of a known instance."""
        if id not in self.instances or self.codes is None:
            raise NifError(f"no instance '{id}' in this run; it has {', '.join(list(self.instances)[:5])}, ...")
        return self._bounded(self.codes.weight[list(self.instances).index(id)])

    def _bounded(self, codes: Tensor) -> Tensor:
        """Codes scaled back into the ball of radius `code_norm` (the published code's max-norm embedding)."""
        return codes * (self.code_norm / codes.norm(dim=-1, keepdim=True).clamp(min=self.code_norm))

    def field(self, id: str) -> BoundField:
        return bind(self.network, self.code(id).detach(), bounds=self.bounds, trust=self.clamp)

    def loss(self, batch: ShapeBatch) -> dict[str, Tensor]:
        assert self.codes is not None
        assert batch.distance is not None
        codes = self._bounded(self.codes(batch.row))
        terms = {"l1": clamped_l1(self.network(batch.points, codes)[..., 0], batch.distance, self.clamp)}
        if self.training and self.prior > 0:
            warm = min(1.0, self.progress() / self.prior_warmup) if self.prior_warmup > 0 else 1.0
            terms["prior"] = self.prior * warm * codes.square().sum(-1).mean()
        return terms
