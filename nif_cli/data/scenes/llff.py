"""Scenes of LLFF's photographs: forward-facing ones in normalised device coordinates, others around a
centre."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.datamodule import Views, each
from nif_cli.data.scenes.formats.llff import read_poses_bounds
from nif_cli.data.scenes.formats.photos import SUFFIXES, view
from nif_cli.data.scenes.formats.transforms import describe
from nif_cli.data.scenes.poses import around_cameras, cube, held_out_views, mean_up, normalised
from nif_cli.data.scenes.scene import Background, Scene, View
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import mean_pose
from nif_cli.rendering.cameras import Camera, camera_rays
from nif_cli.rendering.ndc import Ndc

BD_FACTOR = 0.75  # the nearest bound comes to 1 / this
ODD = 10  # times the median: a bound beyond that is a point that was matched wrongly
FARTHEST = 64.0  # half the box, in distances of the farthest camera: beyond it the field has no cells left


class LlffViews(Views):
    """`root`: a folder with poses_bounds.npy, or a list of them, a scene each.

    `downscale`: the images of images_<downscale>, or those of images averaged; by default images_4, as
    published, or what there is. `ndc`: normalised device coordinates, for cameras that look one way; by
    default where all are within 45 degrees of their mean. Without them the point that all look at is the
    centre and the farthest camera at distance 1. Bounds that are more than ODD times nearer or farther than
    the median are left out.
    """

    keys = "data.ndc, and the bounds (the last two columns of poses_bounds.npy)"

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
        root = root.parent if root.is_file() else root
        path = root / "poses_bounds.npy"
        poses, sizes, bounds = read_poses_bounds(path)
        files, averaged, said = _images(root, self.downscale)
        if len(files) != len(poses):
            raise NifError(
                f"{path}: {len(poses)} poses, but {len(files)} images in {files[0].parent}; one is "
                "needed for each"
            )
        least, most, odd = _bounds(bounds, [f.name for f in files])
        said = said + odd
        forward = (
            float((poses[:, :, 2] @ mean_pose(poses)[:, 2]).min()) > 0.7 if self.ndc is None else self.ndc
        )
        transform = Transform((0.0, 0.0, 0.0), 1 / (BD_FACTOR * least)) if forward else around_cameras(poses)
        views = [
            view(file.stem, file, normalised(pose, transform), camera, averaged)
            for file, pose, camera in zip(files, poses, _cameras(path, sizes), strict=True)
        ]
        ndc, box = None, None
        if forward:
            ndc, box, sideways = _seen(views)
            if sideways is not None and self.ndc:
                raise NifError(
                    f"data.ndc=true: some cameras look sideways or backwards ({sideways}); give "
                    "data.ndc=false"
                )
            if sideways is not None:
                said += f"; not in NDC, since {sideways} looks sideways"
                transform, ndc = around_cameras(poses), None
                views = [
                    replace(v, pose=normalised(pose, transform)) for v, pose in zip(views, poses, strict=True)
                ]
        if ndc is not None:
            assert box is not None
            near, far, how = 0.0, 1.0, "NDC"
        else:
            near, far = 0.9 * least * transform.scale, most * transform.scale
            half = max(1.0, float(2.0 ** np.ceil(np.log2(far))))
            if half > FARTHEST:
                said += f"; what is farther than {FARTHEST:g} times the cameras' distance is not learned"
                half = FARTHEST
            box = cube(half)
            how = f"box +-{half:g} ({2 * half / transform.scale:.3g} of the file's units)"
        train, test = held_out_views(views, self.hold_out)
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
            report=describe(views) + said + f"; {how}, {least:.3g} to {most:.3g} away",
        )


def _cameras(path: Path, sizes: Float[np.ndarray, "V 3"]) -> list[Camera]:
    """By height, width and focal length (pixels) of each view."""
    try:
        return [
            Camera(round(width), round(height), focal, focal, width / 2, height / 2)
            for height, width, focal in sizes.tolist()
        ]
    except (ValueError, OverflowError) as error:
        raise NifError(f"{path}: {error}") from error


def _bounds(bounds: Float[np.ndarray, "V 2"], names: list[str]) -> tuple[float, float, Report]:
    """The nearest and the farthest bound of those that are not odd, and a word about the others."""
    middle = np.median(bounds, axis=0)
    odd = {"near": bounds[:, 0] < middle[0] / ODD, "far": bounds[:, 1] > middle[1] * ODD}
    said = Report()
    for column, (which, rows) in enumerate(odd.items()):
        if rows.any():
            row = int(rows.argmax())
            said += doubt(
                f"; {int(rows.sum())} {which} bounds left out (the first: {bounds[row, column]:.3g} of "
                f"{names[row]})"
            )
    return float(bounds[~odd["near"], 0].min()), float(bounds[~odd["far"], 1].max()), said


def _images(root: Path, downscale: int | None) -> tuple[list[Path], int, str]:
    """The images by name, how much smaller they are to be averaged, and a word about it."""
    folders = {
        int(m[1] or 1): p
        for p in root.iterdir()
        if (m := re.fullmatch(r"images(?:_(\d+))?", p.name)) and p.is_dir()
    }
    if not folders:
        raise NifError(f"{root}: no images; they belong in a folder 'images' or 'images_4' here")
    averaged = 1
    if downscale is None:
        chosen = 4 if 4 in folders else min(folders)
    elif downscale in folders:
        chosen = downscale
    elif 1 in folders:
        chosen, averaged = 1, downscale
    else:
        raise NifError(
            f"data.downscale={downscale}: there is {', '.join(p.name for p in folders.values())} in {root}"
        )
    # what macOS leaves beside files is none
    there = (p for p in folders[chosen].iterdir() if not p.name.startswith("."))
    files = sorted(p for p in there if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise NifError(f"{folders[chosen]}: no images in this folder")
    return files, averaged, f" of {folders[chosen].name}" if chosen > 1 else ""


def _seen(views: list[View]) -> tuple[Ndc, Float[Tensor, "2 3"] | None, str | None]:
    """NDC of the mean camera, the box there that holds what any camera sees from the near plane to infinity,
    and, where there is no such box, the view that looks sideways or backwards."""
    camera = views[0].camera
    frame = mean_pose(np.stack([v.pose.double().numpy() for v in views]))
    ndc = Ndc(torch.from_numpy(frame).float(), (camera.width / 2 / camera.fx, camera.height / 2 / camera.fy))
    parts = []
    for seen in views:
        c = seen.camera
        corners = torch.tensor(
            [[x / c.fx * c.width / 2, y / c.fy * c.height / 2, -1.0] for x in (-1, 1) for y in (-1, 1)]
        )
        ahead = (corners @ seen.pose[:, :3].T) @ ndc.frame[:, 2]
        rays = camera_rays(seen.pose, c, ndc, corners)
        points = torch.cat((rays.origins, rays.origins + rays.directions))
        if (
            bool((ahead >= 0).any())
            or not bool(torch.isfinite(points).all())
            or float(points[:, :2].abs().max()) > 10
        ):
            return ndc, None, seen.name
        parts.append(points)
    points = torch.cat(parts)
    low, high = points.amin(0).clamp(max=-1), points.amax(0).clamp(min=1)
    low[2], high[2] = -1, 1
    return ndc, torch.stack((low, high)), None
