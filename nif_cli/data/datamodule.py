"""What nif train asks of any data, whatever it holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

pass


@dataclass(frozen=True)
class ConditioningSpec:
    """What a model is shown of each shape while it trains: `size` points of its surface, displaced by normal
    `noise` (in units of normalised space); or one of `views` images of size x size pixels; or size^3 voxels
    of the cube that holds the normalised space."""

    kind: Literal["points", "image", "voxels"]
    size: int
    noise: float = 0.0
    views: int = 1


@dataclass(frozen=True)
class Needs:
    """What a model asks of its data, in one piece: nobody sets the other's attributes. Data that cannot give
    it says so."""

    asker: str = "this model"  # for messages
    every: tuple[Literal["distance", "inside", "surface", "normals"], ...] = ()  # what every shape must have
    conditioning: ConditioningSpec | None = None  # what batches show of each shape beside its points
    surface_share: float = 0.0  # surface points in a batch, as a share of its `batch_points`
    occupancy: bool = False  # inside or not, in place of distances
    balanced: bool = True  # half of a shape's points in a batch are inside
    unsigned: bool = (
        False  # minus the distance to the nearest surface point (SAL), in place of signed distances
    )
    rays: Callable[[], int] | None = (
        None  # how many rays the next batch has; the data's own number where nobody says
    )


class Data:
    """What is learned from: batches that are drawn on the training device, batch k a function of (seed,
    k)."""

    holds = "data"  # what a source has, in words
    kind = "shapes"  # what one of them is called in evaluation.json
    space = "ball"  # how its instances are normalised: a key of geometry.transform.SPACES
    batch_points: int
    needs = Needs()
    epoch_batches = 500  # Lightning's epoch: how often held-out data is looked at, at most

    @abstractmethod
    def prepare(self) -> Sequence[Any]:
        """Read or make everything, once. Each instance has an `id`, a `transform` and a `report` for the
        screen."""

    def expect(self, needs: Needs) -> None:
        """What batches will be wanted, said before anything is read."""
        self.needs = needs

    def meet(self, needs: Needs) -> Sequence[Any]:
        """`prepare` for a model's needs. NifError names one that this data cannot meet."""
        self.expect(needs)
        return self.prepare()

    @abstractmethod
    def summary(self) -> str:
        """How much there is, in words."""

    @abstractmethod
    def train_batches(self, device: torch.device) -> Batches[Any]:
        """An endless supply of them."""

    @abstractmethod
    def held_out_batches(self, device: torch.device) -> list[Any]:
        """What training is watched by: held-out data where there is any; always the same."""


def in_turn(total: int, size: int, k: int, seed: int, order: torch.Generator) -> Int[Tensor, "S"]:
    """Which `size` of `total` are in batch number k: they go round in an order that is shuffled anew each
    round, none twice in a batch. `order` is any generator on the CPU."""
    per_round = total // size
    order.manual_seed(seed * 1_000_003 + k // per_round)
    return torch.randperm(total, generator=order)[(k % per_round) * size :][:size]


D = TypeVar("D", bound=Data)


class Batches(Generic[D]):
    """An endless supply of a data module's batches, `epoch_batches` at a time; batch k depends on (seed, k)
    only."""

    data: D
    place: Callable[[], tuple[int, int]] = staticmethod(lambda: (0, 1))
    """The first batch to give, and how far it is to the next (how many processes draw); the trainer says."""

    @abstractmethod
    def batch(self, k: int) -> Any:
        """Batch number k."""

    def __len__(self) -> int:
        return self.data.epoch_batches

    def __iter__(self) -> Iterator[Any]:
        for k in count(*self.place()):  # whoever trains stops after len(self)
            yield self.batch(k)
