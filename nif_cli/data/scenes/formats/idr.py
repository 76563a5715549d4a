"""The folders of IDR and NeuS: cameras_sphere.npz (Yariv et al. 2020; Wang et al. 2021)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.linalg import rq

from nif_cli import NifError, untrusted
from nif_cli.data.scenes.poses import rigid, turned
from nif_cli.geometry.transform import Transform

MOST = 100_000  # views
WHAT = "cameras of IDR (world_mat_0, scale_mat_0, ...)"


def read_cameras(
    path: Path,
) -> tuple[Float[np.ndarray, "V 3 4"], Float[np.ndarray, "V 4"], Transform]:
    """Poses (camera to world, OpenGL axes) and fx, fy, cx, cy (pixels; the first one's centre is at 0.5) of
    each view, and what brings the world to the unit sphere that the object lies in."""
    headers = untrusted.npz_headers(path, WHAT)
    count = len([name for name in headers if re.fullmatch(r"world_mat_\d+", name)])
    if not 0 < count <= MOST:
        raise NifError(f"{path}: {count} world_mat_*; {WHAT} are needed, one of each for an image")
    names = [f"{kind}_mat_{k}" for k in range(count) for kind in ("world", "scale")]
    found = untrusted.read_npz(path, names, WHAT)
    spheres = np.stack([_matrix(found[f"scale_mat_{k}"], f"{path}: scale_mat_{k}") for k in range(count)])
    transform = _sphere(spheres, path)
    poses, lenses = [], []
    for k in range(count):
        pose, lens = decomposed(
            _matrix(found[f"world_mat_{k}"], f"{path}: world_mat_{k}")[:3], f"{path}: world_mat_{k}"
        )
        poses.append(pose)
        lenses.append(lens)
    return np.stack(poses), np.stack(lenses), transform


def _matrix(value: np.ndarray, where: str) -> Float[np.ndarray, "4 4"]:
    if value.shape == (3, 4) and value.dtype.kind in "iuf":
        value = np.concatenate((value, [[0, 0, 0, 1]]))
    if value.shape != (4, 4) or value.dtype.kind not in "iuf":
        raise NifError(f"{where}: an array {list(value.shape)} of {value.dtype}; a matrix [4, 4] is needed")
    value = value.astype(np.float64)
    if not (np.abs(value) <= untrusted.LARGEST).all():
        raise NifError(f"{where}: NaN, or a number beyond {untrusted.LARGEST:g}")
    return value


def _sphere(spheres: Float[np.ndarray, "V 4 4"], path: Path) -> Transform:
    """scale_mat: from the unit sphere to the world; the same for all views."""
    first = spheres[0]
    radius = float(first[0, 0])
    odd = np.abs(spheres - first).max((1, 2)) > 1e-4 * np.abs(first).max()
    if odd.any():
        raise NifError(f"{path}: scale_mat_{int(odd.argmax())} is not scale_mat_0; one scene has one sphere")
    if not radius > 1e-9 or np.abs(first[:3, :3] - radius * np.eye(3)).max() > 1e-4 * radius:
        raise NifError(
            f"{path}: scale_mat_0 turns or stretches space; it must be a radius on the diagonal, and a centre"
        )
    x, y, z = (-first[:3, 3]).tolist()
    return Transform((x, y, z), 1 / radius)


def decomposed(
    projection: Float[np.ndarray, "3 4"], where: str
) -> tuple[Float[np.ndarray, "3 4"], Float[np.ndarray, "4"]]:
    """The pose and lens of a projection K [R | t] (OpenCV's axes, pixel centres at whole numbers), which is
    known up to a factor, its sign included."""
    size = float(np.linalg.norm(projection[:, :3], axis=1).prod())
    if not abs(np.linalg.det(projection[:, :3])) > 1e-9 * size:
        raise NifError(f"{where}: a projection that no camera has: it is singular")
    projection = projection * np.sign(np.linalg.det(projection[:, :3]))
    upper, rotation = rq(projection[:, :3])
    signs = np.sign(np.diag(upper))
    upper, rotation = upper * signs, signs[:, None] * rotation
    upper = upper / upper[2, 2]
    if abs(upper[0, 1]) > 1e-2 * upper[0, 0]:
        raise NifError(
            f"{where}: its pixels are sheared by {upper[0, 1] / upper[0, 0]:.2g}; nif has no such lens"
        )
    centre = -np.linalg.solve(projection[:, :3], projection[:, 3])
    pose = turned(np.concatenate((rotation.T, centre[:, None]), 1), "opencv")
    return rigid(pose, where), np.array([upper[0, 0], upper[1, 1], upper[0, 2] + 0.5, upper[1, 2] + 0.5])
