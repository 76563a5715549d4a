"""What nif train asks of any data, whatever it holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from jaxtyping import Int
from torch import Tensor


class Data(pl.LightningDataModule):
    """A Lightning data module whose batch k is a function of (seed, k), drawn on the training device."""

    holds = "data"  # what a source has, in words
    kind = "shapes"  # what one of them is called in evaluation.json
    space = "ball"  # how its instances are normalised: a key of geometry.mesh.SPACES
    batch_points: int
    epoch_batches = 500  # Lightning's epoch: how often held-out data is looked at, at most

    @abstractmethod
    def prepare(self) -> Sequence[Any]:
        """Read or make everything, once. Each instance has an `id`, a `transform` and a `report` for the screen."""

    @abstractmethod
    def summary(self) -> str:
        """How much there is, in words."""

    def setup(self, stage: str | None = None) -> None:
        self.prepare()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # drawn where it is needed


def in_turn(total: int, size: int, k: int, seed: int, order: torch.Generator) -> Int[Tensor, "S"]:
    """Which `size` of `total` are in batch number k: they go round in an order that is shuffled anew each round, none twice
    in a batch. `order` is any generator on the CPU."""
    per_round = total // size
    order.manual_seed(seed * 1_000_003 + k // per_round)
    return torch.randperm(total, generator=order)[(k % per_round) * size :][:size]


D = TypeVar("D", bound=Data)


class Batches(Generic[D]):
    """An endless supply of a data module's batches, `epoch_batches` at a time; batch k depends on (seed, k) only."""

    data: D

    @abstractmethod
    def batch(self, k: int) -> Any:
        """Batch number k."""

    def __len__(self) -> int:
        return self.data.epoch_batches

    def __iter__(self) -> Iterator[Any]:
        trainer = self.data.trainer
        assert trainer is not None
        first = trainer.fit_loop.epoch_loop.total_batch_idx + 1  # the batches that this run, or the resumed one, has had
        processes, number = trainer.world_size, trainer.global_rank  # each has batches of its own
        for k in count(first):  # Lightning stops after len(self)
            yield self.batch(k * processes + number)
