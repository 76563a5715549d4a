"""Codes of new shapes: what is seen of them as bounds on the field's values, and codes fitted to these
bounds, all together (the inference of DeepSDF, Park et al. 2019, section 6.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.shapes.samples import DepthView, Observation, PointSamples, Scan

Network = Callable[[Tensor, Tensor], Tensor]  # points [S, N, 3], codes [S, Z] -> [S, N, C]
FREE = 1.05  # beyond this radius nothing of a shape in the unit ball can be


@dataclass
class Bounds:
    """What an observation says of the field: low <= value(points) <= high. A known distance is both; beyond
    the clamp, as in a point that is only known to be inside or outside, one of them is infinite."""

    points: Float[Tensor, "N 3"]
    low: Float[Tensor, "N"]
    high: Float[Tensor, "N"]


def bounds_of(seen: Observation, clamp: float, rng: np.random.Generator) -> Bounds:
    """The bounds that an observation sets, for distances clamped to +-`clamp`. Oriented scans give points at
    +-0.01 along the normals too (the paper's depth completion uses such), bare ones the surface and the far
    outside. NifError if nothing is seen, or if it does not hold numbers."""
    points, low, high = [], [], []
    inf = np.inf

    def say(where: np.ndarray, least: np.ndarray | float, most: np.ndarray | float) -> None:
        points.append(where)
        low.append(np.broadcast_to(least, len(where)))
        high.append(np.broadcast_to(most, len(where)))

    if isinstance(seen, PointSamples) and seen.distance is not None:
        d = seen.distance
        say(
            seen.points,
            np.where(d <= -clamp, -inf, np.minimum(d, clamp)),
            np.where(d >= clamp, inf, np.maximum(d, -clamp)),
        )
    elif isinstance(seen, PointSamples) and seen.inside is not None:
        say(seen.points, np.where(seen.inside, 0.0, -inf), np.where(seen.inside, inf, 0.0))
    elif isinstance(seen, (Scan, DepthView)):
        say(seen.points, 0.0, 0.0)
        if seen.normals is not None:
            for offset in (0.01, 0.05):
                out = seen.points + offset * seen.normals
                # farther out another part of the surface may be nearer than where the point came from
                say(out, -offset, -offset if offset == 0.01 else 0.0)
            say(seen.points - 0.01 * seen.normals, 0.0, 0.01)  # thin parts may end before
        far = rng.standard_normal((max(64, len(seen.points) // 4), 3))
        far *= rng.uniform(FREE, 1.3, (len(far), 1)) / np.linalg.norm(far, axis=1, keepdims=True)
        say(far, -inf, -min(0.05, clamp))
    if isinstance(seen, DepthView):
        say(seen.free, -inf, 0.0)
    if not points or not sum(map(len, points)):
        raise NifError("nothing is seen of the shape: give samples, a scan or a depth image")
    where, least, most = (torch.from_numpy(np.concatenate(a).astype(np.float32)) for a in (points, low, high))
    if not torch.isfinite(where).all() or torch.isnan(least).any() or torch.isnan(most).any():
        raise NifError("the observation holds NaN or infinite values")
    return Bounds(where, least, most)


class BoundsPool:
    """The bounds of several shapes on one device, drawn from at random: half of a draw where the shape may be
    inside."""

    def __init__(self, shapes: Sequence[Bounds], device: torch.device):
        rows, begin, length = [], [], []
        start = 0
        for b in shapes:
            table = torch.cat((b.points, b.low[:, None], b.high[:, None]), 1)
            inside = b.high > 0
            parts = [table[~inside], table[inside]]
            parts = [p if len(p) else table for p in parts]
            for part in parts:
                begin.append(start)
                length.append(len(part))
                start += len(part)
            rows += parts
        self.rows = torch.cat(rows).to(device)
        self.begin, self.length = (torch.tensor(x, device=device).view(-1, 2) for x in (begin, length))

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "S N 3"], Float[Tensor, "S N 2"]]:
        """`count` points of each shape and their bounds."""
        half: Int[Tensor, "S N"] = torch.arange(count, device=self.rows.device)[None] * 2 // count
        half = half.expand(len(self.begin), -1)
        u = torch.rand(half.shape, generator=generator, device=self.rows.device)
        index = self.begin.gather(1, half) + (u * self.length.gather(1, half)).long()
        drawn = self.rows.index_select(0, index.reshape(-1)).view(*index.shape, 5)
        return drawn[..., :3].contiguous(), drawn[..., 3:]


def violation(value: Float[Tensor, "S N"], bounds: Float[Tensor, "S N 2"]) -> Float[Tensor, "S"]:
    """The mean distance of the values from their intervals, for each shape: the clamped L1 loss where
    distances are known."""
    # the nearest value that is allowed, held fixed: within the interval error and gradient are zero
    return (value - value.detach().clamp(bounds[..., 0], bounds[..., 1])).abs().mean(-1)


@dataclass
class Fit:
    codes: Float[Tensor, "S Z"]
    loss: Float[Tensor, "S"]  # of the code that is kept, on points of its own draw
    losses: Float[Tensor, "S R"]  # of all restarts
    curve: list[float]  # the mean loss along the way
    seconds: float


def fit_codes(
    network: Network,
    pool: BoundsPool,
    start: Float[Tensor, "S R Z"],
    *,
    steps: int,
    points: int,
    lr: float,
    prior: float,
    generator: torch.Generator,
) -> Fit:
    """Adam on all codes at once, `points` of each shape a step, the rate a tenth after half of the steps; of
    the R restarts of a shape the one with the least loss is kept. `prior` weighs mean(code^2)."""
    began = time.monotonic()
    shapes, restarts, size = start.shape
    codes = start.reshape(-1, size).clone()
    optimizer = torch.optim.Adam([codes], lr=lr)
    curve = []

    def gradient(part: slice, where: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
        own = codes[part].detach().requires_grad_(True)
        loss = violation(network(where[part], own)[..., 0], bounds[part])
        # of the sum, so that each code moves as if it were fitted alone, whatever else is in the batch
        (grad,) = torch.autograd.grad(loss.sum() + prior * own.square().mean(-1).sum(), own)
        return loss.detach(), grad

    with _side_by_side(len(codes), points, codes.device) as (parts, run):
        for step in range(steps):
            if step == steps // 2:
                optimizer.param_groups[0]["lr"] = lr / 10
            where, bounds = pool.draw(points, generator)
            if restarts > 1:
                where, bounds = where.repeat_interleave(restarts, 0), bounds.repeat_interleave(restarts, 0)
            losses, grads = zip(*run(partial(gradient, where=where, bounds=bounds), parts), strict=True)
            codes.grad = torch.cat(grads)
            optimizer.step()
            if step % max(1, steps // 20) == 0:
                curve.append(float(torch.cat(losses).mean()))
    with torch.no_grad():
        # judged on points of their own: by the last step's a restart may look good by chance
        where, bounds = pool.draw(max(points, 8192), generator)
        made = codes.view(shapes, restarts, size)
        losses = torch.stack(
            [violation(network(where, made[:, r])[..., 0], bounds) for r in range(restarts)], 1
        )
    if not torch.isfinite(losses).all():
        raise NifError(f"fitting the codes has diverged: try a smaller code_lr (it is {lr:g})")
    best = losses.argmin(1)
    rows = torch.arange(shapes, device=best.device)
    return Fit(made[rows, best].detach(), losses[rows, best], losses, curve, time.monotonic() - began)


@contextmanager
def _side_by_side(codes: int, points: int, device: torch.device) -> Iterator[tuple[list[slice], Callable]]:
    """How a step is cut: into parts of the codes, and what maps a function over them. A GPU takes all at
    once. On a CPU the activations of a few thousand points stay in its caches, and each thread has parts of
    its own: threads that share every product of a small network wait for each other most of the time."""
    threads = torch.get_num_threads()
    each = codes if device.type != "cpu" else max(1, 4096 // points)
    parts = [slice(k, k + each) for k in range(0, codes, each)]
    if len(parts) == 1 or threads == 1:
        yield parts, map
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        try:
            yield parts, workers.map
        finally:
            torch.set_num_threads(threads)
