"""The synthetic scenes of NeRF: transforms_{train,val,test}.json, pictures with alpha (Mildenhall et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nif_cli import NifError
from nif_cli.data.formats.photos import read_json
from nif_cli.data.formats.transforms import describe, frames_of, name_of, read_frames
from nif_cli.data.posing import cube, normalised, rigid
from nif_cli.data.scene import Background, Scene, View
from nif_cli.data.views import Views, each
from nif_cli.geometry.mesh import Transform


class BlenderViews(Views):
    """`root`: a folder with transforms_train.json, or a list of them, a scene each. The scene lies within +-`half` of the
    origin, in the files' units (it becomes [-1, 1]^3), `near` and `far` along the rays; z is up. Of the test views every
    `test_skip`-th is used."""

    def __init__(
        self,
        root: str | Sequence[str],
        downscale: int = 1,
        test_split: str = "test",
        test_skip: int = 1,
        half: float = 1.5,
        near: float = 2.0,
        far: float = 6.0,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or test_skip < 1 or not half > 0:
            raise ValueError(f"downscale={downscale}, test_skip={test_skip}, half={half}: at least 1, at least 1, positive")
        if not 0 <= near < far:
            raise ValueError(f"near={near}, far={far}: near must be at least 0 and far beyond it")
        self.root, self.downscale, self.half, self.near, self.far = root, downscale, half, near, far
        self.test_split, self.test_skip = test_split, test_skip

    def read(self) -> list[Scene]:
        return each(self.root, "transforms_train.json", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        if not (root / "transforms_train.json").is_file():
            other = "; data=transforms reads its transforms.json" if (root / "transforms.json").is_file() else ""
            raise NifError(f"{root}: no transforms_train.json{other}")
        transform = Transform((0.0, 0.0, 0.0), 1 / self.half)
        train, lost = self._views(root / "transforms_train.json", transform, 1)
        test: list[View] = []
        if (root / f"transforms_{self.test_split}.json").is_file():
            test, more = self._views(root / f"transforms_{self.test_split}.json", transform, self.test_skip)
            lost += more
        missing = f", {lost} frames without a picture" if lost else ""
        return Scene(
            id,
            transform,
            cube(1.0),
            self.near / self.half,
            self.far / self.half,
            train,
            test,
            background=self.background,
            up=(0.0, 0.0, 1.0),
            report=f"{describe(train)}, {len(test)} test views{missing}; box +-{self.half:g}, {self.near:g} to {self.far:g} away",
        )

    def _views(self, path: Path, transform: Transform, skip: int) -> tuple[list[View], int]:
        file = read_json(path)
        if path.name != "transforms_train.json" and file.get("frames") == []:
            return [], 0
        frames = frames_of(file, path)[::skip]
        poses = [normalised(rigid(f.get("transform_matrix"), f"{path}: frame {name_of(f)}"), transform) for f in frames]
        return read_frames(file, frames, path, poses, self.downscale)
