"""run.json: where a run comes from and how it ended, for `nif runs` and for whoever asks a year later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from nif_cli import NifError, __version__
from nif_cli.files import write
from nif_cli.run_folders import ABOUT, FORMAT
from nif_cli.small_files import read_small, read_text
from nif_cli.training.train_log import TrainLog
from nif_cli.untrusted import one_line

HASHED = 2**28  # bytes of a file that are read for its fingerprint; a longer one is told by its ends
LISTED = 100_000  # files of a folder of data that are counted


class Provenance:
    """What is written of one training. `overrides`: those of this command; a run that goes on adds them to
    its own."""

    def __init__(
        self, folder: Path, resumed: bool, overrides: list[str], choices: Any = None, name: str | None = None
    ):
        self.path, self.resumed = folder / ABOUT, resumed
        self._before = read_small(self.path) if resumed else None
        self._content: dict[str, Any] | None = None  # once it is written
        known = self._before.get("overrides") if isinstance(self._before, dict) else None
        known = [o for o in known if isinstance(o, str)] if isinstance(known, list) else []
        self.overrides = known + [o for o in overrides if not o.startswith("resume=")]
        self.own = {} if resumed else {"model": choices.model, "data": choices.data, "name": name}

    def begin(self, config: dict[str, Any], device: torch.device) -> None:
        """The training begins, under this configuration."""
        now, before = time.time(), self._before if isinstance(self._before, dict) else {}
        tags = config.get("tag") or []
        content: dict[str, Any] = {
            "format": FORMAT,
            "nif": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **{key: before[key] for key in ("model", "data", "name") if key in before},
            **self.own,
            "tags": [tags] if isinstance(tags, str) else list(tags),
            "command": _command(),
            "overrides": self.overrides,
            "folder": os.getcwd(),
            "git": commit(Path.cwd()),
            "machine": machine(device),
            "paths": {
                key: {**path, **fingerprint(path)} for key, path in (config.get("paths") or {}).items()
            },
            "started": now,
            "begun": now,
            "resumed": [],
            "ended": None,
            "end": None,
            "settings": config,
        }
        if self.resumed:
            content["command"] = before.get("command")
            content["started"] = before.get("started")
            again = before.get("resumed")
            content["resumed"] = [
                *(again if isinstance(again, list) else []),
                {"when": now, "command": _command()},
            ]
        self._content = content
        self._write()
        if TrainLog.current is not None:
            TrainLog.current.open(self.path.parent, _command())

    def end(self, how: str) -> None:
        """It has ended: 'done', 'stopped by SIGTERM', 'failed: ...'."""
        if self._content is not None and self._content["end"] is None:
            self._content.update(ended=time.time(), end=how)
            self._write()

    def undo(self) -> None:
        """Nothing was trained under these settings: what was there before stays."""
        if self._content is not None and self._before is not None:
            write(self.path, json.dumps(self._before, indent=1))
        elif self._content is not None:
            self.path.unlink(missing_ok=True)
        self._content = None

    def _write(self) -> None:
        write(self.path, json.dumps(self._content, indent=1, default=str) + "\n")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, an exception that ends the training is noted."""
        try:
            yield
        except BaseException as error:
            how = f"failed: {one_line(error, 300)}"
            if isinstance(error, KeyboardInterrupt | SystemExit):
                how = "stopped"
            with suppress(NifError):  # the disk is full, perhaps that is why
                self.end(how)
            raise


def _command() -> str:
    """The command line, to be pasted; whoever started the training, from Python too."""
    return shlex.join(["nif", *sys.argv[1:]])[:10_000]


def machine(device: torch.device) -> dict[str, str]:
    """What it is trained on, in words."""
    cpu = platform.processor()
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    found = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu,
        "cores": f"{os.cpu_count()} cores",
        "threads": f"{torch.get_num_threads()} threads",
    }
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    return {name: value for name, value in found.items() if value}


def commit(folder: Path) -> str | None:
    """The commit that git has checked out here; None where there is none. Read, not asked for: git of a
    stranger's folder may run what its configuration says."""
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.is_file():  # a work tree beside the repository
            said = (read_text(git) or "").strip()
            git = place / said.removeprefix("gitdir:").strip() if said.startswith("gitdir:") else git
        if not git.is_dir():
            continue
        head = (read_text(git / "HEAD") or "").strip()
        if not head.startswith("ref:"):
            return _hash(head)
        name = head.removeprefix("ref:").strip()
        common = git / (read_text(git / "commondir") or ".").strip()
        for home in (git, common):
            if found := _hash((read_text(home / name) or "").strip()):
                return found
        for line in (read_text(common / "packed-refs") or "").splitlines():
            value, _, ref = line.partition(" ")
            if ref.strip() == name:
                return _hash(value)
        return None
    return None


def _hash(text: str) -> str | None:
    return text if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else None


def fingerprint(path: dict[str, Any]) -> dict[str, Any]:
    """How many files and bytes a path of data holds, and a hash: of a file's content, of a folder's names and
    sizes."""
    absolute = path.get("absolute")
    digest, files, size = hashlib.sha256(), 0, 0
    for place in absolute if isinstance(absolute, list) else [absolute]:
        if not isinstance(place, str):
            continue
        try:
            if os.path.isfile(place):
                _hash_file(place, digest)
                files, size = files + 1, size + os.path.getsize(place)
                continue
            for name, length in _listed(place):
                digest.update(f"{name}\0{length}\0".encode(errors="surrogateescape"))
                files, size = files + 1, size + length
        except OSError:
            continue
    return {"files": files, "bytes": size, "sha256": digest.hexdigest()[:16]} if files else {}


def _listed(folder: str) -> Iterator[tuple[str, int]]:
    """Names below a folder and their sizes, in the order of names."""
    count = 0
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(here, name)
            yield os.path.relpath(path, folder), os.lstat(path).st_size
            count += 1
            if count >= LISTED:
                return


def _hash_file(path: str, digest: Any) -> None:
    size = os.path.getsize(path)
    digest.update(f"{size}\0".encode())
    with open(path, "rb") as file:
        if size <= HASHED:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(file.read(2**22))
            file.seek(-(2**22), os.SEEK_END)
            digest.update(file.read())
