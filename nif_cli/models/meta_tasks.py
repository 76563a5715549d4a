"""What weights are learned for that adapt to it: the signed distances of shapes, the colours of images."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.data.datamodule import Needs
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.images.folder import ImagesBatch
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.observations import known, show, thin
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.samples import Observation, PointSamples
from nif_cli.field import BoundField, BoundSignal, bind
from nif_cli.losses import clamped_error, two_headed
from nif_cli.models.inner_loop import Task, Weights, context_of, half_space, points_off_surface
from nif_cli.models.model import Instance


class ShapeTasks:
    """Signed distances in space; see MetaSdf for `objective`, `inner` and `context`. The network has `dim`
    coordinates and `out` channels; what is known at a point has the shape `target`."""

    dim, learns, target = 3, ShapeData, ()
    kept = 2048  # points of an observation that a run keeps for each of its instances

    def __init__(self, objective: str, inner: str, clamp: float, context: str, offset: float):
        self.objective, self.clamp, self.seen, self.offset = objective, clamp, context, offset
        self.inner = inner if objective != "two_headed" else "same"
        self.out = 2 if objective == "two_headed" else 1
        self.observes = (
            ("oriented", "points", "samples") if context == "surface" else ("samples", "oriented", "points")
        )

    @property
    def needs(self) -> Needs:
        if self.seen == "surface":
            return Needs("model=metasdf with context=surface", ("distance", "normals"), surface_share=0.5)
        return Needs("model=metasdf", ("distance",))

    def instances(self, data: ShapeData) -> list[Instance]:
        """Those that a run keeps: of the first 8 that are held out (or of the first 8) what is seen."""
        shapes = data.meet(self.needs)
        rng = np.random.default_rng(0)
        found = []
        for shape in data.test_shapes(8) or shapes[:8]:
            seen = show(known(shape), "oriented" if self.seen == "surface" else "samples")
            if isinstance(seen, PointSamples):
                seen = PointSamples(seen.points, seen.distance)
            found.append(Instance(shape.id, shape.transform, thin(seen, self.kept, rng)))
        return found

    def tasks(self, batch: ShapeBatch) -> tuple[Task, Task]:
        """Context and query of a batch; the query is all of its points."""
        assert batch.distance is not None
        query = Task(batch.points, batch.distance)
        count = batch.points.shape[1] // 2
        if self.seen == "dense":
            # the first half of a batch's points lies outside, the second inside: every second point has half
            # of both
            return every_second(query), query
        if self.seen == "surface" and batch.surface is not None and batch.normals is not None:
            return Task(*points_off_surface(batch.surface, batch.normals, self.offset)), query
        if self.seen == "surface":  # a held-out batch brings no surface: the points nearest to it stand in
            chosen = (-batch.distance.abs()).topk(count, dim=1).indices
        else:
            chosen = half_space(batch.points, count)
        return those(query, chosen), query

    def errors(
        self, out: Tensor, target: Tensor, outer: bool, log_sigma: Tensor | None
    ) -> Float[Tensor, "S"]:
        """What is minimised of each: by the inner steps, or the outer one."""
        if log_sigma is not None:
            return two_headed(out, target, log_sigma[int(outer)]).mean(1)
        error = clamped_error(out[..., 0], target, self.clamp if self.objective == "clamped_l1" else math.inf)
        # squared inside: the slope of |x| does not fade near 0, and steps of a fixed size would jump about it
        return (error if outer or self.inner == "same" else error.square() / (2 * self.clamp)).mean(1)

    def value_errors(self, out: Tensor, target: Tensor) -> Float[Tensor, "S"]:
        """The error of each field itself, whatever is minimised: L1, clamped to +-`clamp`."""
        value = out[..., 0] if self.out == 1 else signed(out)
        return (value.clamp(-self.clamp, self.clamp) - target.clamp(-self.clamp, self.clamp)).abs().mean(1)

    def context(self, seen: Observation, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """What is known of one, [N, D] and [N, ...], to adapt to. NifError where that is nothing."""
        return context_of(seen, self.offset, points, seed)

    def bind(self, network: nn.Module, weights: Weights, bounds: Tensor) -> BoundField:
        if self.out == 1:
            return bind(network, params=weights, bounds=bounds, truncation=self.clamp)
        inside = {f"network.{name}": w for name, w in weights.items()}
        return bind(Signed(network), params=inside, bounds=bounds, truncation=self.clamp)


class ImageTasks:
    """Colours in the plane, 0.5 + 0.5 y of the network's values y; the squared error, inside and outside
    (Tancik et al. 2021). context: dense (a random half of a batch's pixels), or partial (those in a half
    plane)."""

    dim, learns, observes = 2, ImageData, ("image",)
    kept = 8192  # an image has more to it than a shape

    def __init__(self, channels: int, context: str):
        if channels not in (1, 3, 4):
            raise ValueError(
                f"channels={channels}: 1 (grey), 3 (RGB) or 4 (RGBA), or null for those of the data"
            )
        self.out, self.target, self.seen = channels, (channels,), context

    def instances(self, data: ImageData) -> list[Instance]:
        if not data.many:
            raise NifError(
                "model=metasdf learns from many images: give data.path=<folder>; model=image learns a "
                "single one"
            )
        images = data.images()
        if self.out != data.channels:
            raise NifError(f"model.channels={self.out}: the images have {data.channels}; leave it out")
        rng = np.random.default_rng(0)
        return [
            Instance(p.id, p.transform, p.observed(self.kept, rng)) for p in data.test_images(8) or images[:8]
        ]

    def tasks(self, batch: ImagesBatch) -> tuple[Task, Task]:
        query = Task(batch.points, batch.color)
        if self.seen == "dense":
            return every_second(query), query
        return those(query, half_space(batch.points, batch.points.shape[1] // 2)), query

    def errors(
        self, out: Tensor, target: Tensor, outer: bool, log_sigma: Tensor | None
    ) -> Float[Tensor, "S"]:
        return self.value_errors(out, target)

    def value_errors(self, out: Tensor, target: Tensor) -> Float[Tensor, "S"]:
        """The mean squared error of colours."""
        return (0.5 + 0.5 * out - target).square().mean((1, 2))

    def context(self, seen: Observation, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        if (
            not isinstance(seen, PointSamples)
            or seen.colors is None
            or seen.points.shape != (len(seen.colors), 2)
            or not len(seen.colors)
        ):
            raise NifError("nothing is seen of it: this run adapts to the pixels of an image")
        if seen.colors.shape[1] != self.out:
            raise NifError(f"it has {seen.colors.shape[1]} channels, the images of this run have {self.out}")
        return seen.points, seen.colors

    def bind(self, network: nn.Module, weights: Weights, bounds: Tensor) -> BoundSignal:
        """Over all of [-1, 1]^2, or those of an image."""
        return BoundSignal(network, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), weights)


def every_second(query: Task, first: int = 0) -> Task:
    return Task(query.points[:, first::2].contiguous(), query.target[:, first::2].contiguous())


def those(query: Task, chosen: Tensor) -> Task:
    """The points of these indices [S, N]."""
    rows = torch.arange(len(chosen), device=chosen.device)[:, None]
    return Task(query.points[rows, chosen], query.target[rows, chosen])


class Signed(nn.Module):
    """The two heads as one value: sign(logit) * |distance|."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, points: Float[Tensor, "S N D"], code: Tensor | None = None) -> Float[Tensor, "S N 1"]:
        return signed(self.network(points, code))[..., None]


def signed(out: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    # not sign(): a logit of exactly 0 would put a surface where there is none
    return torch.where(out[..., 0] > 0, 1.0, -1.0) * out[..., 1].abs()


def chosen_tasks(
    objective: Literal["l1", "clamped_l1", "two_headed"],
    inner: Literal["same", "squared"],
    clamp: float,
    context: Literal["dense", "surface", "partial"],
    query: str,
    offset: float,
    channels: int | None,
) -> ShapeTasks | ImageTasks:
    """What is adapted to. ValueError for what does not go together."""
    if query == "rest" and context != "dense":
        raise ValueError(f"query=rest: of dense contexts only, not with context={context}")
    if channels is None:
        return ShapeTasks(objective, inner, clamp, context, offset)
    if context == "surface" or objective == "two_headed":
        raise ValueError(
            f"context={context}, objective={objective}: images have neither surfaces nor two heads"
        )
    return ImageTasks(channels, context)
