"""A radiance network bound to one scene: its codes, and how its rays are sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nif_cli.data.scenes.scene import Scene
from nif_cli.fields.neus import NeusNetwork
from nif_cli.optim.adam import Adam
from nif_cli.rendering.occupancy_grid import GridMarch, OccupancyGrid
from nif_cli.rendering.ray_samples import Samples, dense, importance, intervals, stratified
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.volume import Alpha, March, Once, RenderedRays, composite, render_rays


class Codes(nn.Module):
    """A code for each shape and each appearance of some scenes; 0 numbers: none. They start from N(0, 1 /
    size)."""

    def __init__(self, scenes: Sequence[Scene], shape_code: int, appearance_code: int):
        super().__init__()
        self.tables, self.rows = nn.ModuleDict(), dict[str, list[int]]()
        for kind, size in (("shape", shape_code), ("appearance", appearance_code)):
            names = [getattr(s, kind) or s.id for s in scenes]
            known = list(dict.fromkeys(names))
            if size and known:
                self.tables[kind] = table = nn.Embedding(len(known), size)
                nn.init.normal_(table.weight, std=1 / math.sqrt(size))
                self.rows[kind] = [known.index(name) for name in names]

    def __contains__(self, kind: str) -> bool:
        return kind in self.tables

    def of(self, kind: str, scene: Int64[Tensor, "N"]) -> Float[Tensor, "N Z"] | None:
        """The codes of scenes, by their numbers."""
        if kind not in self.tables:
            return None
        return self.tables[kind](torch.tensor(self.rows[kind], device=scene.device)[scene])

    def forward(
        self, scene: Int64[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N Z"] | None, Float[Tensor, "N A"] | None]:
        return self.of("shape", scene), self.of("appearance", scene)

    def turn(self, kind: str, number: int) -> Float[Tensor, "Z"] | None:
        """One code after the other, round and round."""
        if kind not in self.tables:
            return None
        table: Tensor = self.tables[kind].weight  # type: ignore[assignment]
        return table[number % len(table)]


@dataclass(frozen=True)
class Marching:
    """In the occupied cells of a grid, at steps of `step` (lengths of normalised space), growing by
    `cone`."""

    grid: OccupancyGrid
    step: float
    cone: float

    def march(self, rays: Rays, near: Tensor, far: Tensor, generator: torch.Generator | None = None) -> March:
        return GridMarch(self.grid, rays, near, far, self.step, self.cone, generator)


@dataclass(frozen=True)
class Hierarchical:
    """Where a coarse network sees something (Mildenhall et al. 2020, section 5.2)."""

    network: nn.Module
    shape: Tensor | None  # its code [Z]; only for `march`
    coarse: int
    fine: int

    def first(self, near: Tensor, far: Tensor, generator: torch.Generator | None) -> Float[Tensor, "R T"]:
        return stratified(near, far, self.coarse, generator)

    def second(
        self, t: Float[Tensor, "R T"], weights: Float[Tensor, "N"], generator: torch.Generator | None
    ) -> Float[Tensor, "R U"]:
        """The first places, and as many as `fine` where their weights are."""
        # as the published code: the weights of all samples but the outermost, between the middles;
        # where to look has no gradient
        middle = 0.5 * (t[:, 1:] + t[:, :-1])
        more = importance(middle, weights.detach().view(t.shape)[:, 1:-1], self.fine, generator)
        return torch.cat((t, more), 1).sort(1).values

    def march(self, rays: Rays, near: Tensor, far: Tensor, generator: torch.Generator | None = None) -> March:
        t = self.first(near, far, generator)
        samples = intervals(t, rays)
        points, _ = samples.points(rays)
        code = None if self.shape is None else self.shape.expand(len(points), -1)
        density = self.network.density(points, code)  # type: ignore[operator]
        _, weights = composite(density, torch.zeros_like(points), samples, len(rays))
        return Once(intervals(self.second(t, weights, generator), rays))

    def render(
        self,
        network: nn.Module,
        rays: Rays,
        near: Tensor,
        far: Tensor,
        codes: Sequence[Tensor | None],
        generator: torch.Generator | None = None,
    ) -> tuple[RenderedRays, RenderedRays]:
        """What the coarse network sees, and what `network` does at the places that its weights lead to;
        `codes` are those of the rays."""

        def look(network: nn.Module, t: Tensor) -> tuple[RenderedRays, Tensor]:
            samples = intervals(t, rays)
            here = (None if c is None else c[samples.ray] for c in codes)
            density, rgb = network(*samples.points(rays), *here)
            return composite(density, rgb, samples, len(rays))

        t = self.first(near, far, generator)
        first, weights = look(self.network, t)
        last, _ = look(network, self.second(t, weights, generator))
        return first, last


@dataclass
class BoundRadiance:
    """A RadianceField: a network with its sampling and its codes, in the box of a scene."""

    network: nn.Module
    sampling: Marching | Hierarchical
    scene: Scene
    shape: Tensor | None = None
    appearance: Tensor | None = None
    truncation = 0.0

    def _codes(self, count: int) -> list[Tensor | None]:
        return [None if c is None else c.expand(count, -1) for c in (self.shape, self.appearance)]

    def radiance(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], samples: Samples | None = None
    ) -> tuple[Tensor, Tensor]:
        """Density and colour; they depend on places alone, not on the `samples` of rays that these are."""
        return self.network(points, directions, *self._codes(len(points)))

    def march(self, rays: Rays, near: Tensor, far: Tensor, generator: torch.Generator | None = None) -> March:
        return self.sampling.march(rays, near, far, generator)

    def value(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """The density; 0 where rays do not look."""
        flat = points.reshape(-1, 3)
        if isinstance(self.sampling, Hierarchical):
            return self.network.density(flat, self._codes(len(flat))[0]).view(points.shape[:-1])  # type: ignore[operator]
        grid = self.sampling.grid
        cell = grid.at(flat)
        # elsewhere no ray ever asked, and what the network says there means nothing
        full = ((cell >= 0) & (grid.occupied.view(-1)[cell.clamp(min=0)] > 0)).nonzero()[:, 0]
        found = self.network.density(flat[full], self._codes(len(full))[0])  # type: ignore[operator]
        return torch.zeros_like(flat[:, 0]).index_copy(0, full, found).view(points.shape[:-1])

    def color(self, points: Float[Tensor, "*n 3"], directions: Tensor | None = None) -> Float[Tensor, "*n 3"]:
        """Seen along `directions`; without them from the outside, towards the origin."""
        flat = points.reshape(-1, 3)
        seen = -flat if directions is None else directions.reshape(-1, 3)
        return self.radiance(flat, torch.nn.functional.normalize(seen, dim=-1))[1].view(points.shape)

    @property
    def level(self) -> float:
        """The density of the surface: what is found at the mean depth of rays of the training cameras that
        lose more than half of their light, the median over them; where that is nothing (a scene that is still
        fog, in which mean depths lie between what is dense), over those that lie in something."""
        return self._level

    @cached_property
    def _level(self) -> float:
        _, found = self._stopped
        if len(found) and float(found.median()) <= 0:
            found = found[found > 0]
        return float(found.median()) if len(found) else 1.0

    @property
    def bounds(self) -> Float[Tensor, "2 3"]:
        """The box of what is occupied, within that of the scene; in NDC, which go on to infinity, up to
        where the farthest twentieth of the surface begins."""
        return self._bounds

    @cached_property
    def _bounds(self) -> Float[Tensor, "2 3"]:
        low, high = self.scene.bounds
        if isinstance(self.sampling, Marching):
            a, b = self.sampling.grid.bounds().to(low)
            low, high = torch.maximum(low, a), torch.minimum(high, b)
        points, _ = self._stopped
        if self.scene.ndc is not None and len(points):
            high = torch.cat((high[:2], torch.minimum(high[2:], points[:, 2:].quantile(0.95).to(high))))
        return torch.stack((low, high))

    @cached_property
    @torch.no_grad()
    def _stopped(self) -> tuple[Float[Tensor, "M 3"], Float[Tensor, "M"]]:
        """Where rays of the training cameras are stopped (their mean depth), and the densities there; of 4096
        rays."""
        device = next(self.network.parameters()).device
        views = self.scene.train or self.scene.test
        chosen = views[:: max(1, len(views) // 32)]
        parts = [self.scene.rays(v) for v in chosen]
        some = torch.Generator().manual_seed(0)
        parts = [r[torch.randint(len(r), (4096 // len(parts),), generator=some)] for r in parts]
        rays = Rays(
            *(torch.cat([getattr(r, n) for r in parts]) for n in ("origins", "directions", "views"))
        ).to(device)
        near, far = (torch.full_like(rays.origins[:, 0], x) for x in (self.scene.near, self.scene.far))
        light, _ = render_rays(self.radiance, self.march(rays, near, far), rays)
        stopped = light.transmittance < 0.5
        depth = light.depth / light.opacity.clamp(min=1e-3)
        points = rays.origins + depth[:, None] * rays.directions
        return points[stopped], self.value(points[stopped])


@dataclass
class BoundSurface:
    """A RadianceField whose values are distances: a surface in the box of a scene, with what makes light of
    it."""

    network: NeusNetwork
    sampling: Marching
    scene: Scene
    level = 0.0
    truncation = math.inf

    def radiance(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], samples: Samples
    ) -> tuple[Tensor | Alpha, Tensor]:
        return self.network.light(points, directions, samples, self.network.geometry(points))

    def march(self, rays: Rays, near: Tensor, far: Tensor, generator: torch.Generator | None = None) -> March:
        return self.sampling.march(rays, near, far, generator)

    def value(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        return self.network.distance(points)

    def color(self, points: Float[Tensor, "*n 3"], directions: Tensor | None = None) -> Float[Tensor, "*n 3"]:
        """Seen along `directions`; without them straight on, against the normal."""
        flat = points.reshape(-1, 3)
        here = self.network.geometry(flat)
        seen = here.gradient if directions is None else directions.reshape(-1, 3)
        seen = torch.nn.functional.normalize(seen, dim=-1)
        return self.network.color(flat, seen, here).view(points.shape)

    @property
    def bounds(self) -> Float[Tensor, "2 3"]:
        """The box of the scene, where images were."""
        return self.scene.bounds


def compile_march(network: nn.Module, marching: Marching, codes: Sequence[Tensor | None]) -> None:
    """Compile what a training on the CPU needs, before any clock runs; nothing is learned. `codes` are those
    of two rays."""
    points, near = torch.zeros(2, 3), torch.zeros(2)
    rays = Rays(points, points + 3**-0.5)
    marching.march(rays, near, near + 1).next(torch.arange(2), 4)
    samples = dense(near[:, None] + 0.5, near[:, None] + 0.1)
    density, rgb = network(*samples.points(rays), *(None if c is None else c.detach() for c in codes))
    light, _ = composite(density, rgb, samples, 2)
    light.color.sum().backward()
    Adam(network.parameters(), lr=0.0).step()
    network.zero_grad()
    network.grid.forget()  # type: ignore[union-attr]
