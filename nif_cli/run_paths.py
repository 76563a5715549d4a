"""Where the data of a run lies: as typed, absolute, and found again when it or the run has moved."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.untrusted import shown

MANY_FILES = 300_000  # of a run, or of its data: nobody's are more, unless told
PATHS = ("path", "root", "observations")  # keys of data that name files


def look_first(data: dict[str, Any]) -> None:
    """NifError where the data that a run (not the user) names is a folder that nobody would walk unasked, as
    / is."""
    for key in ("path", "root", "observations"):
        value = data.get(key)
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, str) or not os.path.isdir(os.path.expanduser(path)):
                continue
            seen, end = 0, time.monotonic() + 15
            for _, folders, files in os.walk(os.path.expanduser(path)):
                seen += len(folders) + len(files)
                if seen > MANY_FILES or time.monotonic() > end:
                    raise NifError(
                        f"data.{key}={shown(path)}: so says the run, and there are more than {seen:,} files; "
                        f"type data.{key}=... if they are meant"
                    )


def paths_of(config: dict[str, Any]) -> dict[str, Any]:
    """Where the files that a configuration names lie, absolute, by key; what it says already of paths that
    have not been changed stays."""
    data, paths, found = config.get("data"), config.get("paths"), {}
    before: dict[str, Any] = paths if isinstance(paths, dict) else {}
    data = data if isinstance(data, dict) else {}
    for key in PATHS:
        typed = data.get(key)
        if typed in (None, "???") or not isinstance(typed, str | list):
            continue
        known = before.get(f"data.{key}")
        if isinstance(known, dict) and known.get("typed") == typed:
            found[f"data.{key}"] = known
        else:
            absolute = [
                os.path.abspath(Path(str(t)).expanduser())
                for t in ([typed] if isinstance(typed, str) else typed)
            ]
            found[f"data.{key}"] = {
                "typed": typed,
                "absolute": absolute[0] if isinstance(typed, str) else absolute,
            }
    return found


def located(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run with the paths of its data as they are to be found from here: where they lay
    when the run began, else as they were typed. NifError says which key to give when they are nowhere."""
    paths, data = config.get("paths"), config.get("data")
    if not isinstance(paths, dict) or not isinstance(data, dict):
        return config
    data = dict(data)
    for key, known in paths.items():
        name = str(key).removeprefix("data.")
        if (
            not isinstance(known, dict)
            or name not in PATHS
            or name not in data
            or data[name] != known.get("typed")
        ):
            continue
        absolute = known.get("absolute")
        for choice in (absolute, data[name]):
            if choice and all(
                isinstance(p, str) and _exists(p) for p in (choice if isinstance(choice, list) else [choice])
            ):
                if choice != absolute:
                    print(f"{key}: {absolute} is there no more; {choice} is taken, seen from here")
                data[name] = choice
                break
        else:
            here = paths_of({"data": {name: data[name]}})[str(key)]["absolute"]
            was = "" if here == absolute else f" (it was {absolute})"  # typed just now, it never was anywhere
            raise NifError(f"{key}={data[name]}: no such file or folder{was}; give {key}=<where it is now>")
    return {**config, "data": data}


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
