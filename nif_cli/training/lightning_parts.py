"""Callbacks, loggers and profilers of Lightning in a run: what they write stays in its folder, what they lack
is said."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from nif_cli import NifError
from nif_cli.config import build
from nif_cli.hydra_node import inside
from nif_cli.untrusted import one_line, shown

FOLDERS = ("dirpath", "log_dir", "root_dir")  # keys that Lightning takes relative to the working folder
LONGEST = 100  # bytes of a part of a path that a configuration names
# What str.format makes of a field is a short number: a width may fill the memory, {step:c} is any character
# of a path
FIELD = r"\{(?:(?:epoch|step)(?::0?\d?d?)?|[A-Za-z_][\w/ -]*(?::0?\d?(?:\.\d)?[efg]?)?)\}"
# the package that Lightning or Python names when it is not there
PACKAGE = re.compile(r"(?:The '|[Nn]o module named '|pip install (?:-U )?['\"]?)([A-Za-z0-9][A-Za-z0-9_-]*)")
LOCAL = re.compile(r"^(file:(//)?|sqlite:///)")  # addresses on this machine: what follows is a path
FILENAME = re.compile(rf"(?:[^{{}}]|{FIELD})*")


def kept_inside(node: Any, where: str, run: Path) -> Any:
    """The node, its folders below the run's. NifError for a text of a class that is not ours which leads out
    of it."""
    if isinstance(node, list):
        return [kept_inside(value, f"{where}[{i}]", run) for i, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    node = {key: kept_inside(value, f"{where}.{key}", run) for key, value in node.items()}
    target = str(node.get("_target_", ""))
    if not target or target.startswith("nif_cli."):
        return node
    for key, value in node.items():
        if key.startswith("flush_logs_every") and isinstance(value, int) and value < 1:
            raise NifError(f"{where}.{key}={value}: must be at least 1")
        text = LOCAL.sub("", value) if isinstance(value, str) else ""
        if not inside(text):
            raise NifError(
                f"{where}.{key}={shown(value)}: refused, it leads out of the run folder; give a name in it"
            )
        if any(len(part.encode(errors="replace")) > LONGEST for part in text.split("/")):
            raise NifError(
                f"{where}.{key}={shown(value, 60)}: too long for a name; give at most {LONGEST} bytes"
            )
    if target.endswith(".ModelCheckpoint"):  # apart from our own: both may have a last.ckpt
        node["dirpath"] = node.get("dirpath") or "model_checkpoints"
        if not FILENAME.fullmatch(str(node.get("filename") or "")):
            raise NifError(
                f"{where}.filename={shown(node['filename'])}: its fields are as {{epoch}}, {{step:06d}}, "
                f"{{val/loss:.3f}}"
            )
        if node.get("monitor"):
            node.setdefault("save_on_train_epoch_end", False)
    if target.endswith(
        ".EarlyStopping"
    ):  # after each look at the held-out data: before one there is nothing to judge by
        node.setdefault("check_on_train_epoch_end", False)
    return {
        key: str(run / value) if key in FOLDERS and isinstance(value, str) else value
        for key, value in node.items()
    }


def made(node: Any, where: str, run: Path, **given: Any) -> Any:
    """What `build` makes of the node once it is kept inside; a missing package or setting is a NifError."""
    with told(where):
        return build(kept_inside(node, where, run), where, **given)


@contextmanager
def told(where: str) -> Iterator[None]:
    """Lightning's complaints about what a user can mend, as one line."""
    try:
        yield
    except MisconfigurationException as error:
        raise NifError(f"{where}: {one_line(error, 300)}") from error
    except ImportError as error:
        wanted = PACKAGE.search(str(error))
        how = f"; pip install {wanted[1]}" if wanted else f": {one_line(error, 200)}"
        raise NifError(f"{where}: a package is missing{how}") from error
    except RuntimeError as error:
        if "arly stopping" not in str(error):
            raise
        raise NifError(f"{where}: {one_line(error, 300)}") from error


def check_devices(trainer: dict[str, Any], device: torch.device) -> None:
    """NifError for more processes than this machine is good for."""
    wanted = trainer.get("devices", 1)
    count = len(wanted) if isinstance(wanted, list) else int(wanted) if str(wanted).isdigit() else 1
    most = torch.cuda.device_count() if device.type == "cuda" else max(2, os.cpu_count() or 1)
    if count > most:
        raise NifError(f"trainer.devices={wanted}: this machine is good for {most}; give trainer.devices=1")
    nodes = trainer.get("num_nodes", 1)
    if isinstance(nodes, int) and nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise NifError(
            f"trainer.num_nodes={nodes}: the machines meet at MASTER_ADDR and MASTER_PORT, which are "
            "not both set"
        )
