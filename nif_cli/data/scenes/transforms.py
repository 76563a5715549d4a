"""Scenes of photographs with a transforms.json of instant-ngp or of nerfstudio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from nif_cli import NifError, untrusted
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.datamodule import Views, each
from nif_cli.data.scenes.formats.photos import read_scene_json
from nif_cli.data.scenes.formats.splits import split
from nif_cli.data.scenes.formats.transforms import (
    check_placing,
    describe,
    frames_of,
    number_at,
    poses_of,
    read_frames,
)
from nif_cli.data.scenes.poses import around_cameras, cube, farthest, mean_up, normalised
from nif_cli.data.scenes.scene import Background, Scene
from nif_cli.data.scenes.sighting import aimed
from nif_cli.geometry.transform import Transform

USUAL = 2.64  # how far instant-ngp's own scripts put the cameras from the centre, in normalised space


class TransformsViews(Views):
    """`root`: a folder with transforms.json, the file itself, or a list of them, a scene each.

    Files of instant-ngp are normalised as instant-ngp does it (its unit cube becomes [-1, 1]^3, `aabb_scale`
    the half side of the bounds); in others, and where those cameras do not see that cube, the point that all
    cameras look at is the centre and the farthest camera is at distance 1. `place`: "file" or "cameras",
    where one of the two is wanted whatever they see. `axes` of the cameras: "opengl" (x right, y up, z back)
    or "opencv" (x right, y down, z ahead). Where the file names no test views, `hold_out`: every such view,
    by name, is held out.
    """

    keys = "data.place=cameras, data.aabb_scale, data.near"

    def __init__(
        self,
        root: str | Sequence[str],
        downscale: int = 1,
        hold_out: int = 8,
        aabb_scale: float | None = None,
        near: float = 0.1,
        axes: Literal["opengl", "opencv"] = "opengl",
        place: Literal["file", "cameras"] | None = None,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or hold_out < 0 or not near > 0:
            raise ValueError(
                f"downscale={downscale}, hold_out={hold_out}, near={near}: at least 1, at least 0, positive"
            )
        if aabb_scale is not None and not 0 < aabb_scale <= 128:
            raise ValueError(
                f"aabb_scale={aabb_scale}: the half side of the scene's box, above 0 and at most 128"
            )
        check_placing(axes, place)
        self.taken_for = axes
        self.root, self.downscale, self.hold_out, self.aabb_scale, self.near = (
            root,
            downscale,
            hold_out,
            aabb_scale,
            near,
        )
        self.axes, self.place = axes, place

    def read(self) -> list[Scene]:
        return each(self.root, "transforms.json", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        path = root if root.is_file() else root / "transforms.json"
        if not path.is_file() and (path.parent / "transforms_train.json").is_file():
            raise NifError(
                f"{path}: no such file; this folder is for data=blender (it has transforms_train.json)"
            )
        file = read_scene_json(path)
        frames = frames_of(file, path)
        poses = poses_of(frames, path, self.axes)
        transform, half, note = self._placed(file, path, poses)
        half = self.aabb_scale or half
        moved = [normalised(pose, transform) for pose in poses]
        views, said = read_frames(file, frames, path, moved, self.downscale, transform.scale)
        train, test, divided = split(file, path, frames, views, self.hold_out)
        lost = len(frames) - len(views)
        without = doubt(f", {lost} of {len(frames)} frames without an image") if lost else Report()
        bounds, side = cube(half), 2 * half / transform.scale
        return Scene(
            id,
            transform,
            bounds,
            self.near,
            farthest(moved, bounds),
            train,
            test,
            background=self.background,
            up=mean_up(poses),
            protocol="llff",
            report=(describe(views) + said + without + divided)
            + f"; box +-{half:g} ({side:.3g} of the file's units), near {self.near:g}{note}",
        )

    def _placed(
        self, file: dict[str, Any], path: Path, poses: Float[np.ndarray, "V 3 4"]
    ) -> tuple[Transform, float, str]:
        """Where the scene lies, half the side of its box, and what was done about either."""
        if "camera_model" in file or "applied_transform" in file:
            if self.place == "file":
                raise NifError(
                    f"data.place=file: {path} is nerfstudio's, which does not say where the scene lies"
                )
            return around_cameras(poses), number_at(file, "aabb_scale", path, 4.0, 1e-3, 128), ""
        scale = number_at(file, "scale", path, 0.33)
        if not scale > 0:
            raise NifError(f"{path}: 'scale' is {scale:g}; it must be a positive number")
        offset = untrusted.numbers(file.get("offset", [0.5] * 3), f"{path}: 'offset'", (3,))
        x, y, z = ((offset - 0.5) / scale).tolist()
        transform, half = Transform((x, y, z), 2 * scale), number_at(file, "aabb_scale", path, 1.0, 1e-3, 128)
        fits = aimed(poses, transform, self.aabb_scale or half)
        given = "scale" in file or "offset" in file  # the author placed it: told below if that cannot be
        if self.place == "file" or (self.place is None and (fits or given)):
            return transform, half, ""
        half = float(2.0 ** max(0, math.ceil(math.log2(half / USUAL))))
        why = (
            "as data.place says"
            if self.place
            else "the cameras do not look at instant-ngp's unit cube: data.place=file keeps it"
        )
        return (
            around_cameras(poses),
            half,
            f"; centred where the cameras look, the farthest at distance 1 ({why})",
        )
