"""How far a loop is, for whoever waits: on a terminal nothing takes two seconds in silence."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

SHOWN = 1.0  # seconds after which a bar is seen, and then drawn again
TELL = 15.0  # seconds between two lines, where no bar is seen
T = TypeVar("T")


class Bar(tqdm):
    """A bar on a terminal that is drawn each second whether or not its loop moves: tqdm's own waits for the
    end of the first item, however long that takes. Elsewhere (a log) a line on standard output now and
    then."""

    def __init__(self, total: int | None, name: str, unit: str = "", **settings: Any):
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.name, self.counted, self.kind, self.of = name, 0, unit, total
        self._over = threading.Event()
        super().__init__(
            total=total,
            desc=name,
            unit=f" {unit}",
            leave=False,
            delay=SHOWN,
            dynamic_ncols=True,
            disable=not terminal,
            **settings,
        )
        self._began = time.monotonic()
        threading.Thread(target=self._draw if terminal else self._tell, daemon=True).start()

    def update(self, n: float | None = 1) -> bool | None:
        self.counted += int(n or 0)
        return super().update(n)

    def close(self) -> None:
        self._over.set()
        super().close()

    def _draw(self) -> None:
        while not self._over.wait(SHOWN):
            with self.get_lock():
                if not self.disable:  # it has been closed
                    self.delay = 0  # it has been seen: closing it clears the line
                    self.refresh(nolock=True)

    def _tell(self) -> None:
        while not self._over.wait(TELL):
            far = f"{time.monotonic() - self._began:.0f} s"
            if self.of and self.of > 1:
                far = f"{self.counted:,} of {self.of:,} {self.kind}s"
            print(f"{self.name}: {far}", flush=True)


def watched(items: Sequence[T], name: str, unit: str) -> Iterator[T]:
    """The items, one after the other: with a bar on a terminal, once a second has passed; elsewhere (a log)
    with a line on standard output now and then."""
    if sys.stderr is not None and sys.stderr.isatty():
        with Bar(len(items), name, unit) as bar:
            for item in items:
                yield item
                bar.update()
        return
    told = time.monotonic()
    for k, item in enumerate(items):
        if time.monotonic() > told + TELL:
            told = time.monotonic()
            print(f"{name}: {k:,} of {len(items):,} {unit}s", flush=True)
        yield item


@contextmanager
def busy(name: str) -> Iterator[None]:
    """Within, something is done that has no parts to be counted: on a terminal its name and the seconds so
    far. Nothing may be printed meanwhile."""
    with Bar(None, name, bar_format="{desc} ... {elapsed}"):
        yield


def say(line: str) -> None:
    """A line on standard output, while a bar may be seen."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
