"""Small files and folders, read so that one which is damaged, gone meanwhile or a pipe stops nobody: what
cannot be read counts as empty."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from nif_cli.untrusted import shown

LARGEST = 2**21  # bytes of a small file


def read_text(path: Path, most: int = LARGEST) -> str | None:
    """The text of a small regular file; None for any other (a pipe would be waited for)."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(number, "rb") as file:
            content = file.read(most + 1)
        return content.decode("utf-8", "replace") if len(content) <= most else None
    except (OSError, ValueError):
        return None


def read_small(path: Path) -> Any:
    """What a small JSON file holds; None where it cannot be read. Not `untrusted.read_json`: one damaged run
    ends no list, and ten thousand are read."""
    text = read_text(path)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def last_row(path: Path) -> dict[str, float]:
    """For each column of a CSV of numbers the last that stands there, of the file's last rows."""
    try:
        with open(path, "rb") as file:
            columns = file.readline(2**16).decode("utf-8", "replace").strip().split(",")
            file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - 2**14))
            rows = file.read(2**14).decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for row in rows:
        cells = row.split(",")
        for name, cell in zip(columns, cells, strict=True) if len(cells) == len(columns) else ():
            try:
                found[shown(name)] = float(cell)
            except ValueError:
                continue
    return {k: v for k, v in found.items() if math.isfinite(v)}


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; links are not followed."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # taken away meanwhile, or not ours to read
            continue
    return total


def entries_of(folder: str | Path) -> dict[str, bool]:
    """The names in a folder and whether each is a folder itself (links are not); empty if it cannot be
    read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        return {}


def bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def is_whole_zip(path: Path) -> bool:
    """Whether a file ends as a zip does; older torch files, which are none, count as whole."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            if start[:2] != b"PK":
                return len(start) == 4 and start != b"\0\0\0\0"
            file.seek(max(0, os.fstat(file.fileno()).st_size - 22))
            return file.read(4) == b"PK\5\6"
    except OSError:
        return False
