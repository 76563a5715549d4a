"""Writing files whole or not at all, checking arrays, and names that stay inside their folder."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from nif_cli import NifError

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked, nothing is swept
    fcntl = None  # type: ignore[assignment]

PART = ".part-"  # in the names of temporary files


class DiskError(NifError):
    """The disk says no: there is no point in going on with the next file."""


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that this machine, or the container that this process runs in, could still give. `system` is the
    root of the files that say so."""
    rooms = [_room_of_group(folder, *names) for folder, names in _memory_groups(system)]
    try:
        for line in (system / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return min([int(line.split()[1]) * 1024, *(r for r in rooms if r is not None)])
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return 8 * 2**30


def _memory_groups(system: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """The control groups that hold this process, each inside the next, with their files' names: a container
    with 4 GiB on a machine of 256 has its processes killed, whatever the machine could still give."""
    found: list[tuple[Path, tuple[str, str, str]]] = []
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            top, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # within a container the path may be that of the machine outside: its own is the top then
        inner = system / top / path.strip("/")
        own = [inner, *inner.parents] if ".." not in inner.parts else [system / top]
        found += [(folder, names) for folder in own if folder.is_relative_to(system / top)]
    return found


def _room_of_group(folder: Path, most: str, now: str, cached: str) -> int | None:
    """What a control group may still take: its limit less what it has, besides files that were only read."""
    try:
        limit, used = int((folder / most).read_text()), int((folder / now).read_text())
        stat = dict(line.split(None, 1) for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get(cached, 0)))
    except (OSError, ValueError):  # none here; or `max`: no limit
        return None


LONGEST_PART = 200  # bytes of a file's name: systems take 255, and a temporary name and a suffix are longer


def safe_name(id: str) -> str:
    """An instance id as a relative path: slashes are folders, nothing leaves the folder. NifError for one
    that is longer than a path can be."""
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
    """Write a file whole or not at all, also when the power fails: under a temporary name beside it, flushed
    to the disk, then renamed. What dead writers have left in the folder goes. NifError when the disk says
    no."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        temporary, handle = _temporary(path)
        with handle:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            _flush(temporary)
            os.replace(temporary, path)
            temporary = None
            _flush(path.parent)
    except (OSError, RuntimeError) as error:
        raise DiskError(
            f"{path}: cannot be written: {disk_says(error)}; what was there before is untouched"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def disk_says(error: BaseException) -> str:
    """Why something could not be written, in words."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "enforce fail" in str(error):
        return "the disk is full"
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def _temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside `path`, locked as long as its handle is open: nobody sweeps it while its writer
    lives."""
    while True:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{PART}", suffix=path.suffix)
        handle = os.fdopen(number, "wb")
        if lock(handle) is False or not _is_at(handle, Path(name)):  # swept before it was locked
            handle.close()
            continue
        return Path(name), handle


def _flush(path: Path) -> None:
    """What is written of a file (the names in a folder) is on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
            raise
    finally:
        os.close(number)


_swept: set[Path] = set()


def sweep(folder: Path) -> None:
    """Remove the temporary files of `folder` whose writers are dead. Once for each folder and process: it is
    for what was there before."""
    if folder in _swept or fcntl is None:
        return
    _swept.add(folder)
    for name in os.listdir(folder):
        if re.fullmatch(rf"\..+{re.escape(PART)}\w{{8}}(\..*)?", name):
            remove_if_free(folder / name, folder / name)


def remove_if_free(locked: Path, what: Path) -> bool:
    """Remove the file (or folder) `what` unless a living process holds the lock on the file `locked`."""
    try:
        if locked.is_symlink() or not locked.is_file():
            return False
        with locked.open("rb") as handle:
            if lock(handle) is not True:
                return False
            shutil.rmtree(what, ignore_errors=True) if what.is_dir() else what.unlink()
    except OSError:  # another was quicker, or it is not ours to remove
        return False
    return True


def lock(handle: IO[bytes]) -> bool | None:
    """Lock an open file until it is closed or its process ends, however it ends. False if another holds it,
    None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(handle: IO[bytes], path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(handle.fileno())
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


class Claim:
    """A folder that belongs to this process until `release`, or until the process ends, however it ends: its
    file .lock says whose it is. The folder is made if it is not there. NifError says who has it, or why it
    cannot be written to; `key` is what the user calls it ('output_dir=runs/a')."""

    def __init__(self, folder: Path, key: str, new: bool = False):
        """`new`: FileExistsError if the folder is there already."""
        self.folder, self.made = folder, [p for p in (folder, *folder.parents) if not p.exists()]
        self._handle: IO[bytes] | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=not new)
            self._lock(folder / ".lock", key)
        except FileExistsError as error:
            if new:
                raise
            raise DiskError(f"{key}: there is a file in the way ({error.filename})") from error
        except OSError as error:
            self.abandon()
            raise DiskError(f"{key}: cannot be written to: {disk_says(error)}") from error

    def _lock(self, path: Path, key: str) -> None:
        while True:
            handle = path.open("a+b", buffering=0)  # closing it writes nothing more
            if lock(handle) is False:
                handle.seek(0)
                owner = handle.read(100).decode(errors="replace").strip()
                handle.close()
                raise DiskError(
                    f"{key}: in use by another nif ({owner or 'just started'}); wait for it, or name "
                    "another folder"
                )
            if _is_at(handle, path):
                break
            handle.close()  # its owner has gone, and has taken it away meanwhile
        self._handle = handle
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {platform.node()}".encode())
        os.fsync(handle.fileno())

    def release(self) -> None:
        """The folder is free for others."""
        if self._handle is not None:
            # first: whoever opens it from now on makes a new one
            (self.folder / ".lock").unlink(missing_ok=True)
            self._handle.close()
            self._handle = None

    def abandon(self) -> None:
        """As `release`; and the folders made for it go where nothing is in them."""
        self.release()
        for made in self.made:
            try:
                made.rmdir()
            except OSError:
                break


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """An uncompressed npz, whole or not at all."""
    write(path, lambda temporary: np.savez(temporary, **arrays))  # type: ignore[arg-type]


def check_array(
    path: Path, name: str, array: np.ndarray, shape: tuple[int | None, ...], finite: bool = True
) -> np.ndarray:
    """The array, if its shape is `shape` (None: any) and it holds numbers; NifError names file and array."""
    if array.ndim != len(shape) or any(
        want not in (None, have) for want, have in zip(shape, array.shape, strict=False)
    ):
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise NifError(f"{path}: '{name}' has shape {list(array.shape)}; it must be [{wanted}]")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise NifError(f"{path}: '{name}' is of type {array.dtype}; it must hold numbers")
    if finite and not np.isfinite(array).all():
        bad = int(
            (~np.isfinite(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1))).any(1).sum()
        )
        raise NifError(
            f"{path}: '{name}' has {bad:,} rows with NaN or infinite values; prepare the shape again"
        )
    return array
