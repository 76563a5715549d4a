"""The loops of fields/grid_lookup.py and fields/lazy_gradient.py for a CPU, compiled by numba when they are
first needed (and kept in its cache). `grid_lookup.encode_reference` says what they compute."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from nif_cli.compiled import compiled, threads

if TYPE_CHECKING:
    from nif_cli.fields.grid_levels import Levels

CHUNK = 1024  # points that a thread takes at a time: their features stay in its cache


def forward(x: np.ndarray, table: np.ndarray, levels: Levels) -> np.ndarray:
    """[N, L * F]."""
    _check(x, levels, len(table))
    out = np.empty((len(x), len(levels.rows) * table.shape[1]), table.dtype)
    sizes = (0,) * levels.dim, (0,) * levels.taps, (0,) * table.shape[1]
    _forward(np.ascontiguousarray(x), table, *_arrays(levels, x.dtype), *sizes, out, threads())
    return out


def backward(x: np.ndarray, grad: np.ndarray, levels: Levels, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of the table, [R, F]. Each level belongs to one thread: sums have the same order every
    time."""
    _check(x, levels, shape[0])
    out = np.zeros(shape, grad.dtype)
    sizes = (0,) * levels.dim, (0,) * levels.taps, (0,) * shape[1]
    _backward(np.ascontiguousarray(x), grad, *_arrays(levels, x.dtype), *sizes, out, threads())
    return out


def backward_lazy(
    x: np.ndarray, grad: np.ndarray, levels: Levels, rows: np.ndarray, touched: np.ndarray
) -> None:
    """The same added to the first quarter of `rows` [R, 4 F], and the rows marked that it touches: a bit for
    each, in `touched` [ceil(R / 8)] uint8, the lowest for the first."""
    _check(x, levels, len(rows))
    sizes = (0,) * levels.dim, (0,) * levels.taps, (0,) * (rows.shape[1] // 4)
    arrays = _arrays(levels, x.dtype)
    # a level belongs to one thread, and so must the bytes that mark its rows
    count = threads() if not any(start % 8 for start in levels.start) else 1
    _backward_lazy(np.ascontiguousarray(x), grad, *arrays, *sizes, rows, touched, count)


def clear(rows: np.ndarray, touched: np.ndarray) -> None:
    """The gradient zero again, in the touched rows."""
    _clear(rows, touched, threads())


def adam_rows(
    table: np.ndarray,
    rows: np.ndarray,
    touched: np.ndarray,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    decay: float,
) -> None:
    """A step of Adam for the touched rows; the others stay where they are. The quarters of `rows` [R, 4 F]
    are gradient, its mean and that of its square, and nothing: all that a row needs is in one line of the
    cache. The gradient is zero afterwards. `step` counts from 1, for the bias correction."""
    beta1, beta2 = betas
    numbers = (
        lr / (1 - beta1**step),
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        eps,
        (1 - beta2**step) ** -0.5,
        decay,
    )
    sizes = (0,) * table.shape[1]
    _adam(table, rows, touched, sizes, *(table.dtype.type(n) for n in numbers), threads())


def _check(x: np.ndarray, levels: Levels, rows: int) -> None:
    """The loops do not look where they read and write."""
    if x.shape[1] != levels.dim or sum(levels.rows) > rows:
        raise ValueError(
            f"points of {x.shape[1]} coordinates and {rows} rows: these levels have {levels.dim}, "
            f"{sum(levels.rows)}"
        )


@functools.lru_cache(64)
def _arrays(levels: Levels, dtype: np.dtype) -> tuple[Any, ...]:
    columns = (levels.resolution, levels.rows, levels.start, levels.hashed)
    return dtype.type(levels.shift), np.array(levels.scale, dtype), *(np.array(c, np.int64) for c in columns)


# dims, taps and features are tuples whose lengths (D, 2 or 4, F) are part of their type: the compiler unrolls
# what runs over them


@compiled()
def _place(x, n, level, shift, scale, resolution, rows, start, hashed, dims, taps, weight, row):
    """The weights and rows of the taps^D corners around point n on a level."""
    size = rows[level]
    for c in range(len(taps) ** len(dims)):
        w = x[n, 0] * 0 + 1
        linear, mixed, stride = 0, 0, 1
        for d in range(len(dims)):
            position = x[n, d] * scale[level] + shift
            cell = np.floor(position)
            within = position - cell
            if len(taps) == 2:
                up = c >> (len(dims) - 1 - d) & 1
                w *= within if up else 1 - within
            else:
                up = c >> (2 * (len(dims) - 1 - d)) & 3
                t = within if up == 3 or up == 1 else 1 - within
                w *= t * t * t / 6 if up == 0 or up == 3 else (3 * t * t * t - 6 * t * t + 4) / 6
            at = (np.int64(cell) if abs(cell) < 2147483648.0 else -up) + up  # NaN as an integer is anything
            linear += at * stride
            stride *= resolution[level]
            prime = 1 if d == 0 else 2654435761 if d == 1 else 805459861
            mixed ^= at * prime & 0xFFFFFFFF
        weight[c] = w
        if hashed[level]:  # then there are a power of two
            row[c] = start[level] + (mixed & (size - 1))
        else:
            linear = linear if linear < size else linear - size
            row[c] = start[level] + (linear if 0 <= linear < size else 0)


@compiled(parallel=True)
def _forward(x, table, shift, scale, resolution, rows, start, hashed, dims, taps, features, out, threads):
    chunks = (len(x) + CHUNK - 1) // CHUNK
    for thread in numba.prange(threads):
        weight, row = np.empty(len(taps) ** len(dims), x.dtype), np.empty(len(taps) ** len(dims), np.int64)
        for chunk in range(thread, chunks, threads):
            for level in range(len(rows)):
                for n in range(chunk * CHUNK, min(len(x), (chunk + 1) * CHUNK)):
                    _place(
                        x, n, level, shift, scale, resolution, rows, start, hashed, dims, taps, weight, row
                    )
                    for f in range(len(features)):
                        total = weight[0] * table[row[0], f]
                        for c in range(1, len(taps) ** len(dims)):
                            total += weight[c] * table[row[c], f]
                        out[n, level * len(features) + f] = total


@compiled(parallel=True)
def _backward(x, grad, shift, scale, resolution, rows, start, hashed, dims, taps, features, out, threads):
    for thread in numba.prange(threads):
        weight, row = np.empty(len(taps) ** len(dims), x.dtype), np.empty(len(taps) ** len(dims), np.int64)
        for level in range(thread, len(rows), threads):
            for n in range(len(x)):
                _place(x, n, level, shift, scale, resolution, rows, start, hashed, dims, taps, weight, row)
                for c in range(len(taps) ** len(dims)):
                    for f in range(len(features)):
                        out[row[c], f] += weight[c] * grad[n, level * len(features) + f]


@compiled(parallel=True)
def _backward_lazy(
    x, grad, shift, scale, resolution, rows, start, hashed, dims, taps, features, out, touched, threads
):
    for thread in numba.prange(threads):
        weight, row = np.empty(len(taps) ** len(dims), x.dtype), np.empty(len(taps) ** len(dims), np.int64)
        for level in range(thread, len(rows), threads):
            for n in range(len(x)):
                _place(x, n, level, shift, scale, resolution, rows, start, hashed, dims, taps, weight, row)
                for c in range(len(taps) ** len(dims)):
                    touched[row[c] >> 3] |= np.uint8(1 << (row[c] & 7))
                    for f in range(len(features)):
                        out[row[c], f] += weight[c] * grad[n, level * len(features) + f]


@compiled(parallel=True)
def _clear(rows, touched, threads):
    quarter = rows.shape[1] // 4
    for thread in numba.prange(threads):
        for eight in range(len(touched) * thread // threads, len(touched) * (thread + 1) // threads):
            if touched[eight]:
                touched[eight] = 0
                rows[eight * 8 : eight * 8 + 8, :quarter] = 0


@compiled(parallel=True)
def _adam(table, rows, touched, features, rate, beta1, new1, beta2, new2, eps, correction, decay, threads):
    mean, square = len(features), 2 * len(features)
    chunks = (len(touched) + CHUNK - 1) // CHUNK
    for thread in numba.prange(threads):
        chosen, sink = np.empty(8 * CHUNK, np.int64), np.zeros(1, table.dtype)
        for chunk in range(thread, chunks, threads):
            # first which; then one number of each is read, which fetches them all together; that halves the
            # time
            count = 0
            for eight in range(chunk * CHUNK, min(len(touched), (chunk + 1) * CHUNK)):
                marks = np.int64(touched[eight])
                if marks:
                    touched[eight] = 0
                    for bit in range(8):
                        chosen[count] = eight * 8 + bit
                        count += marks >> bit & 1
            for n in range(count):
                sink[0] += rows[chosen[n], 0] + table[chosen[n], 0]
            for n in range(count):
                row = chosen[n]
                for f in range(len(features)):
                    g = rows[row, f] + decay * table[row, f]
                    m = beta1 * rows[row, mean + f] + new1 * g
                    v = beta2 * rows[row, square + f] + new2 * g * g
                    rows[row, f], rows[row, mean + f], rows[row, square + f] = 0, m, v
                    # both bias corrections stand in `rate` and `correction`: once a step, not once a row
                    table[row, f] -= rate * m / (np.sqrt(v) * correction + eps)
