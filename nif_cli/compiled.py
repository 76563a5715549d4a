"""Loops for a CPU, compiled by numba when they are first needed and kept in its cache. Needs numba: whoever imports this
has a plain torch version of the same to fall back on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """numba.njit of the bare function (under pytest jaxtyping has wrapped it), free of Python's lock; dividing by zero
    is what it is for arrays, not an error."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, error_model="numpy", **options)(inspect.unwrap(function))
        except RuntimeError:  # no folder to keep it in
            return numba.njit(nogil=True, error_model="numpy", **options)(inspect.unwrap(function))

    return decorate
