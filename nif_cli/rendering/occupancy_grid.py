"""Where there is anything at all: a grid that lets rays go past empty space (Mueller et al. 2022, appendix
E)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from nif_cli.rendering import march_kernels
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.rays import Rays, box_entry

UNIT = 2 * 3**0.5 / 1024  # the length by which densities become the optical depths that thresholds are about
BLOCK = 8  # cells along a side of a block, which a ray passes in one go where nothing in it is occupied


class OccupancyGrid(nn.Module):
    """C cascades of `resolution`^3 cells; cascade c fills [-2^c, 2^c]^3, and a point belongs to the smallest
    that holds it.

    Each cell keeps how dense it was found to be (the largest of what was found, slowly forgotten), and is
    occupied where that exceeds `threshold`, or the mean where that is less. Cells that are not `allowed`
    never are. Everything is occupied at first.
    """

    density: Tensor  # [C, G, G, G], optical depth over UNIT
    occupied: Tensor  # [C, G, G, G] uint8
    allowed: Tensor  # the same

    def __init__(
        self, resolution: int = 128, cascades: int = 1, threshold: float = 0.01, decay: float = 0.95
    ):
        super().__init__()
        if (
            not 16 <= resolution <= 512
            or resolution % (4 * BLOCK if cascades > 1 else BLOCK)
            or not 1 <= cascades <= 8
        ):
            raise ValueError(
                f"resolution={resolution}, cascades={cascades}: a multiple of {BLOCK} (of {4 * BLOCK}, with "
                "cascades) in 16 .. 512, and 1 to 8 cascades"
            )
        if not threshold > 0 or not 0 < decay < 1:
            raise ValueError(f"threshold={threshold}, decay={decay}: above 0, and between 0 and 1")
        self.resolution, self.cascades, self.threshold, self.decay = resolution, cascades, threshold, decay
        self._blocks: tuple[Tensor, Tensor] | None = None  # of these cells
        cells = (cascades, resolution, resolution, resolution)
        # closed by one look that finds nothing
        self.register_buffer("density", torch.full(cells, 1.05 * threshold))
        self.register_buffer("occupied", torch.ones(cells, dtype=torch.uint8))
        self.register_buffer("allowed", torch.ones(cells, dtype=torch.uint8))

    @property
    def extent(self) -> float:
        """Half the side of the cube that it fills."""
        return 2.0 ** (self.cascades - 1)

    def centres(self, cells: Int64[Tensor, "M"]) -> Float[Tensor, "M 3"]:
        """The middles of cells, by their places in the flattened grid."""
        g = self.resolution
        index = torch.stack((cells // g**2 % g, cells // g % g, cells % g), -1)
        return ((index + 0.5) * (2 / g) - 1) * (2.0 ** (cells // g**3))[:, None]

    def at(self, points: Float[Tensor, "*n 3"]) -> Int64[Tensor, "*n"]:
        """The cells of points, as places in the flattened grid; -1 beyond the largest cascade."""
        size = points.abs().amax(-1)
        cascade = torch.ceil(torch.log2(size.clamp(min=1e-9))).clamp(min=0).long()
        outside = cascade >= self.cascades
        cascade = cascade.clamp(max=self.cascades - 1)
        g = self.resolution
        unit = 0.5 * points * 2.0 ** -cascade.to(points.dtype)[..., None] + 0.5
        i, j, k = (unit * g).long().clamp(0, g - 1).unbind(-1)
        return torch.where(outside, -1, ((cascade * g + i) * g + j) * g + k)

    def within(self, box: Float[Tensor, "2 3"]) -> Bool[Tensor, "C G G G"]:
        """Which cells a box touches."""
        cells = torch.arange(self.density.numel(), device=box.device)
        centres, half = self.centres(cells), (2.0 ** (cells // self.resolution**3) / self.resolution)[:, None]
        return ((centres + half > box[0]) & (centres - half < box[1])).all(1).view(self.density.shape)

    def allow(self, cells: Bool[Tensor, "C G G G"]) -> None:
        """From now on only these can be occupied."""
        self.allowed = self.allowed & cells.to(self.allowed)
        self.occupied = self.occupied & self.allowed
        self.density = self.density * self.allowed

    @torch.no_grad()
    def update(
        self,
        density: Callable[[Tensor], Tensor],
        share: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Look at the density [M] at a place drawn in each of the allowed cells, or in a `share` of them:
        half of those drawn from all allowed ones, half from the occupied ones."""
        flat, device = self.density.view(-1), self.density.device
        allowed = self.allowed.view(-1).nonzero()[:, 0]
        if not len(allowed):
            return
        if share < 1:
            half = max(1, int(0.5 * share * len(allowed)))
            some = [allowed[torch.randint(len(allowed), (half,), generator=generator, device=device)]]
            full = self.occupied.view(-1).nonzero()[:, 0]
            if len(full):
                some.append(full[torch.randint(len(full), (half,), generator=generator, device=device)])
            allowed = torch.cat(some)
        for cells in allowed.split(2**16):
            size = 2 / self.resolution * 2.0 ** (cells // self.resolution**3)
            jitter = torch.rand((len(cells), 3), generator=generator, device=device) - 0.5
            found = density(self.centres(cells) + jitter * size[:, None]).float() * UNIT
            found = torch.nan_to_num(found, nan=0.0, posinf=1e4)
            # one look misses what is thin: a cell that was dense closes only after several that find nothing
            flat[cells] = torch.maximum(flat[cells] * self.decay, found)
        self.decide()

    def decide(self) -> None:
        """Which cells are occupied, by the densities as they are."""
        among = self.density[self.allowed > 0]
        # as the published code: early all is fog, thinner than the threshold, and the denser half stays open
        limit = min(self.threshold, float(among.mean())) if len(among) else self.threshold
        self.occupied = ((self.density > limit) & (self.allowed > 0)).to(torch.uint8)

    def blocks(self) -> Tensor:
        """[C, G/8, G/8, G/8] uint8: which blocks of cells have anything occupied."""
        if self._blocks is None or self._blocks[0] is not self.occupied:
            found = nn.functional.max_pool3d(self.occupied[:, None].float(), BLOCK)[:, 0].to(torch.uint8)
            self._blocks = self.occupied, found
        return self._blocks[1]

    def bounds(self, margin: int = 1) -> Float[Tensor, "2 3"]:
        """The box of what is occupied, `margin` cells more on each side; everything where nothing is."""
        boxes = []
        for c, cascade in enumerate(self.occupied):
            cells = cascade.nonzero()
            if len(cells):
                ends = torch.stack((cells.amin(0) - margin, cells.amax(0) + 1 + margin)).clamp(
                    0, self.resolution
                )
                boxes.append((ends * (2 / self.resolution) - 1) * 2.0**c)
        if not boxes:
            return torch.tensor([[-self.extent] * 3, [self.extent] * 3], device=self.occupied.device)
        stacked = torch.stack(boxes)
        return torch.stack((stacked[:, 0].amin(0), stacked[:, 1].amax(0)))


class GridMarch:
    """Samples in the occupied cells of a grid, at even steps: of length `step` near the ray's start, and in
    proportion to t (by `cone`) from where that is longer. That is evenly in s(t) = t / step, continued by
    log(t) / log(1 + cone).

    Where a generator is given, the steps of each ray are shifted by a random part of one. On a CPU and in
    float32 one `compiled` loop, which takes what it is asked for; elsewhere all samples are found at once.
    """

    def __init__(
        self,
        grid: OccupancyGrid,
        rays: Rays,
        near: Float[Tensor, "R"],
        far: Float[Tensor, "R"],
        step: float,
        cone: float = 0.0,
        generator: torch.Generator | None = None,
        compiled: bool = True,
    ):
        self.grid, self.rays, self.step, self.cone = grid, rays, step, cone
        box = rays.origins.new_tensor([[-grid.extent] * 3, [grid.extent] * 3])
        near, far = box_entry(rays, box, near, far)
        device = near.device
        shift = (
            torch.rand(near.shape, generator=generator, device=device)
            if generator
            else torch.full_like(near, 0.5)
        )
        self.speed = rays.directions.norm(dim=-1)  # 1, except in NDC: there a step in t is longer or shorter
        self.first, self.far = self.warp(near * self.speed) + shift, far
        self.compiled = compiled and device.type == "cpu" and near.dtype == torch.float32
        if self.compiled:
            self.taken = torch.zeros_like(near, dtype=torch.int64)
            self.fine, self.coarse = grid.occupied, grid.blocks()
        else:
            self.ready = self._all()

    def warp(self, distance: Tensor) -> Tensor:
        """s of a distance along the ray."""
        even = distance / self.step
        if not self.cone:
            return even
        turn = 1 / self.cone
        grown = (
            turn
            + torch.log((even * self.cone).clamp(min=1))
            / torch.log1p(torch.tensor(self.cone, dtype=torch.float64)).item()
        )
        return torch.where(even < turn, even, grown)

    def unwarp(self, s: Tensor) -> Tensor:
        if not self.cone:
            return s * self.step
        turn = 1 / self.cone
        growth = torch.log1p(torch.tensor(self.cone, dtype=torch.float64)).item()
        grown = turn * torch.exp((s - turn).clamp(min=0) * growth)
        return torch.where(s < turn, s, grown) * self.step

    def next(self, alive: Int64[Tensor, "A"], limit: int) -> tuple[Samples, Bool[Tensor, "A"]]:
        if self.compiled:
            lines = (self.rays.origins, self.rays.directions, self.speed, self.first, self.far)
            packed, going = march_kernels.march(
                (self.fine, self.coarse), lines, self.taken, alive, limit, self.step, self.cone
            )
            return Samples(*packed), going
        samples, rank, total = self.ready
        given = self.taken[alive]
        place = torch.full((len(self.rays),), -1, dtype=torch.long, device=alive.device)
        place[alive] = torch.arange(len(alive), device=alive.device)
        rank_from = torch.zeros_like(place)
        rank_from[alive] = given
        after = rank - rank_from[samples.ray]
        chosen = (place[samples.ray] >= 0) & (after >= 0) & (after < limit)
        self.taken[alive] = given + limit
        some = Samples(place[samples.ray[chosen]], samples.t[chosen], samples.delta[chosen])
        return some, given + limit < total[alive]

    def _all(self) -> tuple[Samples, Tensor, Tensor]:
        """Every sample of every ray, its rank along its ray, and how many each has: the plain version."""
        device, far = self.far.device, self.far * self.speed
        steps = (self.warp(far) - self.first).clamp(min=0)
        count = int(steps.amax().ceil()) + 1 if len(steps) else 0
        s = self.first[:, None] + torch.arange(count, device=device)
        distance = self.unwarp(s)
        t = distance / self.speed[:, None]
        points = self.rays.origins[:, None] + t[..., None] * self.rays.directions[:, None]
        cell = self.grid.at(points)
        full = (self.grid.occupied.view(-1)[cell.clamp(min=0)] > 0) & (cell >= 0) & (t < self.far[:, None])
        delta = self.unwarp(s + 0.5) - self.unwarp(s - 0.5)
        ray, k = full.nonzero(as_tuple=True)
        rank = (full.long().cumsum(1) - 1)[ray, k]
        self.taken = torch.zeros(len(self.rays), dtype=torch.long, device=device)
        return Samples(ray, t[ray, k], delta[ray, k]), rank, full.sum(1)
