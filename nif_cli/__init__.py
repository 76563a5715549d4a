"""nif: train neural implicit fields and turn them into meshes, images and numbers.

From Python: `load` opens a run, `train` makes one; see docs/python.md. They are found when they are first
asked for: this file stays free of heavy imports, `nif --help` and shell completion load it.
"""

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


class NifError(Exception):
    """Something the user can mend. The message is one or two lines: which file or key, what is wrong, what
    would be right."""


def conf_folder() -> Path:
    """The configuration groups: those in the wheel, or the checkout's."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


def __getattr__(name: str) -> Any:
    if name in ("Run", "Shape", "load", "train"):
        return getattr(importlib.import_module("nif_cli.library"), name)
    raise AttributeError(f"module 'nif_cli' has no attribute '{name}'")
