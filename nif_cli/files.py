"""Writing files whole or not at all, checking arrays, and names that stay inside their folder."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nif_cli import NifError


class DiskError(NifError):
    """The disk says no: there is no point in going on with the next file."""


def available_memory() -> int:
    """Bytes that this machine could still give."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return 8 * 2**30


LONGEST_PART = 200  # bytes of a file's name: systems take 255, and a temporary name and a suffix are longer


def safe_name(id: str) -> str:
    """An instance id as a relative path: slashes are folders, nothing leaves the folder. NifError for one that is longer
    than a path can be."""
    if len(id) > 1000:
        raise NifError(f"an instance's id of {len(id):,} characters ({id[:20]!r}...); at most 1,000")
    return "/".join(_safe_part(part) for part in id.split("/"))


def _safe_part(part: str) -> str:
    safe = "_" if part in ("", ".", "..") else re.sub(r"[^\w.+@ -]", "_", part)
    if len(safe.encode()) > LONGEST_PART:
        safe = safe.encode()[: LONGEST_PART - 9].decode(errors="ignore")
    known = part.encode(errors="surrogatepass")
    return safe if safe == part else f"{safe}-{zlib.crc32(known):08x}"  # two ids are never one file


def write(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file whole or not at all: under a temporary name beside it, then renamed. NifError when the disk says no."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except (OSError, RuntimeError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "enforce fail" in str(error)
        what = "the disk is full" if full else getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DiskError(f"{path}: cannot be written: {what}; what was there before is untouched") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """An uncompressed npz, whole or not at all."""
    write(path, lambda temporary: np.savez(temporary, **arrays))  # type: ignore[arg-type]


def check_array(path: Path, name: str, array: np.ndarray, shape: tuple[int | None, ...], finite: bool = True) -> np.ndarray:
    """The array, if its shape is `shape` (None: any) and it holds numbers; NifError names file and array."""
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=False)):
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise NifError(f"{path}: '{name}' has shape {list(array.shape)}; it must be [{wanted}]")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise NifError(f"{path}: '{name}' is of type {array.dtype}; it must hold numbers")
    if finite and not np.isfinite(array).all():
        bad = int((~np.isfinite(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1))).any(1).sum())
        raise NifError(f"{path}: '{name}' has {bad:,} rows with NaN or infinite values; prepare the shape again")
    return array
