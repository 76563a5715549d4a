"""NeuS (Wang et al. 2021): a surface from images with cameras, a signed distance learned through volume
rendering."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import Needs
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.scenes.scene import RayBatch
from nif_cli.fields.network import RadianceNetwork
from nif_cli.fields.neus import NeusNetwork
from nif_cli.models.nerf import LOOKS, TRAINED_TO, Nerf
from nif_cli.models.scene_field import BoundSurface, Marching
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.volume import Alpha, RenderedRays, render_rays

ANYWHERE = 8  # one place anywhere for so many samples
SHARPEST = 1e5  # beyond it a training has gone wrong: a surface 1e-5 thick


class Neus(Nerf):
    """The L1 error of rendered colours, and four terms. `eikonal`: gradients of length 1, at samples and at
    an eighth as many places anywhere; `curvature`: gradients that turn little from one cell to the next,
    fading out (Li et al. 2023 take the Laplacian); `mask`: where images are transparent, the cross-entropy of
    opacity; `hull_weight`: no inside where some image sees through.

    One scene, in the cube [-1, 1]^3. Rays are sampled in the occupied cells of a grid, which are those that
    the distance and the sharpness make dense; its settings are those of `OccupancySampler`. Levels of the
    hash grid open one by one until `opened` of the training; `anneal` of it surfaces seen from behind have a
    gradient. The sharpness learns at `sharpness_lr`, of its logarithm.
    """

    distances = True
    network: NeusNetwork
    _transparent = True
    _taken: list[tuple[Tensor, Tensor]]

    def __init__(
        self,
        field: Callable[..., RadianceNetwork],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float | None = None,
        eikonal: float = 0.1,
        curvature: float = 0.02,
        mask: float = 0.1,
        hull_weight: float = 1.0,
        sharpness_lr: float = 1e-2,
        opened: float = 0.5,
        anneal: float = 0.1,
        resolution: int | None = None,
        threshold: float | None = None,
        samples: int | None = None,
        first_samples: int | None = None,
        steps: int | None = None,
        first_steps: int | None = None,
        growth: float | None = None,
        update: int | None = None,
        hull: bool | None = None,
    ):
        sampling: dict[str, Any] = dict(
            resolution=resolution, threshold=threshold, samples=samples, first_samples=first_samples,
            steps=steps, first_steps=first_steps, growth=growth, update=update, hull=hull,
        )  # fmt: skip
        super().__init__(field, optimizer, scheduler, lr=lr, **sampling)
        if min(eikonal, curvature, mask, hull_weight) < 0 or not sharpness_lr > 0:
            raise ValueError(
                f"eikonal={eikonal}, curvature={curvature}, mask={mask}, hull_weight={hull_weight}, "
                f"sharpness_lr={sharpness_lr}: weights are not negative, a rate is positive"
            )
        if not 0 <= opened <= 1 or not 0 <= anneal <= 1:
            raise ValueError(f"opened={opened}, anneal={anneal}: fractions of the training")
        self._taken = []  # a step's samples and the gradients there
        self.weights = {"eikonal": eikonal, "curvature": curvature, "mask": mask, "hull": hull_weight}
        self.sharpness_lr, self.opened, self.anneal = sharpness_lr, opened, anneal

    # scenes

    @property
    def needs(self) -> Needs:
        return Needs("model=neus", rays=lambda: self.next_rays)

    def attach_data(self, data: Views) -> None:
        scenes = data.meet(self.needs)
        if len(scenes) > 1:
            raise NifError(
                f"data: {len(scenes)} scenes, and model=neus learns one: name one, or train them one by one"
            )
        if scenes[0].ndc is not None or float(scenes[0].bounds.abs().max()) > 1 + 1e-4:
            raise NifError(
                f"data: {scenes[0].id} is unbounded, and model=neus learns a surface within one cube: "
                "data.aabb_scale=1 (data.ndc=false) cuts it out, images with alpha or masks leave the rest "
                "away; or take model=nerf"
            )
        super().attach_data(data)
        self._transparent = scenes[0].background is not None
        if not self._transparent:
            print(
                "the images are opaque: what is not the surface is taken to be black; alpha or masks would "
                "say what is"
            )

    def _make(self, scenes: Any) -> None:
        super()._make(scenes)
        assert self.grid is not None
        self.grid.decay = 1e-6  # a distance is known anew at each look: nothing is remembered

    def field(self, id: str, shape: str | None = None, appearance: str | None = None) -> BoundSurface:
        scene = self.instances[id].scene
        assert scene is not None
        for kind, other in (("shape", shape), ("appearance", appearance)):
            if other not in (None, id):
                raise NifError(f"{kind}={other}: model=neus has no {kind} codes; model=nerf has")
        return BoundSurface(self.network, self._marching(1.0), scene)

    # training

    def parameter_groups(self) -> list[dict]:
        groups, sharpness = super().parameter_groups(), self.network.log_sharpness
        for group in groups:
            group["params"] = [p for p in group["params"] if p is not sharpness]
        return [*groups, {"params": [sharpness], "lr": self.sharpness_lr, "weight_decay": 0.0}]

    def loss(self, batch: RayBatch) -> dict[str, Tensor]:
        if not self.training:
            return super().loss(batch)
        self._taken = []
        truth, behind = self._truth(batch)
        light, anywhere = self._light(batch), self._anywhere()
        terms = {"color": self._error(light, truth, behind, batch)}
        points, gradients = (torch.cat(x) for x in zip(*self._taken, (anywhere[:0],) * 2, strict=True))
        some, beside = self._beside(points)
        here = self.network.geometry(torch.cat((anywhere, beside)))
        unit = torch.cat((gradients, here.gradient)).norm(dim=1) - 1
        terms["eikonal"] = self.weights["eikonal"] * unit.square().mean()
        if len(beside):
            turned = (here.gradient[len(anywhere) :] - gradients[some]).norm(dim=1).mean()
            terms["curvature"] = self.weights["curvature"] * (1 - self.progress()) * turned
        assert self.grid is not None
        if self.weights["hull"]:
            seen_through = self.grid.allowed.view(-1)[self.grid.at(anywhere)] == 0
            inside = (here.distance[: len(anywhere)] * seen_through).clamp(min=0)
            terms["hull"] = self.weights["hull"] * inside.mean()
        if self.weights["mask"] and self._transparent:
            opacity = light.opacity.clamp(1e-3, 1 - 1e-3)
            error = torch.nn.functional.binary_cross_entropy(opacity, batch.colors[:, 3], reduction="none")
            terms["mask"] = self.weights["mask"] * (error * batch.valid).mean()
        return terms

    def _through(self, rays: Rays, batch: RayBatch, marching: Marching) -> tuple[RenderedRays, int]:
        share = min(1.0, self.progress() / self.anneal) if self.training and self.anneal else 1.0

        def radiance(points: Tensor, directions: Tensor, samples: Samples) -> tuple[Tensor | Alpha, Tensor]:
            here = self.network.geometry(points)
            self._taken.append((points, here.gradient))
            return self.network.light(points, directions, samples, here, share)

        generator = self.generator if self.training else None
        march = marching.march(rays, batch.near, batch.far, generator)
        return render_rays(radiance, march, rays, 16, TRAINED_TO)

    def _anywhere(self) -> Tensor:
        """Places all over the cube."""
        count = max(256, int(self._by_grid.wanted(self.progress())) // ANYWHERE)
        return 2 * torch.rand((count, 3), generator=self.generator, device=self.device) - 1

    def _beside(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Some of the samples, and places a cell of the finest open level beside them."""
        count = len(points) // ANYWHERE if self.weights["curvature"] else 0
        some = torch.randint(max(1, len(points)), (count,), generator=self.generator, device=self.device)
        away = torch.randn((count, 3), generator=self.generator, device=self.device)
        cell = 2 / self.network.grid.levels.scale[int(self.network.open) - 1]
        return some, points[some] + cell * torch.nn.functional.normalize(away, dim=1)

    def _behind(self, batch: RayBatch) -> Tensor:
        if self._transparent:
            return super()._behind(batch)
        return torch.zeros(len(batch), 3, device=self.device)

    def _error(self, light: RenderedRays, truth: Tensor, behind: Tensor, batch: RayBatch) -> Tensor:
        """L1 while training (eq. 9), the squared error of what is watched."""
        if not self.training:
            return super()._error(light, truth, behind, batch)
        each = (light.over(behind) - truth).abs()[batch.valid]
        return each.mean() if each.numel() else each.sum()

    def terms(self, batch: RayBatch) -> dict[str, Tensor]:
        terms, sharpness = super().terms(batch), float(self.network.sharpness.detach())
        if not sharpness < SHARPEST:
            raise NifError(
                f"the surface has become {1 / sharpness:.1g} thin after {self.step} steps, which is no "
                f"surface any more: try a smaller model.lr (it is {self.lr:g}) or model.sharpness_lr (it is "
                f"{self.sharpness_lr:g}); the last checkpoint stays"
            )
        return terms

    def before_step(self) -> None:
        first, levels = self.network.first_levels, len(self.network.grid.levels.rows)
        share = min(1.0, self.progress() / self.opened) if self.opened else 1.0
        self.network.open.fill_(first + int(share * (levels - first)))
        if self.step == 0:
            self._look()
        super().before_step()

    @torch.no_grad()
    def _look(self) -> None:
        """Cells that may hold something dense, by the distances of their middles and how far they reach."""
        assert self.grid is not None
        reach = math.sqrt(3) / self.grid.resolution

        def density(points: Tensor) -> Tensor:
            return self.network.density_at(self.network.distance(points) + reach)

        share = 1.0 if self.step == 0 else 0.5 if self.progress() < 0.1 else 0.1
        self.grid.update(density, min(share, LOOKS / max(1, int(self.grid.allowed.sum()))), self.generator)
