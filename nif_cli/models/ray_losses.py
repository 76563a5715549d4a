"""What rays should show, and how far from it they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nif_cli.data.scenes.scene import RayBatch
from nif_cli.fields.batch_norm import several_processes
from nif_cli.losses import depth_error
from nif_cli.rendering.volume import RenderedRays


def random_behind(batch: RayBatch, backgrounds: Sequence[str | None]) -> Float[Tensor, "R 3"]:
    """The background of each ray while training: that of its scene, or a random one where the data wants it
    or images are opaque, so that nothing can hide in it."""
    device = batch.colors.device
    shade = torch.rand(len(batch), 3, device=device)
    for n, background in enumerate(backgrounds):
        if background in ("white", "black"):
            here = (batch.scene == n)[:, None]
            shade = torch.where(here, 1.0 if background == "white" else 0.0, shade)
    return shade


def color_error(
    made: Float[Tensor, "R 3"], truth: Float[Tensor, "R 3"], valid: Bool[Tensor, "R"], huber: float
) -> Float[Tensor, ""]:
    """The mean squared error of the rays that count, or Huber's with its delta where `huber` is not 0."""
    each = (made - truth) ** 2
    if huber:
        each = torch.nn.functional.huber_loss(made, truth, reduction="none", delta=huber)
    each = each[valid] if not valid.all() else each
    return each.mean() if each.numel() else each.sum()  # nothing to learn from is no error


def depth_term(light: RenderedRays, batch: RayBatch, weight: float) -> dict[str, Tensor]:
    """The error of depth where the views have any: light that nothing stops comes from the far end."""
    if not weight or batch.depth is None:
        return {}
    made = light.depth + light.transmittance * batch.far
    return {"depth": weight * depth_error(made, batch.depth, batch.valid)}


def nothing(parameters: Iterable[Tensor], table: Tensor) -> Float[Tensor, ""]:
    """Zero, as a loss of rays that meet nothing: it depends on a weight (on all of them where several
    processes wait for each other's gradients), but not on a table whose gradient a CPU keeps lazily."""
    dense = [p for p in parameters if p is not table or p.device.type != "cpu"]
    few = dense[: None if several_processes() else 1]
    return torch.stack([p.flatten()[:0].sum() for p in few]).sum()
