"""What ends a command from outside ends it tidily."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ending() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does: it tidies up, and the exit code is 128 and the
    signal's number."""

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = {}
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        try:
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores
                before[number] = signal.signal(number, end)
        except ValueError:  # not the main thread
            break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
