"""Files by the names that a scene's lists give them: of another system, another machine, without suffix, in
other case.

A name that leads out of the scene's folder (`..`, an absolute path) is followed, since photographs often lie
beside it; what is read there must be an image of an allowed format, and the scene's report says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from nif_cli import NifError
from nif_cli.untrusted import shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
DEEPEST = 16  # folders of a name that are tried one by one


def parts_of(name: str) -> list[str]:
    """The folders and the file of a name of any system: no drive, no `.`; `..` stays."""
    posix = re.sub(r"^(\\\\\?\\)?[A-Za-z]:(?=[\\/])", "", name.strip()).replace("\\", "/")
    return [part for part in posix.split("/") if part not in ("", ".")]


def label(name: str) -> str:
    """What an image is called: its name in the scene's folder without the suffix of an image."""
    path = PurePosixPath(*[part for part in parts_of(name) if part != ".."] or ["image"])
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()


def found(name: str, folder: Path, suffixes: Sequence[str] = SUFFIXES, elsewhere: bool = True) -> Path | None:
    """The file of that name: as it is, else with a suffix, else in other case; where it is named, else
    (`elsewhere`) at the longest end of its path that leads to a file in `folder` or its `images`. None where
    there is none."""
    for place in _places(name, folder, elsewhere):
        there = _file(place, suffixes)
        if there is not None:
            return there
    return None


def _places(name: str, folder: Path, elsewhere: bool) -> Iterator[Path]:
    yield folder / name  # an absolute name stays one
    parts = parts_of(name)
    if "\\" in name:
        yield folder.joinpath(*parts)
    if not elsewhere:
        return
    inner = [part for part in parts if part != ".."][-DEEPEST:]
    for start in range(len(inner)):
        yield folder.joinpath(*inner[start:])
    if inner:
        yield folder / "images" / inner[-1]


def _file(path: Path, suffixes: Sequence[str]) -> Path | None:
    try:
        if path.is_file():
            return path
        for suffix in suffixes:
            other = path.with_name(path.name + suffix)
            if other.is_file():
                return other
        return _in_other_case(path, suffixes)
    except (OSError, ValueError):  # a name that no system takes
        return None


def _in_other_case(path: Path, suffixes: Sequence[str]) -> Path | None:
    names = _listed(path.parent, path.parent.stat().st_mtime_ns) if path.parent.is_dir() else {}
    wanted = [path.name.lower(), *(path.name.lower() + suffix for suffix in suffixes)]
    return next((path.parent / names[name] for name in wanted if name in names), None)


@lru_cache(maxsize=64)
def _listed(folder: Path, changed: int) -> dict[str, str]:
    """The files of a folder by their names in small letters, hidden ones left out."""
    return {
        p.name.lower(): p.name
        for p in sorted(folder.iterdir(), reverse=True)
        if not p.name.startswith(".") and p.is_file()
    }


def whereabouts(images: Sequence[tuple[str, Path]], folder: Path, source: Path) -> str:
    """What to say of images (the name in `source`, the file) that do not lie in `folder` as they are named.
    Links are not followed: they are the user's own. NifError where two names lead to one file: one of them is
    another image, lost."""
    by_file: dict[Path, str] = {}
    for name, path in images:
        other = by_file.setdefault(path, name)
        if label(other) != label(name):
            raise NifError(
                f"{source}: {shown(other)} and {shown(name)} are two images, but all that there is of "
                f"them is {path}"
            )
    home = os.path.join(os.path.abspath(folder), "")
    out = [path for _, path in images if not os.path.abspath(path).startswith(home)]
    return f", {len(out)} of them outside of its folder (the first: {out[0]})" if out else ""
