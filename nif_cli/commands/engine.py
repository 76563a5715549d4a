"""Where the shapes of a command are worked on: by processes of this machine, or by a Dask cluster."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any, Protocol, runtime_checkable

from nif_cli import NifError, __version__
from nif_cli.untrusted import one_line, shown

PATIENCE = 8  # seconds for a cluster to answer


class Lost(Exception):
    """The process of one task has died, whatever else it was at."""


@runtime_checkable
class Engine(Protocol):
    def pool(self, workers: int | None, tasks: int, start: Callable[[int], None]) -> Any:
        """A context for so many tasks: (an Executor, how many of them it works on at a time: `workers`, None
        for its own number). Processes of its own call `start` first, with their number of threads."""

    def result(self, future: Any) -> Any:
        """What a finished task returned, or raised. BrokenProcessPool where its pool has died, Lost where
        only its own process."""


class Local:
    """Processes of this machine, one for each core where `workers` is not given."""

    @contextmanager
    def pool(
        self, workers: int | None, tasks: int, start: Callable[[int], None]
    ) -> Iterator[tuple[Executor, int]]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = min(workers or cores, tasks)
        threads = max(1, (os.cpu_count() or 1) // count)
        try:
            pool = ProcessPoolExecutor(count, get_context("spawn"), start, (threads,))
        except (ImportError, NotImplementedError, OSError) as error:
            raise NifError(
                f"prepare: this Python, or this machine, cannot start worker processes ({one_line(error)})"
            ) from error
        try:
            yield pool, count
        except (SystemExit, GeneratorExit):  # what is under way is not waited for; nothing of it is kept
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def result(self, future: Any) -> Any:
        return future.result()


class Dask:
    """The workers of a Dask cluster: a task whose worker dies is tried elsewhere, three times (Dask's
    allowed-failures)."""

    def __init__(self, address: str | None = None):
        if not address:
            raise ValueError("give engine.address=tcp://<host>:8786, where dask scheduler says it listens")
        self.address = address

    @contextmanager
    def pool(
        self, workers: int | None, tasks: int, start: Callable[[int], None]
    ) -> Iterator[tuple[Executor, int]]:
        try:
            from distributed import Client  # pyright: ignore
        except ImportError as error:
            raise NifError("engine=dask: pip install 'nif-cli[dask]'") from error
        where = f"engine.address={shown(self.address, 200)}"
        try:
            client: Any = Client(self.address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
            raise NifError(f"{where}: no Dask scheduler answers there ({one_line(error, 150)})") from error
        try:
            _check(client, where)
            yield client.get_executor(pure=False), workers or sum(client.nthreads().values())
        finally:
            with suppress(Exception):  # what is under way is given up; the cluster may have gone
                client.close(timeout=5)

    def result(self, future: Any) -> Any:
        from distributed import KilledWorker  # pyright: ignore
        from distributed.comm.core import CommClosedError  # pyright: ignore

        try:
            return future.result()
        except KilledWorker as error:
            raise Lost from error
        except (CancelledError, CommClosedError) as error:
            raise NifError(
                f"engine.address={shown(self.address, 200)}: the cluster has gone; finished shapes are "
                "valid, run the command again"
            ) from error


def _check(client: Any, where: str) -> None:
    """NifError for a cluster without workers, or whose workers have another nif or Python."""
    if not client.nthreads():
        raise NifError(
            f"{where}: this cluster has no workers; start some: dask worker {client.scheduler.address}"
        )
    ours = versions()
    try:
        theirs = client.run(versions)
    except Exception as error:  # whatever a worker says that cannot read it
        raise NifError(
            f"{where}: its workers cannot run nif {__version__} ({one_line(error, 150)}); install it there"
        ) from error
    for worker, found in theirs.items():
        if found != ours:
            raise NifError(f"{where}: worker {worker} has {found}, here is {ours}: install the same there")


def versions() -> str:
    """What must be the same on all machines."""
    return f"nif {__version__} on Python {'.'.join(platform.python_version_tuple()[:2])}"
