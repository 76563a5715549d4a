"""How close two images are: PSNR and SSIM as the field reports them. Images have values in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def psnr(a: Float[Tensor, "*n"], b: Float[Tensor, "*n"]) -> float:
    """-10 log10 of the mean squared difference, in dB; inf where there is none."""
    return decibels(float((a.double() - b.double()).square().mean()))


def decibels(error: float) -> float:
    """The PSNR of a mean squared error."""
    return -10 * math.log10(error) if error > 0 else math.inf


def ssim_map(
    a: Float[Tensor, "H W C"], b: Float[Tensor, "H W C"], size: int = 11, sigma: float = 1.5
) -> Float[Tensor, "h w C"]:
    """Structural similarity at each place where a `size` x `size` Gaussian window lies inside the images
    (Wang et al. 2004, eq. 13, K1 = 0.01, K2 = 0.03, the window's plain moments)."""
    if a.shape != b.shape or min(a.shape[:2]) < size:
        raise ValueError(
            f"images of {list(a.shape)} and {list(b.shape)}: both the same, and at least {size} pixels a side"
        )
    offset = torch.arange(size, dtype=torch.float64, device=a.device) - (size - 1) / 2
    window = torch.exp(-0.5 * (offset / sigma).square())
    window = window / window.sum()

    def mean(image: Tensor) -> Tensor:  # [C, H, W]
        down = torch.nn.functional.conv2d(image[:, None], window.view(1, 1, -1, 1))
        return torch.nn.functional.conv2d(down, window.view(1, 1, 1, -1))[:, 0]

    x, y = a.double().permute(2, 0, 1), b.double().permute(2, 0, 1)
    mx, my = mean(x), mean(y)
    # E[x^2] - E[x]^2 in float64: in float32 flat parts would have negative variances
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return found.permute(1, 2, 0)


def ssim(
    a: Float[Tensor, "H W C"], b: Float[Tensor, "H W C"], where: Bool[Tensor, "H W"] | None = None
) -> float:
    """The mean of `ssim_map` (11 x 11 window, sigma 1.5, valid padding), over the pixels `where` only if
    given."""
    found = ssim_map(a, b)
    if where is not None:
        margin = (a.shape[0] - found.shape[0]) // 2
        found = found[where[margin : where.shape[0] - margin, margin : where.shape[1] - margin]]
    return float(found.mean())


@dataclass(frozen=True)
class ImageMetric:
    """`of(a, b, where)` for images [H, W, C] whose sides have at least `least` pixels, of at most `most`
    pixels in all (beyond, it would take gigabytes), over the pixels `where` only if given."""

    of: Callable[[Tensor, Tensor, Tensor | None], float]
    unit: str
    least: int = 1
    most: float = math.inf


IMAGE_METRICS = {
    "psnr": ImageMetric(lambda a, b, where: psnr(a, b) if where is None else psnr(a[where], b[where]), "dB"),
    "ssim": ImageMetric(ssim, "of 1", 11, 2**24),
}


def compare_images(
    a: Float[Tensor, "H W C"], b: Float[Tensor, "H W C"], where: Bool[Tensor, "H W"] | None = None
) -> dict[str, float]:
    """Every metric that images of this size have, by name."""
    height, width = a.shape[:2]
    return {
        name: metric.of(a, b, where)
        for name, metric in IMAGE_METRICS.items()
        if min(height, width) >= metric.least and height * width <= metric.most
    }
