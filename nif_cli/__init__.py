"""nif: train neural implicit fields and turn them into meshes, pictures and numbers.

This file stays free of heavy imports: `nif --help` and shell completion load it.
"""

from pathlib import Path

__version__ = "0.1.0"


class NifError(Exception):
    """Something the user can mend. The message is one or two lines: which file or key, what is wrong, what
    would be right."""


def conf_folder() -> Path:
    """The configuration groups: those in the wheel, or the checkout's."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"
