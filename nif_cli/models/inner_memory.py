"""How much memory the graph of an adaptation takes, and how many shapes fit into what there is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.memory import memory_limit

ENOUGH = 2**30  # bytes of a micro-batch's graph on a CPU: more at a time gains nothing


def graph_bytes(make: Callable[[], object]) -> int:
    """The bytes that automatic differentiation keeps for the result of `make()`, each memory once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = make()  # held until the count is done, or an address could come twice
    del result
    return sum(kept.values())


def linear_bytes(make: Callable[[int, int, int], object], context: int, query: int) -> tuple[float, float]:
    """The bytes that `make(steps, context points, query points)` keeps for each step and for the rest, from
    graphs of few points and steps: they grow linearly with both."""
    with torch.enable_grad():
        few = {
            key: graph_bytes(lambda key=key: make(*key))
            for key in ((1, 16, 16), (2, 16, 16), (2, 32, 16), (1, 32, 16), (1, 16, 32))
        }
    base, step = few[1, 16, 16], few[2, 16, 16] - few[1, 16, 16]
    step_point = (few[2, 32, 16] - few[1, 32, 16] - step) / 16
    query_point = (few[1, 16, 32] - base) / 16
    return step + step_point * (context - 16), max(0, base - step) + query_point * (query - 16)


def room(memory: str | int | None, device: torch.device) -> int:
    """Bytes that `memory` names; by default those of the device."""
    if memory is None and device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return memory_limit(memory)


def in_words(n: float) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"


def shapes_that_fit(
    one: float, memory: str | int | None, device: torch.device, context: int, steps: int, checkpoint: bool
) -> int:
    """How many shapes of `one` byte-count each are adapted together, at least 1. NifError where one shape
    with `context` points does not fit."""
    free = room(memory, device)
    if one > free:
        hint = "" if checkpoint else ", or set model.checkpoint=true"
        raise NifError(
            f"model.steps={steps}: adapting one shape with {context:,} context points takes about "
            f"{in_words(one)} and "
            f"{in_words(free)} may be used; lower model.steps or data.batch_points{hint}"
        )
    return max(1, int((min(free, ENOUGH) if device.type == "cpu" else free) // one))
