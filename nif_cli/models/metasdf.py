"""Learned initialisations: weights that become any shape, or any image, in a few gradient steps (MetaSDF,
Sitzmann et al. 2020; MAML, Finn et al. 2017; Reptile, Nichol et al. 2018; for coordinate networks Tancik et
al. 2021)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.data.memory import memory_limit
from nif_cli.data.shapes.samples import Observation
from nif_cli.field import BoundField, BoundSignal
from nif_cli.fields.network import Network
from nif_cli.metrics.image import decibels
from nif_cli.models.inner_loop import (
    StepSizes,
    Task,
    Weights,
    call_each,
    check_descent,
    descend,
    first_order,
    spread,
    stacked_task,
)
from nif_cli.models.inner_memory import linear_bytes, shapes_that_fit
from nif_cli.models.meta_tasks import ShapeTasks, chosen_tasks, every_second
from nif_cli.models.model import Inferred, Model


class MetaSdf(Model):
    """theta_0 (the network's own weights) is learned so that `steps` gradient steps on what is seen of a
    shape (the context) make its field; the loss is that of all points (the query) after these steps.

    algorithm: maml differentiates through the steps (second order); fomaml takes the gradient where the steps
    end; reptile moves towards where they end; metasdf is maml with learned step sizes: one
    (`step_size=scalar`), one for each `tensor` or each `parameter`, the same for all steps or not
    (`per_step`). Step sizes start at `inner_lr`; they are learned as logarithms at rate `step_lr`.

    objective: l1, clamped_l1 (to +-`clamp`), or two_headed (the network has two channels: a sign logit and an
    unsigned distance). The inner steps minimise the same, or (`inner=squared`) half the squared error over
    `clamp`: its gradient fades where a point is met, so that few steps of a fixed size come closer. context:
    dense (half of a batch's points), surface (points and normals), partial (those in a half space). query:
    all of a batch's points, as published, or (of dense contexts) the rest: with hundreds of points in place
    of the published 12,000, weights are learned otherwise that meet the context's own points and little
    between them.

    With `channels` (filled in by nif train, from the data) it learns images, by the squared error of their
    colours.

    `micro_batch` shapes at a time are adapted, by default as many as `memory` holds; `checkpoint` keeps one
    inner step's graph at a time. Dropout is off: the steps are few and must not be noisy.
    """

    def __init__(
        self,
        field: Callable[..., Network],
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
        query: Literal["all", "rest"] = "all",
        offset: float = 0.01,
        micro_batch: int | None = None,
        memory: str | int | None = None,
        checkpoint: bool = False,
        clip: float = 0.5,
        channels: int | None = None,
    ):
        super().__init__(lr, optimizer, scheduler)
        if not all(v > 0 for v in (steps, inner_lr, step_lr, clamp, offset, clip)):
            raise ValueError(
                f"steps={steps}, inner_lr={inner_lr}, step_lr={step_lr}, clamp={clamp}, offset={offset}, "
                f"clip={clip}: all must be positive"
            )
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch={micro_batch}: at least 1")
        self.query = query
        self.subject = chosen_tasks(objective, inner, clamp, context, query, offset, channels)
        self.learns, self.observes = self.subject.learns, self.subject.observes
        self.network = field(dim=self.subject.dim, out=self.subject.out, code_size=0).eval()
        self.algorithm, self.steps, self.clamp = algorithm, steps, clamp
        self.inner_lr, self.step_lr = inner_lr, step_lr
        self.micro_batch, self.memory, self.checkpoint, self.clip = micro_batch, memory, checkpoint, clip
        if memory is not None:
            memory_limit(memory)
        learned = steps if per_step else 1
        self.log_sizes = StepSizes(
            self.network, step_size, learned if algorithm == "metasdf" else 0, inner_lr
        )
        # inner and outer log sigma of the two heads
        self.log_sigma = nn.Parameter(torch.zeros(2, 2)) if objective == "two_headed" else None
        self._fitting: dict[tuple, int] = {}  # shapes at a time that fit in memory

    # ---- data ----

    def attach_data(self, data: Any) -> None:
        self.instances = {instance.id: instance for instance in self.subject.instances(data)}

    def allocate(self, ids: list[str]) -> None:
        pass

    def tasks(self, batch: Any) -> tuple[Task, Task]:
        """Context and query of a batch: all of its points, or those that are not in the context."""
        context, query = self.subject.tasks(batch)
        return context, every_second(query, 1) if self.query == "rest" else query

    # ---- the two loops ----

    def train(self, mode: bool = True) -> MetaSdf:
        super().train(mode)
        self.network.eval()
        return self

    def errors(self, weights: Weights, task: Task, outer: bool = False) -> Float[Tensor, "S"]:
        """The objective of each shape: that of the inner steps, or the outer one."""
        return self.subject.errors(
            call_each(self.network, weights, task.points), task.target, outer, self.log_sigma
        )

    def value_errors(self, weights: Weights, task: Task) -> Float[Tensor, "S"]:
        """The error of each shape's field itself, whatever is minimised."""
        return self.subject.value_errors(call_each(self.network, weights, task.points), task.target)

    def adapt(
        self, context: Task, steps: int | None = None, graph: bool = False, checkpointed: bool = False
    ) -> tuple[dict[str, Tensor], Float[Tensor, "K S"]]:
        """Each shape's weights after `steps` steps from theta_0, and its context loss before each of them."""
        sizes = self.log_sizes.sizes(self.steps if steps is None else steps)
        if not graph:
            sizes = [[r.detach() if isinstance(r, Tensor) else r for r in rates] for rates in sizes]
        start = spread(self.network, len(context.points))
        also = [] if self.log_sigma is None else [self.log_sigma]
        return descend(
            lambda w: self.errors(w, context), start, sizes, graph=graph, checkpointed=checkpointed, also=also
        )

    def meta_gradient(self, context: Task, query: Task) -> tuple[Tensor, list[Tensor]]:
        """The query loss after adaptation, summed over shapes, and what the algorithm calls its gradient, one
        for each of `self.parameters()`."""
        outer = list(self.parameters())

        def query_loss(weights: Weights) -> Tensor:
            return self.errors(weights, query, outer=True).sum()

        if self.algorithm in ("maml", "metasdf"):
            adapted, _ = self.adapt(context, graph=True, checkpointed=self.checkpoint)
            value = query_loss(adapted)
            return value.detach(), list(torch.autograd.grad(value, outer, materialize_grads=True))
        adapted, _ = self.adapt(context)
        also = [p for p in outer if p is self.log_sigma]
        value, found = first_order(self.network, adapted, query_loss, also, self.algorithm == "reptile")
        return value, [found[p] for p in outer]

    def loss(self, batch: Any) -> dict[str, Tensor]:
        context, query = self.tasks(batch)
        shapes = len(query.points)
        learning = torch.is_grad_enabled() and self.training
        total, gradients = torch.zeros((), device=query.points.device), None
        size = self.at_once(context, query) if learning else min(shapes, 16)
        with torch.enable_grad():
            for start in range(0, shapes, size):
                seen, asked = (t.part(slice(start, start + size)) for t in (context, query))
                if learning:
                    value, found = self.meta_gradient(seen, asked)
                    before = gradients or [0.0] * len(found)
                    gradients = [a + b for a, b in zip(before, found, strict=True)]
                else:
                    value = self.errors(self.adapt(seen)[0], asked, outer=True).sum().detach()
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
        """How many shapes are adapted together: `micro_batch`, or as many as fit. NifError where one does
        not."""
        n, k, shapes = context.points.shape[1], query.points.shape[1], len(query.points)
        key = (n, k, context.points.device)
        if key not in self._fitting:
            one, device = self.bytes_of_a_shape(n, k), context.points.device
            self._fitting[key] = shapes_that_fit(one, self.memory, device, n, self.steps, self.checkpoint)
        return min(self.micro_batch or shapes, self._fitting[key], shapes)

    def bytes_of_a_shape(self, context_points: int, query_points: int) -> int:
        """About what an outer step keeps for one shape."""
        like, dim, target = next(self.network.parameters()), self.subject.dim, self.subject.target

        def make(steps: int, n: int, m: int) -> object:
            context, query = (Task(like.new_zeros(1, c, dim), like.new_zeros(1, c, *target)) for c in (n, m))
            adapted, _ = self.adapt(context, steps, graph=True)
            return self.errors(adapted, query, outer=True)

        step_full, query_full = linear_bytes(make, context_points, query_points)
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

    # ---- fields ----

    def final_metrics(self, data: Any) -> dict[str, float]:
        """Of images the PSNR at one half of the pixels that the run has kept, once adapted to the other
        half."""
        if isinstance(self.subject, ShapeTasks):
            return {}
        kept = self.task_of([i.observation for i in self.instances.values() if i.observation])
        unseen = Task(kept.points[:, 1::2], kept.target[:, 1::2])
        with torch.no_grad():
            errors = self.value_errors(self.adapt(every_second(kept))[0], unseen)
        return {"psnr": float(np.mean([decibels(e) for e in errors.tolist()]))}

    def field(self, id: str) -> BoundField | BoundSignal:
        instance = self.instances.get(id)
        if instance is None or instance.observation is None:
            known_ids = ", ".join(list(self.instances)[:5])
            raise NifError(
                f"no instance '{id}' in this run; it has {known_ids}; nif reconstruct infers others"
            )
        return self.infer([instance.observation])[0].field  # type: ignore[return-value]

    def infer(
        self, observations: Sequence[Observation], *, steps: int | None = None, seed: int = 0, **options: Any
    ) -> list[Inferred]:
        """Adapt to all observations together. `steps` may be any number (0: theta_0 itself)."""
        if options:
            raise NifError(
                f"model=metasdf has no option '{next(iter(options))}' for new shapes; it has steps"
            )
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
            check_descent(curve, self.steps, may_grow=self.log_sigma is not None)
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

    def bind(self, weights: Weights) -> BoundField | BoundSignal:
        """The field of one shape's weights."""
        return self.subject.bind(self.network, weights, self.bounds)

    def task_of(self, observations: Sequence[Observation], points: int = 8192, seed: int = 0) -> Task:
        """The contexts of observations, all as long as the longest: shorter ones are repeated."""
        known = [self.subject.context(seen, points, seed) for seen in observations]
        return stacked_task(known, next(self.network.parameters()).device)
