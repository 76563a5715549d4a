"""The loops of fields/grid_slopes.py for a CPU, compiled by numba; what they compute is said there."""

from __future__ import annotations

import numba
import numpy as np

from nif_cli.compiled import compiled, threads
from nif_cli.fields.grid_kernels import CHUNK, _arrays, _check, _place
from nif_cli.fields.grid_levels import Levels


def forward_slopes(x: np.ndarray, table: np.ndarray, levels: Levels) -> np.ndarray:
    """[N, 1 + D, L * F]."""
    _check(x, levels, len(table))
    out = np.empty((len(x), 1 + levels.dim, len(levels.rows) * table.shape[1]), table.dtype)
    sizes = (0,) * levels.dim, (0,) * table.shape[1]
    _forward(np.ascontiguousarray(x), table, *_arrays(levels, x.dtype), *sizes, out, threads())
    return out


def backward_slopes(x: np.ndarray, grad: np.ndarray, levels: Levels, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of the table, [R, F], by that of the above."""
    _check(x, levels, shape[0])
    out, touched = np.zeros(shape, grad.dtype), np.zeros(-(-shape[0] // 8), np.uint8)
    sizes = (0,) * levels.dim, (0,) * shape[1]
    arrays = _arrays(levels, x.dtype)
    _backward(np.ascontiguousarray(x), grad, *arrays, *sizes, out, touched, _workers(levels))
    return out


def backward_lazy_slopes(
    x: np.ndarray, grad: np.ndarray, levels: Levels, rows: np.ndarray, touched: np.ndarray
) -> None:
    """The same, as `grid_kernels.backward_lazy` keeps it."""
    _check(x, levels, len(rows))
    sizes = (0,) * levels.dim, (0,) * (rows.shape[1] // 4)
    arrays = _arrays(levels, x.dtype)
    _backward(np.ascontiguousarray(x), grad, *arrays, *sizes, rows, touched, _workers(levels))


def _workers(levels: Levels) -> int:
    """A level belongs to one thread, and so must the bytes that mark its rows."""
    return threads() if not any(start % 8 for start in levels.start) else 1


@compiled()
def _slopes(x, n, level, shift, scale, dims, within, slope):
    """The derivatives by x of the weights of the 2^D corners around point n on a level, [D, 2^D]; `within`
    [D] is memory."""
    for d in range(len(dims)):
        position = x[n, d] * scale[level] + shift
        within[d] = position - np.floor(position)
    for d in range(len(dims)):
        for c in range(2 ** len(dims)):
            s = scale[level] if c >> (len(dims) - 1 - d) & 1 else -scale[level]
            for e in range(len(dims)):
                if e != d:
                    s *= within[e] if c >> (len(dims) - 1 - e) & 1 else 1 - within[e]
            slope[d, c] = s


@compiled(parallel=True)
def _forward(x, table, shift, scale, resolution, rows, start, hashed, dims, features, out, threads):
    chunks = (len(x) + CHUNK - 1) // CHUNK
    for thread in numba.prange(threads):
        weight, row = np.empty(2 ** len(dims), x.dtype), np.empty(2 ** len(dims), np.int64)
        within, slope = np.empty(len(dims), x.dtype), np.empty((len(dims), 2 ** len(dims)), x.dtype)
        for chunk in range(thread, chunks, threads):
            for level in range(len(rows)):
                for n in range(chunk * CHUNK, min(len(x), (chunk + 1) * CHUNK)):
                    _place(
                        x, n, level, shift, scale, resolution, rows, start, hashed, dims, (0, 0), weight, row
                    )
                    _slopes(x, n, level, shift, scale, dims, within, slope)
                    for f in range(len(features)):
                        total = weight[0] * table[row[0], f]
                        for c in range(1, 2 ** len(dims)):
                            total += weight[c] * table[row[c], f]
                        out[n, 0, level * len(features) + f] = total
                    for d in range(len(dims)):
                        for f in range(len(features)):
                            total = slope[d, 0] * table[row[0], f]
                            for c in range(1, 2 ** len(dims)):
                                total += slope[d, c] * table[row[c], f]
                            out[n, 1 + d, level * len(features) + f] = total


@compiled(parallel=True)
def _backward(x, grad, shift, scale, resolution, rows, start, hashed, dims, features, out, touched, threads):
    for thread in numba.prange(threads):
        weight, row = np.empty(2 ** len(dims), x.dtype), np.empty(2 ** len(dims), np.int64)
        within, slope = np.empty(len(dims), x.dtype), np.empty((len(dims), 2 ** len(dims)), x.dtype)
        for level in range(thread, len(rows), threads):
            for n in range(len(x)):
                _place(x, n, level, shift, scale, resolution, rows, start, hashed, dims, (0, 0), weight, row)
                _slopes(x, n, level, shift, scale, dims, within, slope)
                for c in range(2 ** len(dims)):
                    touched[row[c] >> 3] |= np.uint8(1 << (row[c] & 7))
                    for f in range(len(features)):
                        i = level * len(features) + f
                        total = weight[c] * grad[n, 0, i]
                        for d in range(len(dims)):
                            total += slope[d, c] * grad[n, 1 + d, i]
                        out[row[c], f] += total
