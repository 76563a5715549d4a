"""The data module of views: images with cameras. Pixels live on the training device as bytes, and rays are
drawn there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import Batches, Data
from nif_cli.data.memory import memory_limit
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.poses import cut
from nif_cli.data.scenes.scene import Background, RayBatch, Scene, View
from nif_cli.data.scenes.sighting import sighted
from nif_cli.rendering.cameras import Camera as Camera
from nif_cli.rendering.cameras import camera_directions, unproject
from nif_cli.rendering.ndc import Ndc as Ndc
from nif_cli.rendering.rays import Rays

# pixels of different lenses whose directions are kept, 12 bytes each; beyond them they are found anew
TABLE = 2**22


class Views(Data):
    """Scenes, each seen by images with cameras; a subclass reads them. Batches of `batch_rays` rays (a
    model may change that between steps) are drawn from all pixels that count, of all scenes; batch k is a
    function of (seed, k).

    `background` shows through transparent images: white, black, or random (a new colour for each ray while
    training, white afterwards). Images that take more than `memory` are refused, with the `downscale` that
    would fit.
    """

    holds = "views (images with cameras)"
    kind = "views"
    keys = "data.near"
    """What moves or scales a scene's box, and its near and far, for messages."""
    taken_for: str | None = None
    """What the cameras' axes are taken for, where a file may have others."""

    def __init__(
        self,
        batch_rays: int = 4096,
        background: Background = "white",
        memory: str | int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if batch_rays < 1:
            raise ValueError(f"batch_rays={batch_rays}: at least 1")
        if background not in ("white", "black", "random"):
            raise ValueError(f"background={background}: must be white, black or random")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed={seed}: must be in 0 .. 2^31 - 1")
        self.batch_rays, self.seed = batch_rays, seed
        self.background: Background = background
        self.memory = memory_limit(memory)
        self.scenes: list[Scene] = []
        self.pool: RayPool | None = None

    @abstractmethod
    def read(self) -> list[Scene]:
        """The scenes. Images are not read before they are needed, but their sizes are known."""

    def prepare(self) -> list[Scene]:
        if not self.scenes:
            scenes = self.read()
            for scene in scenes:
                if not 0 <= scene.near < scene.far:
                    raise NifError(
                        f"data.near={scene.near:g}: {scene.id} ends at {scene.far:g}; near must lie before "
                        "that"
                    )
            needed = sum(4 * v.camera.width * v.camera.height for s in scenes for v in s.train)
            if needed > self.memory:
                fitting = next(n for n in range(2, 1000) if needed / n**2 <= self.memory)
                count = sum(len(s.train) for s in scenes)
                raise NifError(
                    f"data: its {count} images take {needed / 2**30:.1f} GiB, more than data.memory "
                    f"({self.memory / 2**30:.1f} GiB): data.downscale={fitting} would fit"
                )
            self.scenes = [_looked_at(scene, sighted(scene, self.keys, self.taken_for)) for scene in scenes]
        return self.scenes

    def summary(self) -> str:
        train, test = (sum(len(getattr(s, part)) for s in self.scenes) for part in ("train", "test"))
        pixels = sum(v.camera.width * v.camera.height for s in self.scenes for v in s.train)
        scenes = f"{len(self.scenes)} scene{'s' * (len(self.scenes) != 1)}"
        return f"{scenes}, {train} views to train on and {test} held out, {pixels:,} pixels"

    def make_pool(self, device: torch.device) -> RayPool:
        if self.pool is None or self.pool.device != device:
            self.pool = RayPool(self, device)
        return self.pool

    def train_batches(self, device: torch.device) -> RayBatches:
        return RayBatches(self, device)

    def held_out_batches(self, device: torch.device) -> list[RayBatch]:
        """Rays of the held-out views, or of the training views where none are."""
        return [self.watched(device)]

    def watched(self, device: torch.device, count: int = 4096) -> RayBatch:
        """At most `count` rays to watch training by, always the same."""
        views = [(v, n) for n, s in enumerate(self.prepare()) for v in (s.test or s.train)]
        chosen = views[:: max(1, len(views) // 16)][:32]
        pool = RayPool(self, device, chosen)
        return pool.draw(count, torch.Generator(device).manual_seed(self.seed))


def each(root: str | Sequence[str], file: str, read: Callable[[str, Path], Scene]) -> list[Scene]:
    """A scene of every root: a folder or a file, or a list of them. They are called by their folders."""
    paths = [Path(r).expanduser() for r in ([root] if isinstance(root, str) else root)]
    names = [(p.resolve().parent if p.is_file() else p.resolve()).name or "scene" for p in paths]
    for path, name in zip(paths, names, strict=True):
        if not path.exists():
            raise NifError(f"data.root={path}: no such folder; it is the one that holds {file}")
        if names.count(name) > 1:
            raise NifError(f"data.root: two scenes are called '{name}'; rename a folder")
    if not paths:
        raise NifError("data.root: an empty list; name the folder of a scene, or several")
    return [read(name, path) for name, path in zip(names, paths, strict=True)]


def _looked_at(scene: Scene, more: Report) -> Scene:
    """The scene without a background where its images are opaque, with words in its report where its box
    cuts it off and of its masks."""
    scene = replace(scene, report=scene.report + _masked(scene) + more)
    if scene.train and not any(v.alpha and v.pixels.shape[2] == 4 for v in scene.train):
        return replace(scene, background=None)
    ratio = cut(scene)
    if ratio is None:
        return scene
    half = (scene.bounds[1] - scene.bounds[0]).max() / 2 / scene.transform.scale
    note = f"not all of it lies in the box: one {ratio:g} times as large (+-{ratio * half:.3g}) would hold it"
    return replace(scene, report=scene.report + doubt(f"; {note}"))


def _masked(scene: Scene) -> Report:
    """What to say of masks that hide nothing, or all."""
    masks = [(v.name, valid) for v in scene.train if (valid := v.valid) is not None]
    idle = [name for name, valid in masks if bool(valid.all())]
    full = [name for name, valid in masks if not bool(valid.any())]
    said = Report(f"; {len(idle)} of {len(masks)} masks hide nothing (the first: {idle[0]})" if idle else "")
    if full:
        said += doubt(
            f"; doubtful: {len(full)} of {len(masks)} masks hide all of their image (the first: {full[0]})"
        )
    return said


def view_rays(scene: Scene, view: View) -> Rays:
    """The rays of all pixels of a view, row by row from the top left."""
    return scene.rays(view)


class RayPool:
    """The pixels of views on one device, as bytes; by default of all training views."""

    def __init__(self, data: Views, device: torch.device, views: list[tuple[View, int]] | None = None):
        scenes = data.prepare()
        views = [(v, n) for n, s in enumerate(scenes) for v in s.train] if views is None else views
        if not views:
            raise NifError("data: no view is left to train on")
        self.device = device
        sizes = [v.camera.width * v.camera.height for v, _ in views]
        self.starts = torch.tensor([0, *sizes], device=device).cumsum(0)
        self.colors = torch.empty(sum(sizes), 4, dtype=torch.uint8, device=device)
        counts = torch.ones(sum(sizes), dtype=torch.bool)
        masked = False
        known = [v.read_depth is not None for v, _ in views]
        self.depths = torch.zeros(sum(sizes), device=device) if any(known) else None
        for (view, _), start, size in zip(views, self.starts.tolist(), sizes, strict=False):
            pixels = view.pixels.reshape(size, -1)
            self.colors[start : start + size, : pixels.shape[1]] = pixels.to(device)
            if pixels.shape[1] == 3:
                self.colors[start : start + size, 3] = 255
            if self.depths is not None and view.read_depth is not None:
                depth = torch.from_numpy(view.read_depth()).reshape(-1)
                self.depths[start : start + size] = depth.to(device)
            valid = view.valid
            if valid is not None:
                masked, counts[start : start + size] = True, valid.reshape(-1)
        if not bool((self.colors[:, 3] > 0).any()):
            raise NifError("data: all images are fully transparent: there is nothing to learn")
        self.allowed = torch.nonzero(counts)[:, 0].to(device) if masked else None
        if self.allowed is not None and not len(self.allowed):
            raise NifError("data: the masks leave no pixel to train on")
        cameras = [v.camera for v, _ in views]
        kinds = list(dict.fromkeys(cameras))
        self.tables: Tensor | None = None
        if sum(c.width * c.height for c in kinds) <= TABLE:  # the lenses undone once for all
            self.tables = torch.cat([camera_directions(c) for c in kinds]).to(device)
            sizes = [0, *(c.width * c.height for c in kinds)]
            begins = torch.tensor(sizes).cumsum(0)
            self.table = begins[[kinds.index(c) for c in cameras]].to(device)
        self.parameters = torch.stack([c.parameters for c in cameras]).float().to(device)
        self.kinds = sorted({c.kind for c in cameras})
        self.kind = torch.tensor([self.kinds.index(c.kind) for c in cameras], device=device)
        self.widths = torch.tensor([c.width for c in cameras], device=device)
        self.poses = torch.stack([v.pose for v, _ in views]).to(device)
        self.scene = torch.tensor([n for _, n in views], device=device)
        self.limits = torch.tensor([[s.near, s.far] for s in scenes], device=device)
        self.ndc = [(n, s.ndc) for n, s in enumerate(scenes) if s.ndc is not None]

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        """`count` rays."""
        among = len(self.colors) if self.allowed is None else len(self.allowed)
        index = torch.randint(among, (count,), generator=generator, device=self.device)
        return self.at(index if self.allowed is None else self.allowed[index])

    def at(self, index: Tensor) -> RayBatch:
        """The rays of these pixels, numbered through all views."""
        view = torch.searchsorted(self.starts, index, right=True) - 1
        pixel = index - self.starts[view]
        local = self._local(view, pixel)
        valid = torch.isfinite(local).all(1)
        local = torch.where(valid[:, None], local, local.new_tensor([0.0, 0.0, -1.0]))
        pose, scene = self.poses[view], self.scene[view]
        # no matmul: on a GPU that may have 10 bits, half a pixel
        directions = (pose[:, :, :3] * local[:, None]).sum(-1)
        rays = Rays(pose[:, :, 3], directions)
        for n, ndc in self.ndc:
            mapped, here = ndc.rays(rays), (scene == n)[:, None]
            rays = Rays(
                torch.where(here, mapped.origins, rays.origins),
                torch.where(here, mapped.directions, rays.directions),
                rays.views,
            )
        near, far = self.limits[scene].unbind(1)
        depth = None
        if self.depths is not None:  # along the ray, of what lies ahead
            ahead = -local[:, 2]
            depth = torch.where(valid & (ahead > 1e-3), self.depths[index] / ahead.clamp(min=1e-3), 0.0)
        return RayBatch(
            rays.origins,
            rays.directions,
            rays.views,
            near,
            far,
            self.colors[index].float() / 255,
            valid,
            scene,
            depth,
        )

    def _local(self, view: Tensor, pixel: Tensor) -> Tensor:
        """Directions in the axes of each camera."""
        if self.tables is not None:
            return self.tables[self.table[view] + pixel]
        width, parameters = self.widths[view], self.parameters[view]
        place = torch.stack((pixel % width, pixel // width), -1) + 0.5
        made = [unproject(parameters, place, kind) for kind in self.kinds]
        if len(made) == 1:
            return made[0]
        return torch.stack(made, 1)[torch.arange(len(view), device=view.device), self.kind[view]]


class RayBatches(Batches[Views]):
    def __init__(self, data: Views, device: torch.device):
        self.data, self.pool = data, data.make_pool(device)
        self.generator = torch.Generator(device)

    def batch(self, k: int) -> RayBatch:
        self.generator.manual_seed(self.data.seed * 7_368_787 + k + 1)
        rays = self.data.needs.rays
        return self.pool.draw(self.data.batch_rays if rays is None else rays(), self.generator)
