"""How far a loop is, for whoever waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

TELL = 15.0  # seconds between two lines, where no bar is seen
T = TypeVar("T")


def watched(items: Sequence[T], name: str, unit: str) -> Iterator[T]:
    """The items, one after the other: with a bar on a terminal, once a second has passed; elsewhere (a log)
    with a line on standard output now and then."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield from tqdm(items, desc=name, unit=f" {unit}", leave=False, delay=1)
        return
    told = time.monotonic()
    for k, item in enumerate(items):
        if time.monotonic() > told + TELL:
            told = time.monotonic()
            print(f"{name}: {k:,} of {len(items):,} {unit}s", flush=True)
        yield item
