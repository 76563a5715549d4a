"""Loops for a CPU, compiled by numba when they are first needed and kept in its cache. Each has a plain torch
version beside it, for GPUs, and to be compared with.

Within a parallel loop numba promises the code generator that no two of the arrays it names share memory. So
none may be a view of another one that is written, also of another type; and what one thread writes no other
thread reads or writes. tests/test_compiled.py compares every loop with its plain version, as several code
generators make it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba
import torch


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """numba.njit of the bare function (under pytest jaxtyping has wrapped it), free of Python's lock;
    dividing by zero is what it is for arrays, not an error."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, error_model="numpy", **options)(
                inspect.unwrap(function)
            )
        except RuntimeError:  # no folder to keep it in
            return numba.njit(nogil=True, error_model="numpy", **options)(inspect.unwrap(function))

    return decorate


def threads() -> int:
    """How many threads a parallel loop takes: as many as torch, whose number stays what it is. To be asked
    for before each call: numba's first one sets OpenMP's number, which is torch's too, to that of all
    cores."""
    count = torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # pyright: ignore
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    return count
