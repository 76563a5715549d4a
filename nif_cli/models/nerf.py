"""NeRF: scenes from images with cameras."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import Needs
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.scenes.scene import RayBatch, Scene
from nif_cli.data.scenes.visual_hull import visual_hull
from nif_cli.fields.network import RadianceNetwork
from nif_cli.models import scene_field
from nif_cli.models.model import Instance, Model
from nif_cli.models.ray_losses import color_error, depth_term, nothing, random_behind
from nif_cli.models.ray_samplers import HierarchicalSampler, OccupancySampler, ray_sampler
from nif_cli.models.scene_field import BoundRadiance, Codes, Hierarchical, Marching
from nif_cli.rendering.occupancy_grid import OccupancyGrid
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.volume import RenderedRays, render_rays

LOOKS = 2**17  # cells that are looked at together, at most: cascades have millions
TRAINED_TO = 1e-3  # the transmittance at which rays end while training


class Nerf(Model):
    """Squared error (or Huber's, where `huber` is positive) of rendered colours. Rays are sampled as the
    network asks for: by a coarse one (field=nerf: one loss for each network), or by a grid of occupied cells
    (field=ngp); the settings are those of `ray_samplers`, null for their defaults.

    The grid looks at half of its cells in the first tenth of the training, later at a tenth. Scenes that
    share shapes or appearances get `shape_code` and `appearance_code` numbers each; 0: none.
    """

    learns = Views
    distances = False  # what its network's geometry is
    units: ClassVar = {"psnr held-out": "dB"}

    def __init__(
        self,
        field: Callable[..., RadianceNetwork],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float | None = None,
        huber: float = 0.0,
        coarse: int | None = None,
        fine: int | None = None,
        resolution: int | None = None,
        threshold: float | None = None,
        samples: int | None = None,
        first_samples: int | None = None,
        steps: int | None = None,
        first_steps: int | None = None,
        growth: float | None = None,
        update: int | None = None,
        cone: float | None = None,
        hull: bool | None = None,
        shape_code: int = 0,
        appearance_code: int = 0,
        code_lr: float = 1e-3,
        depth: float = 0.0,
    ):
        settings: dict[str, Any] = dict(
            coarse=coarse, fine=fine, resolution=resolution, threshold=threshold, samples=samples,
            first_samples=first_samples, steps=steps, first_steps=first_steps, growth=growth,
            update=update, cone=cone, hull=hull,
        )  # fmt: skip
        sizes = {"shape_code": shape_code, "appearance_code": appearance_code}
        try:
            network = field(**sizes)
        except TypeError as error:
            raise ValueError("colours by direction have field=nerf and field=ngp, and no other") from error
        if network.distances != self.distances:
            raise ValueError("field=neus goes with model=neus, which learns a distance, and no other does")
        super().__init__(network.rate if lr is None else lr, optimizer, scheduler)
        self.network = network
        if min(shape_code, appearance_code, huber, depth) < 0 or not code_lr > 0:
            raise ValueError(f"{sizes}, code_lr={code_lr}, huber={huber}, depth={depth}: not negative")
        self.hierarchical, self.huber = network.hierarchical, huber
        self.sampler = ray_sampler(self.hierarchical, settings)
        self.coarse_network = field(**sizes) if self.hierarchical else None
        self.code_sizes, self.code_lr, self.depth = sizes, code_lr, depth
        self.grid: OccupancyGrid | None = None
        self.next_rays = 0 if self.hierarchical else self._by_grid.first_samples // 32  # of the next batch
        self.codes = Codes([], 0, 0)
        self.per_ray: Tensor
        self.register_buffer("per_ray", torch.tensor(32.0))  # samples that a ray takes, lately

    # scenes

    @property
    def needs(self) -> Needs:
        return Needs("model=nerf", rays=None if self.hierarchical else lambda: self.next_rays)

    def attach_data(self, data: Views) -> None:
        scenes = data.meet(self.needs)
        if len(scenes) > 1 and not any(self.code_sizes.values()):
            raise NifError(
                f"data: {len(scenes)} scenes in one network: give model.shape_code= and "
                "model.appearance_code= (16, say), or train them one by one"
            )
        self.instances = {s.id: Instance(s.id, s.transform, scene=s) for s in scenes}
        if self.depth and not any(v.read_depth for s in scenes for v in s.train):
            raise NifError("model.depth: the data has no depths (depth_file_path in transforms.json)")
        self._make(scenes)
        self.backgrounds = [None if data.background == "random" else s.background for s in scenes]
        if self.grid is None:
            return
        inside = torch.zeros_like(self.grid.allowed, dtype=torch.bool)
        for scene in scenes:
            here = self.grid.within(scene.bounds)
            if self._by_grid.hull and scene.background is not None and scene.ndc is None:
                here &= visual_hull(self.grid, scene.train)
            inside |= here
        if not inside.any():
            raise NifError(
                "the outlines in the images leave nothing in the scene's box: are its poses, and its "
                "alpha, right? model.hull=false trains without them"
            )
        self.grid.allow(inside)
        if self.device.type == "cpu":
            codes = self.codes(torch.zeros(2, dtype=torch.long))
            scene_field.compile_march(self.network, self._marching(0.0), codes)

    def allocate(self, ids: list[str]) -> None: ...  # with the scenes, in restore_instances

    def restore_instances(self, saved: list[dict]) -> None:
        super().restore_instances(saved)
        self._make([i.scene for i in self.instances.values() if i.scene is not None])

    def _make(self, scenes: Sequence[Scene]) -> None:
        """What depends on the scenes: codes, and the grid over the largest of them."""
        if not scenes:
            raise ValueError("a run of model=nerf without scenes")
        self.codes = Codes(scenes, **self.code_sizes)
        largest = max(float(s.bounds.abs().max()) for s in scenes)
        if not largest <= 128:
            raise ValueError(
                f"a scene that reaches {largest:g} units from the origin of normalised space: 128 at most"
            )
        cascades = 1 + max(0, math.ceil(math.log2(max(largest - 1e-4, 1e-9))))
        self.even = cascades == 1 or any(s.ndc is not None for s in scenes)
        if not self.hierarchical:
            try:
                self.grid = self._by_grid.grid(cascades)
            except ValueError as error:  # by this scene's cascades
                raise NifError(f"model: {error}") from error
            if self.grid.extent > 1:
                self.network.span(self.grid.extent)

    def field(
        self, id: str, shape: str | None = None, appearance: str | None = None
    ) -> BoundRadiance | scene_field.BoundSurface:
        """A known scene; its geometry or its materials those of other instances, where these are given."""
        known = list(self.instances)
        scene = self.instances[shape or id].scene
        assert scene is not None
        codes = []
        for kind, other in (("shape", shape), ("appearance", appearance)):
            if other not in (None, id) and kind not in self.codes:
                raise NifError(
                    f"{kind}={other}: this run has no {kind} codes; train with model.{kind}_code=16"
                )
            code = self.codes.of(kind, torch.tensor([known.index(other or id)], device=self.device))
            codes.append(None if code is None else code[0].detach())
        sampling = self._marching(1.0) if self.coarse_network is None else self._hierarchical(codes[0])
        return BoundRadiance(self.network, sampling, scene, codes[0], codes[1])

    @property
    def _by_grid(self) -> OccupancySampler:
        assert isinstance(self.sampler, OccupancySampler)
        return self.sampler

    def _marching(self, progress: float) -> Marching:
        assert self.grid is not None
        return self._by_grid.marching(self.grid, progress, self.even)

    def _hierarchical(self, shape: Tensor | None) -> Hierarchical:
        assert self.coarse_network is not None
        assert isinstance(self.sampler, HierarchicalSampler)
        return Hierarchical(self.coarse_network, shape, self.sampler.coarse, self.sampler.fine)

    # training

    def parameter_groups(self) -> list[dict]:
        """Weights decay by the optimizer's `weight_decay`, tables and codes do not."""
        networks = [n for n in (self.network, self.coarse_network) if n is not None]
        groups = [g for n in networks for g in self.groups_of(n)]
        for group in groups:
            if "eps" in group:  # a table
                group["weight_decay"] = 0.0
        if list(self.codes.parameters()):
            groups.append({"params": list(self.codes.parameters()), "lr": self.code_lr, "weight_decay": 0.0})
        return groups

    @cached_property
    def generator(self) -> torch.Generator:
        if self.device.type == "cuda":
            return torch.cuda.default_generators[self.device.index or 0]
        return torch.default_generator

    def loss(self, batch: RayBatch) -> dict[str, Tensor]:
        truth, behind = self._truth(batch)
        if self.coarse_network is not None:
            rays = Rays(batch.origins, batch.directions, batch.views)
            codes, generator = self.codes(batch.scene), self.generator if self.training else None
            sampling = self._hierarchical(codes[0])
            seen = sampling.render(self.network, rays, batch.near, batch.far, codes, generator)
            # both networks by the same rays (eq. 6): the coarse one has to say where to look
            first, last = (self._error(x, truth, behind, batch) for x in seen)
            return {"coarse": first, "fine": last} | depth_term(seen[-1], batch, self.depth)
        light = self._light(batch)
        return {"color": self._error(light, truth, behind, batch)} | depth_term(light, batch, self.depth)

    def _truth(self, batch: RayBatch) -> tuple[Tensor, Tensor]:
        """What rays show [R, 3], in front of what is behind them [R, 3]."""
        behind, alpha = self._behind(batch), batch.colors[:, 3:]
        return batch.colors[:, :3] * alpha + behind * (1 - alpha), behind

    def _light(self, batch: RayBatch) -> RenderedRays:
        """What the grid's march sees; while training the samples that it took are counted."""
        rays = Rays(batch.origins, batch.directions, batch.views)
        light, taken = self._through(rays, batch, self._marching(self.progress() if self.training else 1.0))
        if self.training:
            assert self.grid is not None
            if not taken:  # nothing is left to learn from: everything is open again
                self.grid.occupied = self.grid.allowed.clone()
                table = self.network.grid.table  # type: ignore[union-attr]
                light.color = light.color + nothing(self.parameters(), cast("Tensor", table))
            # samples cost, rays do not: the next batch has as many rays as take the samples wanted
            self.per_ray.lerp_(torch.tensor(max(1.0, taken / max(1, len(rays))), device=self.device), 0.1)
        return light

    def _through(self, rays: Rays, batch: RayBatch, marching: Marching) -> tuple[RenderedRays, int]:
        def radiance(points: Tensor, directions: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
            return self.network(points, directions, *self.codes(batch.scene[samples.ray]))

        generator = self.generator if self.training else None
        march = marching.march(rays, batch.near, batch.far, generator)
        return render_rays(radiance, march, rays, 16, TRAINED_TO)

    def _behind(self, batch: RayBatch) -> Tensor:
        if not self.training:
            return torch.ones(len(batch), 3, device=self.device)
        return random_behind(batch, self.backgrounds)

    def _error(self, light: RenderedRays, truth: Tensor, behind: Tensor, batch: RayBatch) -> Tensor:
        return color_error(light.over(behind), truth, batch.valid, self.huber)

    def terms(self, batch: RayBatch) -> dict[str, Tensor]:
        terms = super().terms(batch)
        if self.device.type == "cpu" and not all(torch.isfinite(term) for term in terms.values()):
            raise NifError(
                f"the loss is not finite after {self.step} steps: try a smaller model.lr (it is {self.lr:g})"
            )
        return terms

    def before_step(self) -> None:
        if self.grid is not None and self.step and self.step % self._by_grid.update == 0:
            self._look()

    def begin(self) -> None:
        """How many rays the next batch has: as many as take this step's samples."""
        if self.grid is not None:
            samples = self._by_grid.wanted(self.progress())
            self.next_rays = int(min(max(samples / float(self.per_ray), 64), 4 * samples))

    after_step = begin

    @torch.no_grad()
    def _look(self) -> None:
        """Update the grid; where there are several shapes, by each in turn."""
        assert self.grid is not None
        code = self.codes.turn("shape", self.step // self._by_grid.update)

        def density(points: Tensor) -> Tensor:
            return self.network.density(points, None if code is None else code.expand(len(points), -1))  # type: ignore

        share = 0.5 if self.progress() < 0.1 else 0.1
        self.grid.update(density, min(share, LOOKS / max(1, int(self.grid.allowed.sum()))), self.generator)

    def validation_metrics(self, batch: RayBatch) -> dict[str, Tensor]:
        """The squared error of held-out rays on white, and their PSNR."""
        terms = self.loss(batch)
        error = terms["fine" if self.hierarchical else "color"]
        return {"val/loss": error, "val/psnr": -10 * torch.log10(error)}

    def final_metrics(self, data: Views) -> dict[str, float]:
        """PSNR of rays of the held-out views; nif evaluate renders them whole."""
        with torch.no_grad():
            error = float(self.validation_metrics(data.watched(self.device))["val/loss"])
        return {"psnr held-out": -10 * math.log10(error) if error > 0 else math.inf}
