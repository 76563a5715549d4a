"""What ends a command from outside ends it tidily."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
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


def end_jobs_too(patience: float = 20.0) -> None:
    """From now on SIGTERM and SIGHUP end the jobs of a sweep in processes of their own first, which save what
    they have within `patience` seconds, and then this one."""

    def end(number: int, frame: Any) -> None:
        jobs = multiprocessing.active_children()
        for job in jobs:
            job.terminate()
        until = time.monotonic() + patience
        for job in jobs:
            job.join(max(0.0, until - time.monotonic()))
        for job in jobs:
            if job.is_alive() and job.pid:  # joblib's have no kill()
                os.kill(job.pid, signal.SIGKILL)
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        try:
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores
                signal.signal(number, end)
        except ValueError:  # not the main thread
            return
