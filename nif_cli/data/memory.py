"""How much memory samples may take, and the folder where those lie that are kept on disk."""

from __future__ import annotations

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
