"""Standard output as the commands see it: no terminal escapes out of names, and an output that is full or
closed does not end the work that was asked for."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Printable:
    """A text stream in which control characters, and characters that change a line's direction, become '?'.
    The first error of the stream is kept; what is written after it is dropped."""

    def __init__(self, stream: Any):
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self._stream.write(printable(text))
            except UnicodeEncodeError:  # a terminal without our letters
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
            except OSError as error:
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """What the stream still holds goes nowhere: Python would try again at its end."""
        self.error = error
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError, AttributeError):  # no file behind it
            pass


def printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


@contextmanager
def printing() -> Iterator[None]:
    """Within, standard output is Printable."""
    before = sys.stdout
    if before is None or isinstance(before, Printable):  # closed (>&-), or a job of a sweep in this process
        yield
        return
    sys.stdout = Printable(before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


def lost(stream: Any) -> str | None:
    """What became of an output that could not be written; None where all went well, or where its reader has
    gone (`| head`) and nobody waits for it."""
    error = getattr(stream, "error", None)
    if error is None or error.errno == errno.EPIPE:
        return None
    return f"standard output: cannot be written: {error.strerror}"


class Waiting:
    """A line on the terminal that says what is waited for, until it is done; nothing where nobody looks."""

    def __init__(self, text: str):
        self.shown = bool(text) and sys.stderr is not None and sys.stderr.isatty()
        if self.shown:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self.shown = False
