"""train.log: what a training has said, in its run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

NAME = "train.log"


class TrainLog:
    """Keeps what is printed until there is a run, then writes it there. A disk that is full ends the log, not
    the training."""

    current: TrainLog | None = None

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._file: TextIO | None = None
        self._ended = False

    def open(self, folder: Path, command: str) -> None:
        """The run begins: what has been said so far, and from now on all else, goes to its train.log."""
        try:
            self._file = (folder / NAME).open("a", encoding="utf-8", errors="replace")
        except OSError:
            self._ended = True
            return
        waiting, self._waiting = self._waiting, []
        for text in (f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {command}\n", *waiting):
            self.add(text)

    def add(self, text: str) -> None:
        if self._ended or "\r" in text or "\x1b" in text:  # a bar that is redrawn
            return
        if self._file is None:
            self._waiting.append(text)
            return
        try:
            self._file.write("".join(c if c.isprintable() or c in "\n\t" else "?" for c in text))
            self._file.flush()
        except OSError:
            self._ended = True

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._ended = True


def note(text: str) -> None:
    """A line for the log alone."""
    if TrainLog.current is not None:
        TrainLog.current.add(f"{text}\n")


class _Both:
    """A text stream, and the log."""

    def __init__(self, stream: Any, log: TrainLog):
        self._stream, self._log = stream, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._log.add(text)
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def logged() -> Iterator[TrainLog]:
    """Within, what is printed is kept for train.log too, and what ends it is its last line."""
    out, err, before = sys.stdout, sys.stderr, TrainLog.current
    log = TrainLog.current = TrainLog()
    sys.stdout, sys.stderr = _Both(out, log), _Both(err, log)  # type: ignore[assignment]
    try:
        yield log
    except Exception as error:
        log.add(f"nif: {error}\n")
        raise
    finally:
        sys.stdout, sys.stderr, TrainLog.current = out, err, before
        log.close()
