"""The loops of volume.py for a CPU, compiled by numba; what they compute is said there."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from nif_cli.compiled import compiled, threads


def composite(
    density: Tensor, rgb: Tensor, t: Tensor, delta: Tensor, ray: Tensor, rays: int, opaque: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [R, 3], depth [R], transmittance [R], weights [N]: volume.reference."""
    out = torch.zeros(rays, 3), torch.zeros(rays), torch.ones(rays), torch.empty(len(t))
    given = (x.contiguous().numpy() for x in (density, rgb, t, delta))
    _composite(*given, _starts(ray.numpy(), rays), np.float32(opaque), *(x.numpy() for x in out), threads())
    return out


def composite_backward(saved: Sequence[Tensor], of: Sequence[Tensor], opaque: float) -> tuple[Tensor, Tensor]:
    """The gradients of density [N] and colour [N, 3] from those `of` the four results; `saved` is what went
    in (density, rgb, t, delta, ray) and what came out (colour, depth, transmittance, weights)."""
    density, rgb, t, delta, ray, color, _, transmittance, weights = saved
    out = torch.empty_like(density), torch.empty_like(rgb, memory_format=torch.contiguous_format)
    given = (x.contiguous().numpy() for x in (density, rgb, t, delta, transmittance, weights))
    grads = (x.contiguous().numpy() for x in of)
    starts = _starts(ray.numpy(), len(color))
    _composite_backward(*given, starts, *grads, np.float32(opaque), *(x.numpy() for x in out), threads())
    return out


def _starts(ray: np.ndarray, rays: int) -> np.ndarray:
    """Where each ray's samples begin, and the end: [R + 1]."""
    starts = np.searchsorted(ray, np.arange(rays + 1))
    if starts[0] or starts[-1] != len(ray):
        raise ValueError(f"samples of rays that are not among the {rays}")
    return starts


@compiled(parallel=True)
def _composite(density, rgb, t, delta, starts, opaque, color, depth, transmittance, weights, threads):
    rays = len(starts) - 1
    for thread in numba.prange(threads):
        for r in range(rays * thread // threads, rays * (thread + 1) // threads):
            left = np.float32(1)
            red, green, blue, far = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for n in range(starts[r], starts[r + 1]):
                optical = min(density[n] * delta[n], opaque)
                through = np.exp(-optical)
                weight = left * -np.expm1(-optical)
                weights[n] = weight
                red += weight * rgb[n, 0]
                green += weight * rgb[n, 1]
                blue += weight * rgb[n, 2]
                far += weight * t[n]
                left *= through
            color[r, 0], color[r, 1], color[r, 2] = red, green, blue
            depth[r], transmittance[r] = far, left


@compiled(parallel=True)
def _composite_backward(
    density, rgb, t, delta, transmittance, weights, starts,
    of_color, of_depth, of_transmittance, of_weights, opaque, to_density, to_rgb, threads,
):  # fmt: skip
    """With w_n = T_n (1 - exp(-o_n)): d/d o_n of sum_m w_m c_m + B T_end is T_(n+1) c_n - sum_(m>n) w_m c_m -
    B T_end."""
    rays = len(starts) - 1
    for thread in numba.prange(threads):
        for r in range(rays * thread // threads, rays * (thread + 1) // threads):
            behind = of_transmittance[r] * transmittance[r]
            # T after sample n is that of the end divided by what lies between; from the front it loses no
            # digits
            left = np.float32(1)
            for n in range(starts[r], starts[r + 1]):
                left -= weights[n]
                to_density[n] = left  # for the second loop
            for n in range(starts[r + 1] - 1, starts[r] - 1, -1):
                after = max(to_density[n], np.float32(0))
                value = of_weights[n] + of_depth[r] * t[n]
                for c in range(3):
                    value += of_color[r, c] * rgb[n, c]
                    to_rgb[n, c] = weights[n] * of_color[r, c]
                saturated = density[n] * delta[n] >= opaque
                to_density[n] = np.float32(0) if saturated else delta[n] * (after * value - behind)
                behind += weights[n] * value
