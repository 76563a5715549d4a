"""DeepSDF (Park et al. 2019): one decoder, a latent code for each shape, both learned (an auto-decoder)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.data.datamodule import Needs
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.samples import Observation
from nif_cli.field import BoundField, Field, bind
from nif_cli.fields.network import Network
from nif_cli.losses import clamped_l1
from nif_cli.models.latent_fitting import BoundsPool, bounds_of, fit_codes, violation
from nif_cli.models.model import Inferred, Instance, Model
from nif_cli.optim.adam import Adam


class DeepSdf(Model):
    """Codes of `code_size` are kept by instance id, start from N(0, 1/code_size) and move only when their
    shape is in the batch; their norm stays at most `code_norm`. Loss: L1 clamped to +-`clamp`, plus `prior`
    times the mean squared norm of the batch's codes, which fades in over the first `prior_warmup` of the
    training (eq. 9).
    """

    observes = ("samples", "oriented", "points", "depth")

    needs = Needs("model=deepsdf", ("distance",))

    def __init__(
        self,
        field: Callable[..., Network],
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
                f"code_size={code_size}, clamp={clamp}, code_lr={code_lr}, code_norm={code_norm}: all must "
                "be positive"
            )
        self.network = field(dim=3, out=1, code_size=code_size)
        if self.network.local:
            raise ValueError(
                "this field takes feature planes or a grid; it goes with model=occupancy "
                "encoder=pointcloud_planes"
            )
        self.code_size, self.code_lr, self.code_norm = code_size, code_lr, code_norm
        self.clamp, self.prior, self.prior_warmup = clamp, prior, prior_warmup
        self.codes: nn.Embedding | None = None

    def attach_data(self, data: ShapeData) -> None:
        shapes = data.meet(self.needs)
        if not issubclass(getattr(self._optimizer, "func", Adam), Adam):
            raise NifError(
                "optimizer: model=deepsdf needs optimizer=adam, which moves a code only when its shape is "
                "in the batch"
            )
        known = (
            {i: self.codes.weight.detach()[row].clone() for row, i in enumerate(self.instances)}
            if self.codes
            else {}
        )
        self.allocate([s.id for s in shapes])
        assert self.codes is not None
        # about 1 long for any Z: at the border of the ball that `code_norm` allows, as in the published code
        nn.init.normal_(self.codes.weight, 0, 1 / math.sqrt(self.code_size))
        with torch.no_grad():  # weights taken from another run: shapes that it knew keep their codes
            for row, shape in enumerate(shapes):
                if shape.id in known:
                    self.codes.weight[row] = known[shape.id]
        self.instances = {s.id: Instance(s.id, s.transform) for s in shapes}

    def allocate(self, ids: list[str]) -> None:
        # sparse gradients: Adam moves the codes of a batch only; dense ones would drag all by their momentum
        self.codes = nn.Embedding(
            len(ids), self.code_size, sparse=True, _weight=torch.zeros(len(ids), self.code_size)
        )

    def parameter_groups(self) -> list[dict]:
        assert self.codes is not None
        return [
            *self.groups_of(self.network),
            {"params": list(self.codes.parameters()), "lr": self.code_lr},
        ]

    def code(self, id: str) -> Tensor:
        """[Z]: the learned code of a known instance."""
        if id not in self.instances or self.codes is None:
            raise NifError(
                f"no instance '{id}' in this run; it has {', '.join(list(self.instances)[:5])}, ..."
            )
        return self._bounded(self.codes.weight[list(self.instances).index(id)])

    def _bounded(self, codes: Tensor) -> Tensor:
        """Codes scaled back into the ball of radius `code_norm` (the published code's max-norm embedding)."""
        # not torch's max_norm, which moves the table in place, unseen by the gradient
        return codes * (self.code_norm / codes.norm(dim=-1, keepdim=True).clamp(min=self.code_norm))

    def field(self, id: str) -> BoundField:
        return self._bind(self._inference_network(), self.code(id).detach())

    def decoded(self, code: Float[Tensor, "Z"]) -> BoundField:
        """The field of any code."""
        return self._bind(self._inference_network(), code)

    def _inference_network(self) -> Network:
        return self.network.fold(None)[0]

    def _bind(self, network: Network, code: Tensor) -> BoundField:
        return bind(network, code, bounds=self.bounds, truncation=self.clamp)

    @property
    def network_device(self) -> torch.device:
        return next(self.network.parameters()).device

    def gaussian(self) -> tuple[Float[Tensor, "Z"], Float[Tensor, "Z Z"]]:
        """The mean of the learned codes and a factor L of their covariance: mean + L n with n ~ N(0, 1) is a
        new code. With fewer codes than dimensions they stay in the span of the codes."""
        assert self.codes is not None
        codes = self._bounded(self.codes.weight.detach())
        mean = codes.mean(0)
        # C = V S^2 V^T of the centred codes, so that V S V^T is a root of it; C itself is never made
        _, sigma, v = torch.linalg.svd((codes - mean) / max(1, len(codes) - 1) ** 0.5, full_matrices=False)
        return mean, (v.T * sigma) @ v

    def between(self, first: str, second: str, share: float) -> BoundField:
        """The field of the code on the straight line between two learned ones (section 6.4)."""
        return self._bind(
            self._inference_network(), torch.lerp(self.code(first), self.code(second), share).detach()
        )

    def sample(self, count: int, seed: int = 0) -> list[Field]:
        """Fields of codes drawn from the Gaussian of the learned ones."""
        network = self._inference_network()
        return [self._bind(network, code) for code in self.sample_codes(count, seed)]

    def sample_codes(self, count: int, seed: int = 0) -> Float[Tensor, "K Z"]:
        """Codes drawn from the Gaussian of the learned ones."""
        mean, factor = self.gaussian()
        noise = torch.randn(count, self.code_size, generator=torch.Generator().manual_seed(seed))
        return self._bounded(mean + noise.to(mean) @ factor.T)

    def nearest(self, code: Float[Tensor, "Z"], count: int = 3) -> list[dict[str, Any]]:
        """The known instances whose codes are nearest, with their Euclidean distances."""
        assert self.codes is not None
        distance = (self._bounded(self.codes.weight.detach()) - code.to(self.codes.weight)).norm(dim=1)
        ids = list(self.instances)
        return [
            {"id": ids[k], "distance": round(float(distance[k]), 6)}
            for k in distance.argsort()[:count].tolist()
        ]

    def infer(
        self,
        observations: Sequence[Observation],
        *,
        steps: int = 400,
        restarts: int = 4,
        points: int = 2048,
        code_lr: float = 5e-3,
        prior: float = 1e-4,
        seed: int = 0,
        **options: Any,
    ) -> list[Inferred]:
        """Codes fitted to what is seen, all shapes and all restarts in one batch (the paper: 800 steps of
        8,000 points, rate 5e-3, a tenth of it after half, prior 1e-4, one start near 0). The first start is
        the paper's; the others are the best of many draws from the Gaussian of the learned codes."""
        if options:
            raise NifError(f"model=deepsdf has no option '{next(iter(options))}' for new shapes")
        if steps < 1 or restarts < 1 or points < 2 or not code_lr > 0:
            raise NifError(
                f"steps={steps}, restarts={restarts}, points={points}, code_lr={code_lr}: all must be "
                "positive"
            )
        device, network = self.network_device, self._inference_network()
        rng = np.random.default_rng(seed)
        pool = BoundsPool([bounds_of(o, self.clamp, rng) for o in observations], device)
        generator = torch.Generator(device).manual_seed(seed)
        start = self._starts(network, pool, restarts, generator, seed)
        fit = fit_codes(
            network, pool, start, steps=steps, points=points, lr=code_lr, prior=prior, generator=generator
        )
        found = []
        for k, code in enumerate(fit.codes):
            report = {
                "loss": float(fit.loss[k]),
                "losses": [round(float(v), 7) for v in fit.losses[k]],
                "steps": steps,
                "restarts": restarts,
                "points": points,
                "seconds": round(fit.seconds, 3),
                "together": len(observations),
                "code_norm": round(float(code.norm()), 4),
                "nearest": self.nearest(code),
            }
            found.append(Inferred(self._bind(network, code), report, {"code": code}))
        return found

    def _starts(
        self, network: Network, pool: BoundsPool, restarts: int, generator: torch.Generator, seed: int
    ) -> Float[Tensor, "S R Z"]:
        """The codes that fitting starts from: N(0, 0.01), and the draws that fit best before any step."""
        shapes = len(pool.begin)
        device = generator.device
        first = 0.01 * torch.randn(shapes, 1, self.code_size, generator=generator, device=device)
        if restarts == 1:
            return first
        drawn = self.sample_codes(16 * (restarts - 1), seed).to(device)
        with torch.no_grad():
            where, bounds = pool.draw(256, generator)
            losses = [violation(network(where, code.expand(shapes, -1))[..., 0], bounds) for code in drawn]
        best = torch.stack(losses, 1).topk(restarts - 1, largest=False).indices  # [S, R - 1]
        return torch.cat((first, drawn[best]), 1)

    def loss(self, batch: ShapeBatch) -> dict[str, Tensor]:
        assert self.codes is not None
        assert batch.distance is not None
        codes = self._bounded(self.codes(batch.row))
        terms = {"l1": clamped_l1(self.network(batch.points, codes)[..., 0], batch.distance, self.clamp)}
        if self.training and self.prior > 0:
            # faded in, as in the published code over 100 epochs: early it shrinks codes that say nothing yet
            warm = min(1.0, self.progress() / self.prior_warmup) if self.prior_warmup > 0 else 1.0
            terms["prior"] = self.prior * warm * codes.square().sum(-1).mean()
        return terms
