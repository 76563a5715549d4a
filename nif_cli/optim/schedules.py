"""Learning rates over the training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR


class Cosine(LambdaLR):
    """From the full rate down to `final` times it along half a cosine, after a linear warm-up over the first
    `warmup` of the training. `progress` says how far training is, in [0, 1]: by steps or by time, whichever
    ends first."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        progress: Callable[[], float],
        final: float = 0.01,
        warmup: float = 0.01,
    ):
        if not 0 <= final <= 1 or not 0 <= warmup < 1:
            raise ValueError(f"final={final}, warmup={warmup}: both are fractions")

        def factor(step: int) -> float:
            t = progress()
            rise = min(1.0, (t + 1e-3) / (warmup + 1e-3))
            return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * t)))

        super().__init__(optimizer, factor)


class StepDecay(LambdaLR):
    """Multiplied by `factor` after each `every` of the training (DeepSDF: 0.5 after every quarter of its 2001
    epochs)."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        progress: Callable[[], float],
        every: float = 0.25,
        factor: float = 0.5,
    ):
        if not 0 < every <= 1 or not 0 < factor <= 1:
            raise ValueError(f"every={every}, factor={factor}: both are fractions")
        super().__init__(optimizer, lambda step: factor ** int(min(progress(), 1 - 1e-9) / every))
