"""Learned initialisations: weights that become any shape in a few gradient steps (MetaSDF, Sitzmann et al. 2020; MAML, Finn
et al. 2017; Reptile, Nichol et al. 2018; for coordinate networks Tancik et al. 2021)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.data.observing import known, thin
from nif_cli.data.pool import ShapeBatch
from nif_cli.data.samples import Observation
from nif_cli.data.shapes import ShapeData
from nif_cli.data.spill import memory_limit
from nif_cli.field import BoundField, bind
from nif_cli.losses import clamped_error, two_headed
from nif_cli.models.adaptation import (
    Task,
    Weights,
    call_each,
    context_of,
    descend,
    graph_bytes,
    half_space,
    level_set,
    spread,
)
from nif_cli.models.model import Inferred, Instance, Model

ENOUGH = 2**30  # bytes of a micro-batch's graph
KEPT = 2048  # points of an observation that a run keeps for each of its instances


class MetaSdf(Model):
    """theta_0 (the network's own weights) is learned so that `steps` gradient steps on what is seen of a shape (the context)
    make its field; the loss is that of all points (the query) after these steps.

    algorithm: maml differentiates through the steps (second order); fomaml takes the gradient where the steps end; reptile
    moves towards where they end; metasdf is maml with learned step sizes: one (`step_size=scalar`), one for each `tensor`
    or each `parameter`, the same for all steps or not (`per_step`). Step sizes start at `inner_lr`; they are learned as
    logarithms at rate `step_lr`.

    objective: l1, clamped_l1 (to +-`clamp`), or two_headed (the network has two channels: a sign logit and an unsigned
    distance). The inner steps minimise the same, or (`inner=squared`) half the squared error over `clamp`: its gradient
    fades where a point is met, so that few steps of a fixed size come closer. context: dense (half of a batch's points),
    surface (points and normals), partial (those in a half space).

    `micro_batch` shapes at a time are adapted, by default as many as `memory` holds; `checkpoint` keeps one inner step's
    graph at a time. Dropout is off: the steps are few and must not be noisy.
    """

    def __init__(
        self,
        field: Callable[..., nn.Module],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float = 5e-4,
        algorithm: Literal["maml", "fomaml", "reptile", "metasdf"] = "metasdf",
        steps: int = 5,
        inner_lr: float = 2e-2,
        step_size: Literal["scalar", "tensor", "parameter"] = "parameter",
        per_step: bool = True,
        step_lr: float = 1e-2,
        objective: Literal["l1", "clamped_l1", "two_headed"] = "clamped_l1",
        inner: Literal["same", "squared"] = "squared",
        clamp: float = 0.1,
        context: Literal["dense", "surface", "partial"] = "dense",
        offset: float = 0.01,
        micro_batch: int | None = None,
        memory: str | int | None = None,
        checkpoint: bool = False,
        clip: float = 0.5,
    ):
        super().__init__(lr, optimizer, scheduler)
        if steps < 1 or not inner_lr > 0 or not step_lr > 0 or not clamp > 0 or not offset > 0 or not clip > 0:
            raise ValueError(
                f"steps={steps}, inner_lr={inner_lr}, step_lr={step_lr}, clamp={clamp}, offset={offset}, clip={clip}: "
                "all must be positive"
            )
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch={micro_batch}: at least 1")
        self.network = field(dim=3, out=2 if objective == "two_headed" else 1, code_size=0).eval()
        self.algorithm, self.steps, self.inner_lr, self.step_lr = algorithm, steps, inner_lr, step_lr
        self.objective, self.clamp, self.context, self.offset = objective, clamp, context, offset
        self.inner = inner if objective != "two_headed" else "same"
        self.micro_batch, self.memory, self.checkpoint, self.clip = micro_batch, memory, checkpoint, clip
        if memory is not None:
            memory_limit(memory)
        self.observes = ("oriented", "points", "samples") if context == "surface" else ("samples", "oriented", "points")
        self.step_size = step_size
        self.log_sizes = nn.ParameterList()  # [K or 1, ...]
        if algorithm == "metasdf":
            tensors = list(self.network.parameters())
            shapes = {"scalar": [()], "tensor": [(len(tensors),)], "parameter": [tuple(p.shape) for p in tensors]}[step_size]
            first = steps if per_step else 1
            self.log_sizes.extend(nn.Parameter(torch.full((first, *shape), math.log(inner_lr))) for shape in shapes)
        # inner and outer log sigma of the two heads
        self.log_sigma = nn.Parameter(torch.zeros(2, 2)) if objective == "two_headed" else None
        self._fitting: dict[tuple, int] = {}  # shapes at a time that fit in memory

    # ---- data ----

    def adopt(self, data: ShapeData) -> None:
        shapes = data.prepare()
        data.require("model=metasdf", "distance")
        if self.context == "surface":
            data.require("model=metasdf with context=surface", "normals")
            data.surface_batch_points = data.batch_points // 2
        rng = np.random.default_rng(0)
        kept = data.test_shapes(8) or shapes[:8]
        self.instances = {}
        for shape in kept:
            seen = known(shape)
            shown = (
                Observation(points=seen.points, normals=seen.normals)
                if self.context == "surface"
                else Observation(samples=seen.samples, distance=seen.distance)
            )
            self.instances[shape.id] = Instance(shape.id, shape.transform, thin(shown, KEPT, rng))

    def allocate(self, ids: list[str]) -> None:
        pass

    def tasks(self, batch: ShapeBatch) -> tuple[Task, Task]:
        """Context and query of a batch; the query is all of its points."""
        assert batch.distance is not None
        query = Task(batch.points, batch.distance)
        count = batch.points.shape[1] // 2
        if self.context == "dense":
            # the first half of a batch's points lies outside, the second inside: every second point has half of both
            return Task(batch.points[:, ::2].contiguous(), batch.distance[:, ::2].contiguous()), query
        if self.context == "surface" and batch.surface is not None and batch.normals is not None:
            return Task(*level_set(batch.surface, batch.normals, self.offset)), query
        if self.context == "surface":  # a held-out batch brings no surface: the points nearest to it stand in
            chosen = (-batch.distance.abs()).topk(count, dim=1).indices
        else:
            chosen = half_space(batch.points, count)
        points = batch.points.gather(1, chosen[..., None].expand(-1, -1, batch.points.shape[-1]))
        return Task(points, batch.distance.gather(1, chosen)), query

    # ---- the two loops ----

    def train(self, mode: bool = True) -> MetaSdf:
        super().train(mode)
        self.network.eval()
        return self

    def errors(self, weights: Weights, task: Task, outer: bool = False) -> Float[Tensor, "S"]:
        """The objective of each shape: that of the inner steps, or the outer one."""
        out = call_each(self.network, weights, task.points)
        if self.log_sigma is not None:
            return two_headed(out, task.target, self.log_sigma[int(outer)]).mean(1)
        error = clamped_error(out[..., 0], task.target, self.clamp if self.objective == "clamped_l1" else math.inf)
        return (error if outer or self.inner == "same" else error.square() / (2 * self.clamp)).mean(1)

    def value_errors(self, weights: Weights, task: Task) -> Float[Tensor, "S"]:
        """The error of each shape's field itself, whatever is minimised: L1, clamped to +-`clamp`."""
        out = call_each(self.network, weights, task.points)
        value = out[..., 0] if self.log_sigma is None else signed(out)
        return (value.clamp(-self.clamp, self.clamp) - task.target.clamp(-self.clamp, self.clamp)).abs().mean(1)

    def sizes(self, steps: int) -> list[list[Tensor | float]]:
        """The step sizes of each step, one entry for each tensor of the network; steps beyond those learned go on with the
        last ones."""
        tensors = len(list(self.network.parameters()))
        if not len(self.log_sizes):
            return [[self.inner_lr] * tensors for _ in range(steps)]
        found = []
        for k in range(steps):
            rates = [log[min(k, len(log) - 1)].exp() for log in self.log_sizes]
            if self.step_size != "parameter":
                rates = list(rates[0].expand(tensors)) if self.step_size == "scalar" else list(rates[0])
            found.append(rates)
        return found

    def adapt(
        self, context: Task, steps: int | None = None, graph: bool = False, checkpointed: bool = False
    ) -> tuple[dict[str, Tensor], Float[Tensor, "K S"]]:
        """Each shape's weights after `steps` steps from theta_0, and its context loss before each of them."""
        sizes = self.sizes(self.steps if steps is None else steps)
        if not graph:
            sizes = [[r.detach() if isinstance(r, Tensor) else r for r in rates] for rates in sizes]
        start = spread(self.network, len(context.points))
        also = [] if self.log_sigma is None else [self.log_sigma]
        return descend(lambda w: self.errors(w, context), start, sizes, graph=graph, checkpointed=checkpointed, also=also)

    def meta_gradient(self, context: Task, query: Task) -> tuple[Tensor, list[Tensor]]:
        """The query loss after adaptation, summed over shapes, and what the algorithm calls its gradient, one for each of
        `self.parameters()`."""
        outer = list(self.parameters())
        if self.algorithm in ("maml", "metasdf"):
            adapted, _ = self.adapt(context, graph=True, checkpointed=self.checkpoint)
            value = self.errors(adapted, query, outer=True).sum()
            return value.detach(), list(torch.autograd.grad(value, outer, materialize_grads=True))
        adapted, _ = self.adapt(context)
        if self.algorithm == "reptile":
            moved = {name: (p.detach() - adapted[name]).sum(0) for name, p in self.network.named_parameters()}
            rest = [p for p in outer if p is self.log_sigma]
            value = self.errors(adapted, query, outer=True).sum()
            extra = torch.autograd.grad(value, rest) if rest else ()
            return value.detach(), self._in_order(moved, rest, extra)
        leaves = {name: w.detach().requires_grad_() for name, w in adapted.items()}
        rest = [p for p in outer if p is self.log_sigma]
        value = self.errors(leaves, query, outer=True).sum()
        found = torch.autograd.grad(value, [*leaves.values(), *rest])
        moved = {name: g.sum(0) for name, g in zip(leaves, found, strict=False)}
        return value.detach(), self._in_order(moved, rest, found[len(leaves) :])

    def _in_order(self, by_name: Weights, rest: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[Tensor]:
        of = {id(p): by_name[name] for name, p in self.network.named_parameters()}
        of |= {id(p): g for p, g in zip(rest, theirs, strict=True)}
        return [of[id(p)] for p in self.parameters()]

    def loss(self, batch: ShapeBatch) -> dict[str, Tensor]:
        context, query = self.tasks(batch)
        shapes = len(query.points)
        learning = torch.is_grad_enabled() and self.training
        total, gradients = torch.zeros((), device=query.points.device), None
        size = self.at_once(context, query) if learning else min(shapes, 16)
        with torch.enable_grad():
            for start in range(0, shapes, size):
                part = slice(start, start + size)
                if learning:
                    value, found = self.meta_gradient(context.part(part), query.part(part))
                    gradients = found if gradients is None else [a + b for a, b in zip(gradients, found, strict=True)]
                else:
                    value = self.errors(self.adapt(context.part(part))[0], query.part(part), outer=True).sum().detach()
                total = total + value / shapes
        if not torch.isfinite(total):
            raise NifError(
                f"the adaptation diverges: the loss after {self.steps} inner steps is not finite; "
                f"try a smaller model.inner_lr (it is {self.inner_lr:g}) or model.lr (it is {self.lr:g})"
            )
        if gradients is None:
            return {"query": total}
        # a scalar whose value is the loss and whose gradient is the one found above
        pairs = zip(self.parameters(), gradients, strict=True)
        carrier = torch.stack([(p * g).sum() for p, g in pairs]).sum() / shapes
        return {"query": total + (carrier - carrier.detach())}

    # ---- what the outer loop needs besides ----

    def at_once(self, context: Task, query: Task) -> int:
        """How many shapes are adapted together: `micro_batch`, or as many as fit. NifError where one does not."""
        n, k, shapes = context.points.shape[1], query.points.shape[1], len(query.points)
        key = (n, k, context.points.device)
        if key not in self._fitting:
            one, free = self.bytes_of_a_shape(n, k), self._budget(context.points.device)
            if one > free:
                hint = "" if self.checkpoint else ", or set model.checkpoint=true"
                raise NifError(
                    f"model.steps={self.steps}: adapting one shape with {n:,} context points takes about {_size(one)} and "
                    f"{_size(free)} may be used; lower model.steps or data.batch_points{hint}"
                )
            # on a CPU more at a time than this gains nothing
            self._fitting[key] = max(1, int((min(free, ENOUGH) if context.points.device.type == "cpu" else free) // one))
        return min(self.micro_batch or shapes, self._fitting[key], shapes)

    def _budget(self, device: torch.device) -> int:
        if self.memory is None and device.type == "cuda":
            return int(0.8 * torch.cuda.mem_get_info(device)[0])
        return memory_limit(self.memory)

    def bytes_of_a_shape(self, context_points: int, query_points: int) -> int:
        """About what an outer step keeps for one shape, from graphs of few points and steps: it grows linearly with both."""
        device, dtype = next(self.network.parameters()).device, next(self.network.parameters()).dtype

        def graph(steps: int, n: int, m: int) -> int:
            def make() -> object:
                context, query = (
                    Task(torch.zeros(1, c, 3, device=device, dtype=dtype), torch.zeros(1, c, device=device, dtype=dtype))
                    for c in (n, m)
                )
                adapted, _ = self.adapt(context, steps, graph=True)
                return self.errors(adapted, query, outer=True)

            return graph_bytes(make)

        with torch.enable_grad():
            few = {(s, n, m): graph(s, n, m) for s, n, m in ((1, 16, 16), (2, 16, 16), (2, 32, 16), (1, 32, 16), (1, 16, 32))}
        base, step = few[1, 16, 16], few[2, 16, 16] - few[1, 16, 16]
        step_point = (few[2, 32, 16] - few[1, 32, 16] - step) / 16
        query_point = (few[1, 16, 32] - base) / 16
        step_full = step + step_point * (context_points - 16)
        query_full = max(0, base - step) + query_point * (query_points - 16)
        weights = sum(p.numel() * p.element_size() for p in self.network.parameters())
        if self.algorithm in ("fomaml", "reptile"):
            return int(1.5 * max(step_full, query_full))
        if self.checkpoint:
            return int(1.5 * (max(step_full, query_full) + self.steps * weights))
        return int(1.5 * (self.steps * step_full + query_full))  # what the backward pass makes comes on top

    def parameter_groups(self) -> list[dict]:
        groups = [{"params": list(self.network.parameters()), "lr": self.lr}]
        if self.log_sigma is not None:
            groups.append({"params": [self.log_sigma], "lr": self.lr})
        if len(self.log_sizes):
            groups.append({"params": list(self.log_sizes), "lr": self.step_lr, "weight_decay": 0.0})
        return groups

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: int | float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        super().configure_gradient_clipping(optimizer, gradient_clip_val or self.clip, gradient_clip_algorithm)

    # ---- fields ----

    def field(self, id: str) -> BoundField:
        instance = self.instances.get(id)
        if instance is None or instance.observation is None:
            known_ids = ", ".join(list(self.instances)[:5])
            raise NifError(f"no instance '{id}' in this run; it has {known_ids}; nif reconstruct infers others")
        field = self.infer([instance.observation])[0].field
        assert isinstance(field, BoundField)
        return field

    def infer(
        self, observations: Sequence[Observation], *, steps: int | None = None, seed: int = 0, **options: Any
    ) -> list[Inferred]:
        """Adapt to all observations together. `steps` may be any number (0: theta_0 itself)."""
        if options:
            raise NifError(f"model=metasdf has no option '{next(iter(options))}' for new shapes; it has steps")
        steps = self.steps if steps is None else steps
        if steps < 0:
            raise NifError(f"steps={steps}: must be 0 or more")
        began = time.monotonic()
        task = self.task_of(observations, seed=seed)
        adapted, losses = self.adapt(task, steps)
        with torch.no_grad():
            losses = torch.cat((losses, self.errors(adapted, task)[None]))
        seconds = time.monotonic() - began
        found = []
        for row in range(len(observations)):
            curve = losses[:, row].tolist()
            if not all(math.isfinite(v) for v in curve) or (self.log_sigma is None and curve[-1] > 2 * curve[0]):
                worst = next((k for k, v in enumerate(curve) if not v < 2 * curve[0]), steps)
                raise NifError(
                    f"the adaptation diverges: the loss is {curve[worst]:.4g} after step {worst} and was {curve[0]:.4g} before; "
                    f"use fewer steps (the run was trained with {self.steps})"
                )
            state = {name: w[row].detach() for name, w in adapted.items()}
            report = {
                "loss": round(curve[-1], 7),
                "losses": [round(v, 7) for v in curve],  # before any step, and after each
                "steps": steps,
                "points": task.points.shape[1],
                "seconds": round(seconds, 3),
                "together": len(observations),
            }
            found.append(Inferred(self.bind(state), report, state))
        return found

    def bind(self, weights: Weights) -> BoundField:
        """The field of one shape's weights."""
        if self.log_sigma is None:
            return bind(self.network, params=weights, bounds=self.bounds, trust=self.clamp)
        inside = {f"network.{name}": w for name, w in weights.items()}
        return bind(Signed(self.network), params=inside, bounds=self.bounds, trust=self.clamp)

    def task_of(self, observations: Sequence[Observation], points: int = 8192, seed: int = 0) -> Task:
        """The contexts of observations, all as long as the longest: shorter ones are repeated."""
        device = next(self.network.parameters()).device
        pairs = [context_of(seen, self.observes, self.offset, points, seed) for seen in observations]
        longest = max(len(distance) for _, distance in pairs)
        where = np.stack([np.resize(p, (longest, p.shape[1])) for p, _ in pairs])
        target = np.stack([np.resize(d, longest) for _, d in pairs])
        return Task(torch.from_numpy(where).float().to(device), torch.from_numpy(target).float().to(device))


class Signed(nn.Module):
    """The two heads as one value: sign(logit) * |distance|."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, points: Float[Tensor, "S N D"], code: Tensor | None = None) -> Float[Tensor, "S N 1"]:
        return signed(self.network(points, code))[..., None]


def signed(out: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    return torch.where(out[..., 0] > 0, 1.0, -1.0) * out[..., 1].abs()


def _size(n: float) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"
