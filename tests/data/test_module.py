"""What all data have in common: which batches each process gets."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import Any

from nif_cli.data.module import Batches


class Numbers(Batches[Any]):
    """Batch k is k."""

    def __init__(self, done: int, processes: int, number: int):
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=done - 1))
        self.data = SimpleNamespace(  # type: ignore[assignment]
            trainer=SimpleNamespace(fit_loop=loop, world_size=processes, global_rank=number), epoch_batches=500
        )

    def batch(self, k: int) -> int:
        return k


def test_a_resumed_run_goes_on_with_the_next_batch():
    assert list(islice(Numbers(0, 1, 0), 3)) == [0, 1, 2]
    assert list(islice(Numbers(7, 1, 0), 3)) == [7, 8, 9]


def test_no_two_processes_get_the_same_batch():
    drawn = [k for number in range(3) for k in islice(Numbers(4, 3, number), 10)]
    assert sorted(drawn) == list(range(12, 42))


def test_every_data_module_draws_that_way():
    from nif_cli.data.curve import CurveBatches
    from nif_cli.data.image import PixelBatches
    from nif_cli.data.shapes import ShapeBatches

    assert all(kind.__iter__ is Batches.__iter__ for kind in (ShapeBatches, PixelBatches, CurveBatches))
