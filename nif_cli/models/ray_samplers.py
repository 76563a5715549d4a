"""How a scene's rays are sampled, with the settings of each way: by a grid of occupied cells, or by a coarse
network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nif_cli.models.scene_field import Marching
from nif_cli.rendering.occupancy_grid import OccupancyGrid


@dataclass(frozen=True)
class HierarchicalSampler:
    """`coarse` stratified samples of a ray, and `fine` from the weights that a coarse network gives them
    (Mildenhall et al. 2020, section 5.2)."""

    coarse: int = 64
    fine: int = 128

    def __post_init__(self) -> None:
        for name, value, least in (("coarse", self.coarse, 3), ("fine", self.fine, 1)):
            if value < least:
                raise ValueError(f"{name}={value}: at least {least}")


@dataclass(frozen=True)
class OccupancySampler:
    """A grid of `resolution` cells a side, occupied above the optical depth `threshold`. A step takes as many
    rays as need about `samples` samples, at first `first_samples`, and steps of 1/`steps` of the scene's
    cube, at first 1/`first_steps`, `growth` of the training long. Every `update` steps the grid looks at the
    densities. In unbounded scenes steps grow, by `cone` times the distance. Transparent images carve the
    `hull` before training."""

    resolution: int = 128
    threshold: float = 0.01
    samples: int = 32768
    first_samples: int = 8192
    steps: int = 320
    first_steps: int = 128
    growth: float = 0.4
    update: int = 16
    cone: float = 1 / 256
    hull: bool = True

    def __post_init__(self) -> None:
        for name in ("samples", "first_samples", "update"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1")
        if min(self.steps, self.first_steps) < 8 or not 0 <= self.growth <= 1 or self.cone < 0:
            raise ValueError(
                f"steps={self.steps}, first_steps={self.first_steps}, growth={self.growth}, "
                f"cone={self.cone}: steps at least 8, growth a fraction, cone not negative"
            )
        self.grid()  # refuses what cannot be, before any data is read

    def grid(self, cascades: int = 1) -> OccupancyGrid:
        return OccupancyGrid(self.resolution, cascades, self.threshold)

    def marching(self, grid: OccupancyGrid, progress: float, even: bool) -> Marching:
        """At `progress` (0 to 1) of the training."""
        steps = self._grown(self.first_steps, self.steps, progress)
        return Marching(grid, 2 / steps, 0.0 if even else self.cone)

    def wanted(self, progress: float) -> float:
        """How many samples a step takes."""
        return self._grown(self.first_samples, self.samples, progress)

    def _grown(self, first: int, last: int, progress: float) -> float:
        return first * (last / first) ** min(1.0, progress / max(self.growth, 1e-6))


def ray_sampler(hierarchical: bool, given: Mapping[str, Any]) -> HierarchicalSampler | OccupancySampler:
    """The sampler that a network asks for, of the settings that are `given` (None: its default). ValueError
    for one that it does not take."""
    kinds = (HierarchicalSampler, OccupancySampler)
    mine, others = kinds if hierarchical else kinds[::-1]
    given = {name: value for name, value in given.items() if value is not None}
    own, foreign = ({f.name: f.default for f in fields(kind)} for kind in (mine, others))
    # nif used to write every key of both into config.yaml, also those that nothing looked at: where all stand
    # there, or one has its default, nobody meant anything by it
    if not set(own) | set(foreign) <= set(given):
        for name in (n for n in given if n in foreign and given[n] != foreign[n]):
            how = "field=nerf samples by a coarse network" if hierarchical else "field=ngp samples by a grid"
            raise ValueError(f"{name}={given[name]}: {how}; its keys are {', '.join(own)}")
    return mine(**{name: value for name, value in given.items() if name in own})
