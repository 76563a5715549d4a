"""LLFF's forward-facing photographs and those all around: poses_bounds.npy (Mildenhall et al. 2019)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.formats.photos import SUFFIXES, view
from nif_cli.data.formats.transforms import describe
from nif_cli.data.posing import around_cameras, cube, every_eighth, mean_up, normalised, rigid
from nif_cli.data.scene import Background, Scene, View
from nif_cli.data.views import Views, each
from nif_cli.files import check_array
from nif_cli.geometry.mesh import Transform
from nif_cli.rendering.lenses import Camera, Ndc, camera_rays
from nif_cli.rendering.paths import mean_pose

BD_FACTOR = 0.75  # the nearest bound comes to 1 / this


class LlffViews(Views):
    """`root`: a folder with poses_bounds.npy, or a list of them, a scene each.

    `downscale`: the pictures of images_<downscale>, or those of images averaged; by default images_4, as published, or what
    there is. `ndc`: normalised device coordinates, for cameras that look one way; by default where all are within 45 degrees
    of their mean. Without them the point that all look at is the centre and the farthest camera at distance 1.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        downscale: int | None = None,
        hold_out: int = 8,
        ndc: bool | None = None,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if (downscale is not None and downscale < 1) or hold_out < 0:
            raise ValueError(f"downscale={downscale}, hold_out={hold_out}: at least 1, at least 0")
        self.root, self.downscale, self.hold_out, self.ndc = root, downscale, hold_out, ndc

    def read(self) -> list[Scene]:
        return each(self.root, "poses_bounds.npy", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        path = root / "poses_bounds.npy"
        poses, sizes, bounds = read_poses_bounds(path)
        files, averaged, said = _pictures(root, self.downscale)
        if len(files) != len(poses):
            raise NifError(f"{path}: {len(poses)} poses, but {len(files)} pictures in {files[0].parent}; one is needed for each")
        forward = float((poses[:, :, 2] @ mean_pose(poses)[:, 2]).min()) > 0.7 if self.ndc is None else self.ndc
        scale = 1 / (BD_FACTOR * float(bounds.min()))
        transform = Transform((0.0, 0.0, 0.0), scale) if forward else around_cameras(poses)
        moved = [normalised(pose, transform) for pose in poses]
        views = []
        for file, pose, (height, width, focal) in zip(files, moved, sizes.tolist(), strict=True):
            try:
                camera = Camera(round(width), round(height), focal, focal, width / 2, height / 2)
            except ValueError as error:
                raise NifError(f"{path}: {error}") from error
            views.append(view(file.stem, file, pose, camera, averaged))
        train, test = every_eighth(views, self.hold_out)
        if forward:
            camera = views[0].camera
            frame = mean_pose(np.stack([p.double().numpy() for p in moved]))
            tangents = (camera.width / 2 / camera.fx, camera.height / 2 / camera.fy)
            ndc = Ndc(torch.from_numpy(frame).float(), tangents)
            box, near, far, how = _seen(views, ndc), 0.0, 1.0, "NDC"
        else:
            ndc, near = None, 0.9 * float(bounds.min()) * transform.scale
            far = float(bounds.max()) * transform.scale
            box = cube(max(1.0, float(2.0 ** np.ceil(np.log2(far)))))
            how = f"box +-{float(box[1, 0]):g} ({2 * float(box[1, 0]) / transform.scale:.3g} of the file's units)"
        return Scene(
            id,
            transform,
            box,
            near,
            far,
            train,
            test,
            background=self.background,
            ndc=ndc,
            up=mean_up(poses),
            protocol="llff",
            report=f"{describe(views)}{said}; {how}, {bounds.min():.3g} to {bounds.max():.3g} away",
        )


def read_poses_bounds(
    path: Path,
) -> tuple[Float[np.ndarray, "V 3 4"], Float[np.ndarray, "V 3"], Float[np.ndarray, "V 2"]]:
    """Poses (camera to world, OpenGL axes), (height, width, focal length) and (nearest, farthest) of each picture, in the
    file's units. The file's axes are down, right, back."""
    if not path.is_file():
        raise NifError(f"{path}: no such file; it is what LLFF's imgs2poses writes")
    try:
        table = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:
        raise NifError(f"{path}: truncated, or no npy file; Python objects in it are never read") from error
    if not isinstance(table, np.ndarray) or not len(table):
        raise NifError(f"{path}: it holds no pose")
    table = np.array(check_array(path, "poses_bounds", table, (None, 17)), np.float64)
    bounds = table[:, 15:]
    if not (bounds[:, 0] > 0).all() or not (bounds[:, 0] < bounds[:, 1]).all():
        row = int(np.flatnonzero(~((bounds[:, 0] > 0) & (bounds[:, 0] < bounds[:, 1])))[0])
        raise NifError(
            f"{path}: row {row}: near is {bounds[row, 0]:g}, far {bounds[row, 1]:g}; near must be positive, far beyond"
        )
    given = table[:, :15].reshape(-1, 3, 5)
    turned = np.stack((given[:, :, 1], -given[:, :, 0], given[:, :, 2], given[:, :, 3]), 2)
    return np.stack([rigid(p, f"{path}: row {i}") for i, p in enumerate(turned)]), given[:, :, 4], bounds


def _pictures(root: Path, downscale: int | None) -> tuple[list[Path], int, str]:
    """The pictures by name, how much smaller they are to be averaged, and a word about it."""
    folders = {int(m[1] or 1): p for p in root.iterdir() if (m := re.fullmatch(r"images(?:_(\d+))?", p.name)) and p.is_dir()}
    if not folders:
        raise NifError(f"{root}: no pictures; they belong in a folder 'images' or 'images_4' here")
    averaged = 1
    if downscale is None:
        chosen = 4 if 4 in folders else min(folders)
    elif downscale in folders:
        chosen = downscale
    elif 1 in folders:
        chosen, averaged = 1, downscale
    else:
        raise NifError(f"data.downscale={downscale}: there is {', '.join(p.name for p in folders.values())} in {root}")
    files = sorted(p for p in folders[chosen].iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise NifError(f"{folders[chosen]}: no pictures in this folder")
    return files, averaged, f" of {folders[chosen].name}" if chosen > 1 else ""


def _seen(views: list[View], ndc: Ndc) -> Float[Tensor, "2 3"]:
    """The box in NDC that holds what any camera sees, from the near plane to infinity."""
    parts = []
    for seen in views:
        c = seen.camera
        corners = torch.tensor([[x / c.fx * c.width / 2, y / c.fy * c.height / 2, -1.0] for x in (-1, 1) for y in (-1, 1)])
        rays = camera_rays(seen.pose, c, ndc, corners)
        parts += [rays.origins, rays.origins + rays.directions]
    points = torch.cat(parts)
    low, high = points.amin(0).clamp(max=-1), points.amax(0).clamp(min=1)
    if not bool(torch.isfinite(points).all()) or float(high[:2].max() - low[:2].min()) > 20:
        raise NifError("data.ndc=true: some cameras look sideways or backwards; give data.ndc=false")
    low[2], high[2] = -1, 1
    return torch.stack((low, high))
