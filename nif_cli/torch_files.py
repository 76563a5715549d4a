"""Files that torch saved, of strangers: read as plain values and tensors, measured before and after."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

from nif_cli import NifError
from nif_cli.files import available_memory
from nif_cli.untrusted import reading, regular, shown

DEEPEST = 64  # levels of a checkpoint's plain values; ours have nine


def read_torch(path: Path, what: str) -> Any:
    """What torch saved, as plain values and tensors on the CPU, whose sizes together are about that of the
    file. NifError for anything else: code in the pickle, damaged records, a few numbers that stand for
    gigabytes (strides of 0), values nested too deeply."""
    import torch  # not before it is needed: what is light imports this module too

    size = regular(path, what).stat().st_size
    if 2 * size > available_memory():
        raise NifError(f"{path}: {size / 2**30:.1f} GiB do not fit in memory")
    with reading(path, f"{what}: damaged, or no torch file"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > 2 * size + 2**20:
                    raise NifError(f"{path}: refused, it would unpack to more than it is")
                damaged = archive.testzip()
                if damaged:
                    raise NifError(f"{path}: damaged ({shown(damaged)})")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise NifError(
                f"{path}: refused: not a {what}: damaged, or with more in it than tensors and plain data, "
                "which could run code"
            ) from error
        _check_tree(found, path, size)
    return found


def _check_tree(tree: Any, path: Path, size: int) -> None:
    """NifError unless the tensors in a tree of plain values are dense and take together about `size` bytes,
    its file's."""
    import torch

    most = 4 * size + 2**24  # tensors may share their numbers: tied weights, views
    waiting, total, seen = [(tree, 0)], 0, 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if (
            depth > DEEPEST or seen > size + 10_000
        ):  # a value takes a byte at least, unless lists hold lists again and again
            raise NifError(
                f"{path}: refused: its values are nested too deeply, or hold each other again and again"
            )
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise NifError(f"{path}: refused: a tensor of layout {value.layout} on '{value.device}'")
            total += value.numel() * value.element_size()
            if total > most:
                raise NifError(
                    f"{path}: refused: its tensors would take more than {most:,} bytes, and it has "
                    f"{path.stat().st_size:,}"
                )
        elif isinstance(value, dict):
            waiting += [(v, depth + 1) for v in value.values()]
            waiting += [(k, depth + 1) for k in value if isinstance(k, tuple)]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(v, depth + 1) for v in value]
