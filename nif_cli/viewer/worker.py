"""One thread that computes for all who look: the newest wish of a kind replaces what is under way for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from nif_cli import NifError

Check = Callable[[], None]
Job = Callable[[Check], None]


class Stale(Exception):
    """Nobody waits for this job any more."""


class Worker:
    """Jobs run one at a time. A job is handed a function that it calls now and then: it raises Stale once a
    newer job of the same key waits, and runs jobs of other keys that are `urgent` in between, so that a long
    job holds up nobody. What goes wrong is handed to `failed`, as one line."""

    def __init__(self, failed: Callable[[str], None]):
        self._waiting: dict[Hashable, tuple[Job, bool]] = {}
        self._running: list[Hashable] = []
        self._condition = threading.Condition()
        self._ended = False
        self._failed = failed
        self._thread = threading.Thread(target=self._work, name="nif view", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, job: Job, urgent: bool = False) -> None:
        with self._condition:
            self._waiting.pop(key, None)
            self._waiting[key] = job, urgent
            self._condition.notify()

    def forget(self, key: Hashable) -> None:
        """What waits under this key is not wanted any more."""
        with self._condition:
            self._waiting.pop(key, None)

    def idle(self) -> bool:
        with self._condition:
            return not self._waiting and not self._running

    def end(self, timeout: float = 5.0) -> None:
        with self._condition:
            self._ended = True
            self._waiting.clear()
            self._condition.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._ended:
                    self._condition.wait()
                if self._ended:
                    return
                key = next((k for k, (_, urgent) in self._waiting.items() if urgent), None)
                key = next(iter(self._waiting)) if key is None else key
                job, _ = self._waiting.pop(key)
                self._running.append(key)
            self._do(key, job)

    def _do(self, key: Hashable, job: Job) -> None:
        def check() -> None:
            while True:
                with self._condition:
                    if self._ended or key in self._waiting:
                        raise Stale
                    other = next(
                        (k for k, (_, u) in self._waiting.items() if u and k not in self._running), None
                    )
                    if other is None:
                        return
                    urgent, _ = self._waiting.pop(other)
                    self._running.append(other)
                self._do(other, urgent)

        try:
            job(check)
        except Stale:
            pass
        except NifError as error:
            self._failed(str(error))
        except Exception as error:  # the page goes on
            self._failed(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300])
        finally:
            with self._condition:
                self._running.remove(key)
