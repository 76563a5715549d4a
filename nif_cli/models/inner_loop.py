"""Gradient descent on the weights of a network for many shapes at once, each with weights of its own.

Weights are tensors by name with the shapes in front, [S, ...]. A shape's loss depends on its own weights
only, so the gradient of the sum over shapes holds each shape's own gradient: nothing needs to be done shape
by shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nif_cli import NifError
from nif_cli.data.shapes.samples import DepthView, Observation, PointSamples, Scan
from nif_cli.fields.network import Network

Weights = Mapping[str, Tensor]
Loss = Callable[[Weights], Tensor]  # weights -> [S]


@dataclass
class Task:
    """What is known of S shapes: the values of their fields at N points (of images C channels)."""

    points: Float[Tensor, "S N D"]
    target: Float[Tensor, "S N *C"]

    def part(self, which: slice) -> Task:
        return Task(self.points[which], self.target[which])


def spread(network: nn.Module, shapes: int) -> dict[str, Tensor]:
    """The network's own weights, the same for each of `shapes` (nothing is copied)."""
    return {name: p.expand(shapes, *p.shape) for name, p in network.named_parameters()}


class StepSizes(nn.ParameterList):
    """Step sizes that are learned, as logarithms [K, ...], for `learned` steps or for all (1): one, one for
    each `tensor` of the network or one for each `parameter`; none of them (0) are `start`, as all are at
    first."""

    def __init__(
        self, network: nn.Module, kind: Literal["scalar", "tensor", "parameter"], learned: int, start: float
    ):
        super().__init__()
        tensors = list(network.parameters())
        self.kind, self.start, self.tensors = kind, start, len(tensors)
        shapes = {
            "scalar": [()],
            "tensor": [(len(tensors),)],
            "parameter": [tuple(p.shape) for p in tensors],
        }[kind]
        if learned:
            self.extend(nn.Parameter(torch.full((learned, *shape), math.log(start))) for shape in shapes)

    def sizes(self, steps: int) -> list[list[Tensor | float]]:
        """Of each step, one entry for each tensor of the network; steps beyond those learned go on with the
        last ones."""
        if not len(self):
            return [[self.start] * self.tensors for _ in range(steps)]
        found = []
        for k in range(steps):
            # learned as logarithms a size stays positive, and moves by factors, as it is searched by hand
            rates = [log[min(k, len(log) - 1)].exp() for log in self]
            if self.kind != "parameter":
                rates = list(rates[0].expand(self.tensors)) if self.kind == "scalar" else list(rates[0])
            found.append(rates)
        return found


def call_each(network: Network, weights: Weights, points: Float[Tensor, "S N D"]) -> Float[Tensor, "S N C"]:
    """Each shape's points through the network with that shape's weights. Networks that take stacked weights
    (`stacks`) do it in one batched product a layer; any other goes through vmap, which costs about a third
    more."""
    if network.stacks:
        return functional_call(network, dict(weights), (points, None))
    return vmap(lambda w, x: functional_call(network, w, (x[None], None))[0])(dict(weights), points)


def descend(
    loss: Loss,
    weights: Weights,
    sizes: Sequence[Sequence[Tensor | float]],
    *,
    graph: bool = False,
    checkpointed: bool = False,
    also: Sequence[Tensor] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """len(sizes) steps w <- w - size * gradient; sizes[k] has one entry for each of the weights, which
    broadcasts to it.

    Returns the weights and the losses before each step, [K, S]. `graph`: the result can be differentiated by
    the weights and the sizes that it started from (second order, MAML: Finn et al. 2017); `checkpointed` then
    keeps only the weights of each step and computes the step anew when its gradient is wanted: the memory of
    one step, a third more time. `also` are the other parameters that `loss` depends on.
    """
    names, losses = list(weights), []
    now = list(weights.values())
    n = len(now)
    for rates in sizes:
        learned = [r for r in rates if isinstance(r, Tensor)]

        def step(*tensors: Tensor, rates: Sequence[Tensor | float] = rates) -> tuple[Tensor, ...]:
            differentiable = graph and torch.is_grad_enabled()
            with torch.enable_grad():
                w = list(tensors[:n]) if graph else [t.detach().requires_grad_() for t in tensors[:n]]
                value = loss(dict(zip(names, w, strict=True)))
                # differentiable: the outer loop sees how the step itself depends on where it began
                gradients = torch.autograd.grad(value.sum(), w, create_graph=differentiable)
            given = iter(tensors[n:])  # the learned sizes, and then `also`, which `loss` knows by itself
            by = [next(given) if isinstance(r, Tensor) else r for r in rates]
            return value.detach(), *(a - r * g for a, r, g in zip(w, by, gradients, strict=True))

        if graph and checkpointed:
            value, *now = _Recomputed.apply(step, len(now) + len(learned), *now, *learned, *also)  # type: ignore[misc]
        else:
            with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
                value, *now = step(*now, *learned)
        losses.append(value)
    empty = torch.zeros(0, now[0].shape[0], device=now[0].device)
    return dict(zip(names, now, strict=True)), torch.stack(losses) if losses else empty


class _Recomputed(torch.autograd.Function):
    """step(*tensors) of which only the tensors are kept; its first output has no gradient. Tensors after the
    first `given` are leaves that the step reaches by itself. (torch.utils.checkpoint either
    refuses torch.autograd.grad, which a step calls and is called by, or computes the step thrice.)"""

    @staticmethod
    def forward(
        ctx, step: Callable[..., tuple[Tensor, ...]], given: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.step, ctx.given = step, given
        ctx.save_for_backward(*tensors)
        value, *after = step(*tensors)
        ctx.mark_non_differentiable(value)
        return value, *after

    @staticmethod
    def backward(ctx, _: Tensor, *gradients: Tensor):  # type: ignore[override]
        inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors[: ctx.given]] + list(
            ctx.saved_tensors[ctx.given :]
        )
        with torch.enable_grad():
            after = ctx.step(*inputs)[1:]
            return None, None, *torch.autograd.grad(after, inputs, gradients, materialize_grads=True)


def adam(
    loss: Loss, weights: Weights, lr: float, steps: int, watch: Callable[[int, Weights], None]
) -> dict[str, Tensor]:
    """Plain Adam on each shape's weights (its arithmetic is by entry, so all shapes go together): what
    learned initialisations are compared with. `watch(k, weights)` is called before the first step and after
    each."""
    leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    optimizer = torch.optim.Adam(list(leaves.values()), lr)
    with torch.no_grad():
        watch(0, leaves)
    for k in range(steps):
        with torch.enable_grad():
            optimizer.zero_grad()
            loss(leaves).sum().backward()
        optimizer.step()
        with torch.no_grad():
            watch(k + 1, leaves)
    return {name: w.detach() for name, w in leaves.items()}


def first_order(
    network: nn.Module,
    adapted: Weights,
    query_loss: Callable[[Weights], Tensor],
    also: Sequence[nn.Parameter],
    reptile: bool,
) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """The query loss where the inner steps ended, and the outer gradient of each parameter without a second
    derivative. FOMAML takes the query's gradient there as that of theta_0 (MAML with the inner Hessians left
    out); Reptile the way theta_0 - theta_K itself, for which no query is asked. `also`: what the loss depends
    on besides; its gradient is a gradient for both."""
    ends = {name: w.detach().requires_grad_(not reptile) for name, w in adapted.items()}
    value = query_loss(ends)
    wanted = [*also] if reptile else [*ends.values(), *also]
    found = torch.autograd.grad(value, wanted) if wanted else ()
    if reptile:
        moved = {name: (p.detach() - adapted[name]).sum(0) for name, p in network.named_parameters()}
    else:
        moved = {name: g.sum(0) for name, g in zip(ends, found, strict=False)}
    of: dict[Tensor, Tensor] = {p: moved[name] for name, p in network.named_parameters()}
    return value.detach(), of | dict(zip(also, found[len(found) - len(also) :], strict=True))


def half_space(points: Float[Tensor, "S N D"], count: int) -> Tensor:
    """[S, count]: the indices of the points farthest along a random direction, another for each shape."""
    direction = nn.functional.normalize(torch.randn_like(points[:, :1]), dim=-1)
    return (points * direction).sum(-1).topk(count, dim=1).indices


def points_off_surface(
    surface: Float[Tensor, "*s N D"], normals: Float[Tensor, "*s N D"], offset: float
) -> tuple[Float[Tensor, "*s N D"], Float[Tensor, "*s N"]]:
    """Points of known distance from a scan with normals: every third point stays on the surface, every third
    is moved by `offset` outwards, every third inwards (as DeepSDF does with partial scans, section 6.3)."""
    move = offset * (torch.arange(surface.shape[-2], device=surface.device) % 3 - 1).to(surface)
    return surface + move[:, None] * normals, (-move).expand(surface.shape[:-1])


def context_of(seen: Observation, offset: float, points: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """[N, 3] points and [N] distances of samples or of a scan, N <= points. Of samples half are inside, as in
    training. NifError: nothing is seen, or one side of the surface only."""
    rng = np.random.default_rng(seed)
    if isinstance(seen, PointSamples) and seen.distance is not None and len(seen.points):
        inside = seen.distance > 0
        if inside.all() or not inside.any():
            side = "inside" if inside.all() else "outside"
            raise NifError(
                f"all {len(inside):,} samples are {side}: no surface lies between them; give samples "
                "on both sides"
            )
        half = max(1, min(points, len(inside)) // 2)
        both = [np.resize(rng.permutation(np.flatnonzero(s)), half) for s in (inside, ~inside)]
        chosen = np.stack(both, 1).reshape(-1)
        return seen.points[chosen], seen.distance[chosen]
    if isinstance(seen, (Scan, DepthView)) and len(seen.points):
        chosen = rng.permutation(len(seen.points))[:points]
        where = torch.from_numpy(np.ascontiguousarray(seen.points[chosen], np.float32))
        if seen.normals is None:
            return where.numpy(), np.zeros(len(where), np.float32)
        normals = torch.from_numpy(np.ascontiguousarray(seen.normals[chosen], np.float32))
        at, distance = points_off_surface(where, normals, offset)
        return at.numpy(), distance.numpy()
    if isinstance(seen, PointSamples) and len(seen.points):
        raise NifError(
            "its samples say what is inside, not how far the surface is: model=metasdf needs distances"
        )
    raise NifError(
        "nothing is seen of it: model=metasdf needs samples with distances, or points on the surface"
    )


def stacked_task(known: Sequence[tuple[np.ndarray, np.ndarray]], device: torch.device) -> Task:
    """Points and targets of several shapes, all as long as the longest: shorter ones are repeated."""
    longest = max(len(places) for places, _ in known)
    where = np.stack([np.resize(p, (longest, p.shape[1])) for p, _ in known])
    target = np.stack([np.resize(d, (longest, *d.shape[1:])) for _, d in known])
    return Task(torch.from_numpy(where).float().to(device), torch.from_numpy(target).float().to(device))


def check_descent(losses: Sequence[float], trained: int, may_grow: bool) -> None:
    """NifError where a context loss after some inner step is not finite or, unless it `may_grow`, more than
    twice that before the first. `trained`: the number of steps that the run was trained with."""
    if not all(math.isfinite(v) for v in losses) or (not may_grow and losses[-1] > 2 * losses[0]):
        worst = next((k for k, v in enumerate(losses) if not v < 2 * losses[0]), len(losses) - 1)
        raise NifError(
            f"the adaptation diverges: the loss is {losses[worst]:.4g} after step {worst} and was "
            f"{losses[0]:.4g} before; "
            f"use fewer steps (the run was trained with {trained})"
        )
