"""The loops of occupancy_grid.py for a CPU, compiled by numba; what they compute is said there."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from nif_cli.compiled import compiled, threads


def march(
    cells: tuple[Tensor, Tensor],
    lines: tuple[Tensor, ...],
    taken: Tensor,
    alive: Tensor,
    limit: int,
    step: float,
    cone: float,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The next samples of some rays of a march (ray [N], t [N], delta [N]), and which of them go on.

    `cells`: which are occupied, and which blocks of them; `lines`: of all rays origins, directions, speed,
    first and far.
    """
    count = len(alive)
    t, delta = np.empty((count, limit), np.float32), np.empty((count, limit), np.float32)
    found, going = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    growth = math.log1p(cone) if cone else 0.0
    workers = threads()
    _march(
        *(x.numpy() for x in cells), *(x.contiguous().numpy() for x in lines), taken.numpy(), alive.numpy(),
        np.float32(step), np.float32(cone), np.float32(growth),
        t, delta, found, going, workers,
    )  # fmt: skip
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(found, out=starts[1:])
    total = int(starts[-1])
    packed = torch.empty(total, dtype=torch.int64), torch.empty(total), torch.empty(total)
    _pack(t, delta, starts, *(p.numpy() for p in packed), workers)
    return packed, torch.from_numpy(going)


@compiled()
def _warp(distance, step, cone, growth):
    even = distance / step
    if cone == 0 or even * cone < 1:
        return even
    return 1 / cone + np.log(even * cone) / growth


@compiled()
def _unwarp(s, step, cone, growth):
    if cone == 0 or s * cone < 1:
        return s * step
    return np.exp((s - 1 / cone) * growth) / cone * step


@compiled()
def _cell(unit, side):
    place = unit * side
    return min(int(place), side - 1) if place > 0 else 0


@compiled()
def _leave(unit, index, direction, side):
    """How far it is to the end of a cell, along one axis."""
    if direction > 0:
        return ((index + 1) / side - unit) / direction
    if direction < 0:
        return (index / side - unit) / direction
    return np.float32(1e30)


@compiled(parallel=True)
def _march(
    fine, coarse, origins, directions, speed, first, far, taken, alive, step, cone, growth,
    t_out, delta_out, found, going, threads,
):  # fmt: skip
    cascades, cells, blocks = fine.shape[0], fine.shape[1], coarse.shape[1]
    each, limit = cells // blocks, t_out.shape[1]
    half = np.float32(0.5)
    for thread in numba.prange(threads):
        for a in range(len(alive) * thread // threads, len(alive) * (thread + 1) // threads):
            ray = alive[a]
            number, k = 0, taken[ray]
            ox, oy, oz = origins[ray, 0], origins[ray, 1], origins[ray, 2]
            dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
            start, end, pace = first[ray], far[ray], np.float32(1) / speed[ray]
            while True:
                s = start + np.float32(k)
                t = _unwarp(s, step, cone, growth) * pace
                if not t < end:
                    break
                if number == limit:
                    going[a] = True
                    break
                x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
                size, cascade, extent = max(abs(x), abs(y), abs(z)), 0, np.float32(1)
                while size > extent and cascade < cascades:
                    cascade += 1
                    extent *= np.float32(2)
                if cascade == cascades:  # only by rounding: the ray is inside up to far
                    k += 1
                    continue
                to_unit = half / extent
                ux, uy, uz = x * to_unit + half, y * to_unit + half, z * to_unit + half
                i, j, m = _cell(ux, cells), _cell(uy, cells), _cell(uz, cells)
                if fine[cascade, i, j, m]:
                    t_out[a, number] = t
                    delta_out[a, number] = _unwarp(s + half, step, cone, growth) - _unwarp(
                        s - half, step, cone, growth
                    )
                    number += 1
                    k += 1
                    continue
                # on to where the ray leaves the cell, or the block of cells, or the first step beyond
                side = np.float32(cells)
                i8, j8, m8 = i // each, j // each, m // each
                if coarse[cascade, i8, j8, m8] == 0:
                    i, j, m, side = i8, j8, m8, np.float32(blocks)
                leave = min(_leave(ux, i, dx, side), _leave(uy, j, dy, side), _leave(uz, m, dz, side))
                beyond = _warp((t + max(leave, np.float32(0)) * 2 * extent) * speed[ray], step, cone, growth)
                # less a thousandth: rounding must not leave out the step that begins at the border
                ahead = np.ceil(beyond - start - np.float32(1e-3))
                if not ahead < 1e9:  # there is no end to it: nothing is ahead, and no integer says where
                    break
                k = max(k + 1, int(ahead))
            taken[ray] = k
            found[a] = number


@compiled(parallel=True)
def _pack(t, delta, starts, ray_out, t_out, delta_out, threads):
    rays = len(starts) - 1
    for thread in numba.prange(threads):
        for r in range(rays * thread // threads, rays * (thread + 1) // threads):
            for n in range(starts[r + 1] - starts[r]):
                ray_out[starts[r] + n] = r
                t_out[starts[r] + n] = t[r, n]
                delta_out[starts[r] + n] = delta[r, n]
