"""What all data have in common: which batches each process gets."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import Any

import torch

from nif_cli.data.datamodule import Batches, Data
from nif_cli.training.lightning import Loaded


class Given(Data):
    """Data whose batches the test gives."""


class Numbers(Batches[Any]):
    """Batch k is k."""

    def __init__(self, done: int, processes: int, number: int):
        """The place as Lightning's trainer knows it, through the shell around the data."""
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=done - 1))
        self.data = Given()
        self.data.train_batches = lambda device: self
        shell = Loaded(self.data)
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        shell.trainer = SimpleNamespace(
            fit_loop=loop, world_size=processes, global_rank=number, strategy=strategy
        )  # type: ignore[assignment]
        assert shell.train_dataloader() is self

    def batch(self, k: int) -> int:
        return k


def test_a_resumed_run_goes_on_with_the_next_batch():
    assert list(islice(Numbers(0, 1, 0), 3)) == [0, 1, 2]
    assert list(islice(Numbers(7, 1, 0), 3)) == [7, 8, 9]


def test_no_two_processes_get_the_same_batch():
    drawn = [k for number in range(3) for k in islice(Numbers(4, 3, number), 10)]
    assert sorted(drawn) == list(range(12, 42))


def test_every_data_module_draws_that_way():
    from nif_cli.data.images.curves import CurveBatches
    from nif_cli.data.images.datamodule import PixelBatches
    from nif_cli.data.shapes.datamodule import ShapeBatches

    assert all(kind.__iter__ is Batches.__iter__ for kind in (ShapeBatches, PixelBatches, CurveBatches))
