"""The loops of volume.py for a CPU, compiled by numba; what they compute is said there."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from nif_cli.compiled import compiled, threads


def composite_forward(
    given: Tensor, rgb: Tensor, t: Tensor, delta: Tensor, ray: Tensor, rays: int, opaque: float, alpha: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [R, 3], depth [R], transmittance [R], weights [N]: volume.composite_reference. `given` [N] is
    the density, or `alpha` itself."""
    out = torch.zeros(rays, 3), torch.zeros(rays), torch.ones(rays), torch.empty(len(t))
    arrays = (x.contiguous().numpy() for x in (given, rgb, t, delta))
    starts = _starts(ray.numpy(), rays)
    _composite(*arrays, starts, np.float32(opaque), alpha, *(x.numpy() for x in out), threads())
    return out


def composite_backward(
    saved: Sequence[Tensor], of: Sequence[Tensor], opaque: float, alpha: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of what was given [N] and of colour [N, 3] from those `of` the four results; `saved` is
    what went in (given, rgb, t, delta, ray) and what came out (colour, depth, transmittance, weights)."""
    given, rgb, t, delta, ray, color, _, transmittance, weights = saved
    out = torch.empty_like(given), torch.empty_like(rgb, memory_format=torch.contiguous_format)
    arrays = (x.contiguous().numpy() for x in (given, rgb, t, delta, transmittance, weights))
    grads = (x.contiguous().numpy() for x in of)
    starts = _starts(ray.numpy(), len(color))
    into = (x.numpy() for x in out)
    loop = _alpha_backward if alpha else _density_backward
    loop(*arrays, starts, *grads, np.float32(opaque), *into, threads())
    return out


def _starts(ray: np.ndarray, rays: int) -> np.ndarray:
    """Where each ray's samples begin, and the end: [R + 1]."""
    starts = np.searchsorted(ray, np.arange(rays + 1))
    if starts[0] or starts[-1] != len(ray):
        raise ValueError(f"samples of rays that are not among the {rays}")
    return starts


@compiled(parallel=True)
def _composite(given, rgb, t, delta, starts, opaque, alpha, color, depth, transmittance, weights, threads):
    rays = len(starts) - 1
    for thread in numba.prange(threads):
        for r in range(rays * thread // threads, rays * (thread + 1) // threads):
            left = np.float32(1)
            red, green, blue, far = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for n in range(starts[r], starts[r + 1]):
                if alpha:
                    stopped = given[n]
                    through = np.float32(1) - stopped
                else:
                    optical = min(given[n] * delta[n], opaque)
                    through, stopped = np.exp(-optical), -np.expm1(-optical)
                weight = left * stopped
                weights[n] = weight
                red += weight * rgb[n, 0]
                green += weight * rgb[n, 1]
                blue += weight * rgb[n, 2]
                far += weight * t[n]
                left *= through
            color[r, 0], color[r, 1], color[r, 2] = red, green, blue
            depth[r], transmittance[r] = far, left


@compiled(parallel=True)
def _density_backward(
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


@compiled(parallel=True)
def _alpha_backward(
    alpha, rgb, t, delta, transmittance, weights, starts,
    of_color, of_depth, of_transmittance, of_weights, opaque, to_alpha, to_rgb, threads,
):  # fmt: skip
    """With w_n = T_n a_n: d/d a_n is T_n (v_n - B_n), v_n what w_n is worth and B_n = a_(n+1) v_(n+1) + (1 -
    a_(n+1)) B_(n+1) what is seen behind the sample; nothing is divided by 1 - a, which may be 0."""
    rays = len(starts) - 1
    for thread in numba.prange(threads):
        for r in range(rays * thread // threads, rays * (thread + 1) // threads):
            left = np.float32(1)
            for n in range(starts[r], starts[r + 1]):
                to_alpha[n] = left  # for the second loop
                left *= np.float32(1) - alpha[n]
            behind = of_transmittance[r]
            for n in range(starts[r + 1] - 1, starts[r] - 1, -1):
                value = of_weights[n] + of_depth[r] * t[n]
                for c in range(3):
                    value += of_color[r, c] * rgb[n, c]
                    to_rgb[n, c] = weights[n] * of_color[r, c]
                to_alpha[n] *= value - behind
                behind += alpha[n] * (value - behind)
