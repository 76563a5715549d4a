"""How much memory samples may take, the folder where those lie that are kept on disk, and memory that stays
with the process."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from pathlib import Path

from nif_cli.files import available_memory

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def cache_folder() -> Path:
    """Where nif keeps what it can make again."""
    base = os.environ.get("NIF_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "nif")
    try:
        return Path(base).expanduser()
    except RuntimeError:  # no HOME, and a user whom the system does not know: as in many containers
        return Path(tempfile.gettempdir()) / f"nif-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def memory_limit(text: str | int | None) -> int:
    """Bytes: '400MiB', '2G', a number of bytes; None is half of what is free. ValueError for anything
    else."""
    if text is None:
        return available_memory() // 2
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(text).strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 2**20:
        raise ValueError(f"memory={text}: must be a size of at least 1MiB, as 400MiB or 2GiB")
    return size


def keep_memory() -> None:
    """Ask glibc to keep freed memory. By default it gives every large tensor back to the kernel and faults it
    in anew at the next step: a third of the time of a wide network's step on a CPU, and nearly half of that
    of a scene's views."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc: nothing to ask
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**27)
