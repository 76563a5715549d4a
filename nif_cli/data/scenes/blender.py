"""The synthetic scenes of NeRF: transforms_{train,val,test}.json, images with alpha (Mildenhall et al.
2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.datamodule import Views, each
from nif_cli.data.scenes.formats.photos import read_scene_json
from nif_cli.data.scenes.formats.transforms import check_placing, describe, frames_of, poses_of, read_frames
from nif_cli.data.scenes.poses import cube, normalised
from nif_cli.data.scenes.scene import Background, Scene, View
from nif_cli.data.scenes.sighting import common_point, distances
from nif_cli.geometry.transform import Transform

HALF, NEAR, FAR = 1.5, 2.0, 6.0  # of the published scenes, whose cameras are DISTANCE from the origin
DISTANCE = 4.03


class BlenderViews(Views):
    """`root`: a folder with transforms_train.json, or a list of them, a scene each. The scene lies within
    +-`half` of the origin, in the files' units (it becomes [-1, 1]^3), `near` and `far` along the rays; z is
    up. By default these are the published ones (1.5, 2, 6) where the cameras stand as there, else the same in
    units of the cameras' distance, about the point that all look at. `place` is "file" for the published ones
    and the origin whatever the cameras say, "cameras" for the others. `axes` of the cameras: "opengl" (x
    right, y up, z back) or "opencv" (x right, y down, z ahead). Of the test views every `test_skip`-th is
    used.
    """

    keys = "data.half, data.near, data.far, data.place"

    def __init__(
        self,
        root: str | Sequence[str],
        downscale: int = 1,
        test_split: str = "test",
        test_skip: int = 1,
        half: float | None = None,
        near: float | None = None,
        far: float | None = None,
        axes: Literal["opengl", "opencv"] = "opengl",
        place: Literal["file", "cameras"] | None = None,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or test_skip < 1 or (half is not None and not half > 0):
            raise ValueError(
                f"downscale={downscale}, test_skip={test_skip}, half={half}: at least 1, at least 1, positive"
            )
        first, last = NEAR if near is None else near, FAR if far is None else far
        if not 0 <= first < last:
            raise ValueError(
                f"near={first}, far={last}: near must be at least 0 and far beyond it; give both"
            )
        check_placing(axes, place)
        self.taken_for = axes
        self.root, self.downscale, self.half, self.near, self.far = root, downscale, half, near, far
        self.test_split, self.test_skip, self.axes, self.place = test_split, test_skip, axes, place

    def read(self) -> list[Scene]:
        return each(self.root, "transforms_train.json", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        root = root.parent if root.name == "transforms_train.json" and root.is_file() else root
        if not (root / "transforms_train.json").is_file():
            other = (
                "; data=transforms reads its transforms.json" if (root / "transforms.json").is_file() else ""
            )
            raise NifError(f"{root}: no transforms_train.json{other}")
        path = root / "transforms_train.json"
        file = read_scene_json(path)
        frames = frames_of(file, path)
        poses = poses_of(frames, path, self.axes)
        transform, near, far, note = self._placed(poses)
        train, said = read_frames(
            file, frames, path, [normalised(p, transform) for p in poses], self.downscale
        )
        test, lost, more = self._test(root, transform)
        lost += len(frames) - len(train)
        without = doubt(f", {lost} frames without an image") if lost else Report()
        names = {v.name for v in test}
        left = [v for v in train if v.name not in names]
        if not left:
            more, test, left = f"{more}; its test views are the training views: none is held out", [], train
        elif len(left) < len(train):
            more += f"; {len(train) - len(left)} views that are test views too are not trained on"
        half = 1 / transform.scale
        return Scene(
            id,
            transform,
            cube(1.0),
            near / half,
            far / half,
            left,
            test,
            background=self.background,
            up=(0.0, 0.0, 1.0),
            report=(describe(train) + said + without)
            + f", {len(test)} test views{more}; box +-{half:.4g}, {near:.4g} to {far:.4g} away{note}",
        )

    def _test(self, root: Path, transform: Transform) -> tuple[list[View], int, str]:
        """The test views, how many have no image, and what there is to say of the others."""
        path = root / f"transforms_{self.test_split}.json"
        if not path.is_file():
            return [], 0, f" (there is no {path.name})"
        file = read_scene_json(path)
        if file.get("frames") == []:
            return [], 0, ""
        frames = frames_of(file, path)[:: self.test_skip]
        moved = [normalised(p, transform) for p in poses_of(frames, path, self.axes)]
        views, said = read_frames(file, frames, path, moved, self.downscale)
        return views, len(frames) - len(views), said

    def _placed(self, poses: Float[np.ndarray, "V 3 4"]) -> tuple[Transform, float, float, str]:
        """The transform, near and far (in the files' units), and what was done about them."""
        away, point = distances(poses), common_point(poses)
        usual = away is None or point is None or _as_published(away, point)
        given: dict[str, Any] = {"half": self.half, "near": self.near, "far": self.far}
        if self.place == "file" or (usual and self.place is None) or away is None or point is None:
            middle, made, note = (0.0, 0.0, 0.0), {"half": HALF, "near": NEAR, "far": FAR}, ""
        else:
            x, y, z = (-point).tolist()
            middle, typical = (x, y, z), float(np.median(away)) / DISTANCE
            near, far = (float(f(away)) / DISTANCE for f in (np.min, np.max))
            made = {"half": HALF * typical, "near": NEAR * near, "far": FAR * far}
            note = (
                f"; these by the cameras, which look at ({-x:.4g}, {-y:.4g}, {-z:.4g}) from "
                f"{np.median(away):.4g} away"
            )
            note += ": data.place=file takes the published ones, data.half, data.near and data.far others"
            if self.half is not None:  # the box is the user's: about the origin, as it always was
                middle = (0.0, 0.0, 0.0)
        known = {key: made[key] if value is None else value for key, value in given.items()}
        if not 0 <= known["near"] < known["far"]:
            raise NifError(
                f"data.near={known['near']:g}, far={known['far']:g}: near must be at least 0 and far "
                "beyond it; give both"
            )
        return Transform(middle, 1 / known["half"]), known["near"], known["far"], note


def _as_published(away: Float[np.ndarray, "V"], point: Float[np.ndarray, "3"]) -> bool:
    """Whether the published box, near and far are right for nearly all of these cameras."""
    within = (away > NEAR) & (away < FAR)
    return (
        bool(within.mean() > 0.9)
        and float(abs(point).max()) < HALF
        and 0.65 < float(np.median(away)) / DISTANCE < 1.5
    )
