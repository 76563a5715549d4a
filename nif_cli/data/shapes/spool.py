"""Samples that do not fit in memory: kept on disk and read part by part."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nif_cli import NifError
from nif_cli.data.memory import cache_folder
from nif_cli.data.shapes.samples import ShapeSamples
from nif_cli.files import lock, remove_if_free
from nif_cli.untrusted import read_npy

LOCK = ".lock"  # in a folder of samples: held by the process that draws from it
OLD = 24 * 3600.0  # seconds after which a folder without a lock, as earlier versions made them, is nobody's


def _sweep(folder: Path) -> None:
    """Remove the samples of a dead process."""
    try:
        if (folder / LOCK).is_file():
            remove_if_free(folder / LOCK, folder)
        elif folder.is_dir() and not folder.is_symlink() and time.time() - folder.stat().st_mtime > OLD:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # another was quicker
        pass


def _remove(folder: Path, owned: BinaryIO) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    owned.close()


class Spool:
    """A folder of arrays that goes when the object goes, or when the next one is made after its process has
    died. Shuffled as they are written, so that any slice of a shape's points is a fair sample of it."""

    def __init__(self, seed: int):
        base = cache_folder()
        try:
            base.mkdir(parents=True, exist_ok=True)
            for left in base.glob("pool-*"):
                _sweep(left)
            self.folder = Path(tempfile.mkdtemp(prefix="pool-", dir=base))
            self._owned = (self.folder / LOCK).open("wb")
            lock(self._owned)
        except OSError as error:
            raise NifError(
                f"{base}: cannot keep samples there ({error.strerror}); set NIF_CACHE to a folder with room"
            ) from error
        self.seed = seed
        self._count = 0
        weakref.finalize(self, _remove, self.folder, self._owned)

    def keep(self, shape: ShapeSamples) -> ShapeSamples:
        """The same shape, with its arrays on disk."""
        rng = np.random.default_rng([self.seed, self._count])
        orders = {"points": rng.permutation(len(shape.points))}
        orders["distance"] = orders["inside"] = orders["points"]
        if shape.surface is not None:
            orders["surface"] = orders["normals"] = orders["colors"] = rng.permutation(len(shape.surface))
        mapped = {}
        try:
            for name, order in orders.items():
                array = getattr(shape, name)
                if array is not None:
                    path = self.folder / f"{self._count}-{name}.npy"
                    np.save(path, array[order])
                    mapped[name] = read_npy(path, "samples", mapped=True)
        except OSError as error:
            reason = error.strerror or "the disk is full"
            raise NifError(
                f"{self.folder}: samples that exceed data.memory are kept there: {reason}; set NIF_CACHE "
                "to a larger disk"
            ) from error
        self._count += 1
        return replace(shape, **mapped)
