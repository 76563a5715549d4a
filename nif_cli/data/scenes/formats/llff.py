"""LLFF's forward-facing photographs and those all around: poses_bounds.npy (Mildenhall et al. 2019)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from nif_cli import NifError, untrusted
from nif_cli.data.scenes.poses import rigid
from nif_cli.files import check_array

LARGEST = 2**28  # bytes of poses: two million images


def read_poses_bounds(
    path: Path,
) -> tuple[Float[np.ndarray, "V 3 4"], Float[np.ndarray, "V 3"], Float[np.ndarray, "V 2"]]:
    """Poses (camera to world, OpenGL axes), (height, width, focal length) and (nearest, farthest) of each
    image, in the file's units. The file's axes are down, right, back."""
    if not path.is_file():
        raise NifError(f"{path}: no such file; it is what LLFF's imgs2poses writes")
    if untrusted.regular(path).stat().st_size > LARGEST:
        raise NifError(f"{path}: {path.stat().st_size:,} bytes are not the poses of photographs")
    table = untrusted.read_npy(path, "poses of photographs")
    if not table.size:
        raise NifError(f"{path}: it holds no pose")
    table = np.array(check_array(path, "poses_bounds", table, (None, 17), finite=False), np.float64)
    wrong = ~(np.abs(table) <= untrusted.LARGEST).all(1)
    if wrong.any():
        raise NifError(f"{path}: row {int(wrong.argmax())} has NaN, or numbers beyond {untrusted.LARGEST:g}")
    bounds = table[:, 15:]
    if not (bounds[:, 0] > 0).all() or not (bounds[:, 0] < bounds[:, 1]).all():
        row = int(np.flatnonzero(~((bounds[:, 0] > 0) & (bounds[:, 0] < bounds[:, 1])))[0])
        raise NifError(
            f"{path}: row {row}: near is {bounds[row, 0]:g}, far {bounds[row, 1]:g}; near must be "
            "positive, far beyond"
        )
    given = table[:, :15].reshape(-1, 3, 5)
    turned = np.stack((given[:, :, 1], -given[:, :, 0], given[:, :, 2], given[:, :, 3]), 2)
    return np.stack([rigid(p, f"{path}: row {i}") for i, p in enumerate(turned)]), given[:, :, 4], bounds
