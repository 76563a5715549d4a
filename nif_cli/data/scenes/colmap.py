"""Scenes from COLMAP's sparse models: which of its models is read, where its images and masks lie, and how
the scene lies in its units."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.datamodule import Views, each
from nif_cli.data.scenes.formats.colmap_model import MODELS as MODELS
from nif_cli.data.scenes.formats.colmap_model import (
    Posed,
    header,
    lines_of,
    read_binary_model,
    read_text_model,
)
from nif_cli.data.scenes.formats.naming import found, label, parts_of, whereabouts
from nif_cli.data.scenes.formats.photos import mask, view
from nif_cli.data.scenes.formats.transforms import describe
from nif_cli.data.scenes.poses import around_cameras, cube, farthest, held_out_views, mean_up, normalised
from nif_cli.data.scenes.scene import Background, Scene, View
from nif_cli.rendering.cameras import Camera
from nif_cli.untrusted import shown


class ColmapViews(Views):
    """`root`: a folder with COLMAP's sparse/0 (or sparse) and the images in `images`, or the model's own
    folder in it, or a list of them, a scene each. Of several models the one with most images is read.

    The point that all cameras look at is the centre, the farthest camera at distance 1; `aabb_scale` is the
    half side of the box, by default the power of two (at most 16) that holds 99 % of the sparse points. The
    images of images_<downscale> are taken where there are any; masks lie in masks/<name>.png, black is
    ignored.
    """

    keys = "data.aabb_scale, data.near"

    def __init__(
        self,
        root: str | Sequence[str],
        images: str = "images",
        downscale: int = 1,
        hold_out: int = 8,
        aabb_scale: float | None = None,
        near: float | None = None,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_rays, background, memory, seed)
        if downscale < 1 or hold_out < 0 or (near is not None and not near > 0):
            raise ValueError(
                f"downscale={downscale}, hold_out={hold_out}, near={near}: at least 1, at least 0, positive"
            )
        if aabb_scale is not None and not 0 < aabb_scale <= 128:
            raise ValueError(
                f"aabb_scale={aabb_scale}: the half side of the scene's box, above 0 and at most 128"
            )
        self.root, self.images, self.downscale, self.hold_out = root, images, downscale, hold_out
        self.aabb_scale, self.near = aabb_scale, near

    def read(self) -> list[Scene]:
        return each(self.root, "sparse/0", self._scene)

    def _scene(self, id: str, root: Path) -> Scene:
        model, others = _model(root)
        home = _home(root, model, self.images)
        if home != root:
            id, root = home.resolve().name if isinstance(self.root, str) else id, home
        cameras, posed, points = (
            read_binary_model(model) if _files(model) == "bin" else read_text_model(model)
        )
        if not posed:
            raise NifError(f"{model}: it holds no images with poses")
        poses = np.stack([p.pose for p in posed])
        transform = around_cameras(poses)
        moved = [normalised(pose, transform) for pose in poses]
        views, images = self._views(root, model, posed, moved, cameras)
        train, test = held_out_views(views, self.hold_out)
        seen = torch.from_numpy(transform.to_normalised(points)).float()
        half, near = self._box(seen, moved)
        beyond = float((seen.abs().amax(1) > half).float().mean()) if len(seen) else 0.0
        lost = len(posed) - len(views)
        notes = doubt(f", {lost} of {len(posed)} without an image") if lost else Report()
        notes += whereabouts(images, root, model)
        if (root / "masks").is_dir() and not any(v.read_mask for v in views):
            notes += doubt("; doubtful: no mask in masks is named as an image (masks/<name>.png)")
        notes += others
        notes += f"; {len(points):,} points, {beyond:.1%} of them outside the box" if len(points) else ""
        bounds, side = cube(half), 2 * half / transform.scale
        return Scene(
            id,
            transform,
            bounds,
            near,
            farthest(moved, bounds),
            train,
            test,
            background=self.background,
            up=mean_up(poses),
            protocol="mip360",
            report=(describe(views) + notes)
            + f"; box +-{half:g} ({side:.3g} of COLMAP's units), near {near:.2g}",
        )

    def _views(
        self,
        root: Path,
        model: Path,
        posed: list[Posed],
        moved: list[Float[Tensor, "3 4"]],
        cameras: dict[int, Camera],
    ) -> tuple[list[View], list[tuple[str, Path]]]:
        """The views whose images exist, and the images, by the model's names."""
        views, images = [], []
        for image, pose in zip(posed, moved, strict=True):
            path = found(image.name, root / self.images)
            if path is None:
                continue
            if image.camera not in cameras:
                named = shown(image.name)
                raise NifError(
                    f"{model}: {named} is of camera {image.camera}, which is not among the cameras"
                )
            masks = _mask(root, image.name, path)
            hides = None if masks is None else functools.partial(mask, masks, counts=True)
            camera = cameras[image.camera]
            views.append(view(label(image.name), path, pose, camera, self.downscale, hides))
            images.append((image.name, path))
        if not views:
            first = root / self.images / shown(posed[0].name, 300)
            raise NifError(
                f"{model}: none of its {len(posed)} images exists (the first: {first}); give "
                "data.images=<folder>"
            )
        return views, images

    def _box(self, seen: Float[Tensor, "P 3"], moved: list[Float[Tensor, "3 4"]]) -> tuple[float, float]:
        """Half the side of the box and how near rays begin: as given, or by the sparse points (in normalised
        space)."""
        half, near = self.aabb_scale, self.near
        if len(seen):
            few = len(seen) < 2**24  # as many as torch finds quantiles of
            far = float(seen.abs().amax(1).quantile(0.99)) if few else float(seen[:: 2**4].abs().max())
            half = half or float(2.0 ** np.clip(np.ceil(np.log2(max(far, 1e-3))), 0, 4))
            some = seen[:: max(1, len(seen) // 2000)]
            distances = torch.cat([(some - pose[:, 3]).norm(dim=1) for pose in moved])
            least = distances.quantile(0.001) if len(distances) < 2**24 else distances.min()
            near = near or max(0.02, 0.5 * float(least))
        return half or 4.0, near or 0.1


def _files(folder: Path) -> str | None:
    """Which kind of model lies in a folder: "bin" or "txt"; None: none."""
    kinds = ("bin", "txt")
    return next(
        (k for k in kinds if all((folder / f"{part}.{k}").is_file() for part in ("cameras", "images"))), None
    )


def _model(root: Path) -> tuple[Path, str]:
    """The folder of the sparse model with most images, and a word about the others."""
    if _files(root):
        return root, ""
    folders = [root / "sparse", root / "colmap" / "sparse", root / "colmap"]
    folders += [p for folder in folders if folder.is_dir() for p in sorted(folder.iterdir()) if p.is_dir()][
        :1000
    ]
    counts = {folder: _count(folder) for folder in folders if _files(folder)}
    if not counts:
        raise NifError(
            f"{root}: no COLMAP model: sparse/0/cameras.bin and images.bin (or .txt) are looked for"
        )
    chosen = max(counts, key=lambda folder: counts[folder])
    rest = [
        f"{folder.relative_to(root).as_posix()} with {counts[folder]}"
        for folder in counts
        if folder != chosen
    ]
    name = chosen.relative_to(root).as_posix()
    others = f"; {name} has most images ({counts[chosen]}): {', '.join(rest[:5])} not read" if rest else ""
    return chosen, others


def _count(folder: Path) -> int:
    """How many images a model says it has."""
    if _files(folder) == "bin":
        with (folder / "images.bin").open("rb") as file:
            start = file.read(8)
        count = int.from_bytes(start, "little")
        return count if count * 73 <= (folder / "images.bin").stat().st_size else 0
    return sum(header(line) is not None for line in lines_of(folder / "images.txt"))


def _home(root: Path, model: Path, images: str) -> Path:
    """The folder that the images' folder lies in: `root`, or above it where that is the model's own."""
    if model != root:
        return root
    above = [root, *list(root.resolve().parents)[:3]]
    return next((folder for folder in above if (folder / images).is_dir()), root)


def _mask(root: Path, name: str, image: Path) -> Path | None:
    """masks/<name>.png, or <name> with another suffix."""
    folder = root / "masks"
    if not folder.is_dir():
        return None
    inner = PurePosixPath(*[part for part in parts_of(name) if part != ".."] or ["image"])
    for wanted in (f"{inner}.png", str(inner.with_suffix(".png")), str(inner.with_suffix("")), image.stem):
        there = found(wanted, folder, (".png", ".jpg", ".jpeg"), elsewhere=False)
        if there is not None and there.resolve() != image.resolve():
            return there
    return None
