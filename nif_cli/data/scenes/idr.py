"""Scenes of IDR and NeuS: an object in a sphere, its images and its masks (cameras_sphere.npz, image/,
mask/)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nif_cli import NifError
from nif_cli.data.report import Report
from nif_cli.data.scenes.datamodule import Views, each
from nif_cli.data.scenes.formats.idr import read_cameras
from nif_cli.data.scenes.formats.photos import SUFFIXES, photo, photo_size, view
from nif_cli.data.scenes.formats.transforms import describe
from nif_cli.data.scenes.poses import cube, held_out_views, mean_up, normalised
from nif_cli.data.scenes.scene import Background, Scene, View
from nif_cli.rendering.cameras import Camera

FILE = "cameras_sphere.npz"


class IdrViews(Views):
    """`root`: a folder with cameras_sphere.npz, image/ and, where there are masks, mask/; or a list of them,
    a scene each. Images and masks go with the cameras in the order of their names; masks become alpha
    (`masks: false`: they are not looked at). The unit sphere of scale_mat is the normalised space, and its
    cube the box."""

    keys = "the sphere (scale_mat)"

    def __init__(
        self,
        root: str | Sequence[str],
        downscale: int = 1,
        hold_out: int = 8,
        masks: bool = True,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or hold_out < 0:
            raise ValueError(f"downscale={downscale}, hold_out={hold_out}: at least 1, at least 0")
        self.root, self.downscale, self.hold_out, self.masks = root, downscale, hold_out, masks

    def read(self) -> list[Scene]:
        return each(self.root, FILE, self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        root = root.parent if root.is_file() else root
        path = root / FILE
        if not path.is_file():
            raise NifError(f"{root}: no {FILE}; it lies beside the folders image and mask")
        poses, lenses, transform = read_cameras(path)
        images = _files(root / "image", len(poses), path)
        masked = self.masks and (root / "mask").is_dir()
        masks = _files(root / "mask", len(poses), path) if masked else [None] * len(poses)
        views, moved = [], [normalised(pose, transform) for pose in poses]
        for image, cover, pose, (fx, fy, cx, cy) in zip(images, masks, moved, lenses.tolist(), strict=True):
            try:
                camera = Camera(*photo_size(image), fx, fy, cx, cy)
            except ValueError as error:
                raise NifError(f"{path}: of {image.name}: {error}") from error
            made = view(image.stem, image, pose, camera, self.downscale)
            views.append(made if cover is None else _covered(made, cover))
        train, test = held_out_views(views, self.hold_out)
        away = [float(pose[:, 3].norm()) for pose in moved]
        reach = 3**0.5
        said = Report(f", {len(test)} held out, {'masks are alpha' if masked else 'no masks'}")
        return Scene(
            id,
            transform,
            cube(1.0),
            max(0.02, min(away) - reach),
            max(away) + reach,
            train,
            test,
            background=self.background,
            up=mean_up(poses),
            report=describe(views) + said + f"; sphere of radius {1 / transform.scale:.4g}",
        )


def _files(folder: Path, count: int, cameras: Path) -> list[Path]:
    """The images of a folder by their names, as many as there are cameras."""
    if not folder.is_dir():
        raise NifError(f"{folder}: no such folder; the images belong there")
    found = sorted(
        p
        for p in folder.iterdir()
        if not p.name.startswith(".") and p.suffix.lower() in SUFFIXES and p.is_file()
    )
    if len(found) != count:
        raise NifError(f"{folder}: {len(found)} images, but {count} cameras in {cameras.name}; one for each")
    return found


def _covered(seen: View, cover: Path) -> View:
    """The view with a mask for its alpha."""
    camera = seen.camera
    width, height = photo_size(cover)
    if abs(width * camera.height - height * camera.width) > 0.02 * height * camera.width:
        raise NifError(
            f"{cover}: a mask of {width} x {height} pixels for an image of {camera.width} x {camera.height}"
        )
    assert seen.read is not None
    return replace(seen, read=functools.partial(_cut_out, seen.read, cover), alpha=True)


def _cut_out(read: Callable[[], np.ndarray], cover: Path) -> UInt8[np.ndarray, "H W 4"]:
    pixels = read()[..., :3]
    alpha = photo(cover, (pixels.shape[1], pixels.shape[0]))[..., :3].max(-1, keepdims=True)
    return np.concatenate((pixels, alpha), -1)
