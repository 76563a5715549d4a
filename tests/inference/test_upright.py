"""Which axis points up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ball, Result

from nif_cli.inference.upright import up_axis_of


class Cone:
    """Stands on its base along an axis: an analytic Field."""

    level, truncation = 0.0, 0.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def __init__(self, axis: int):
        self.axis = axis

    def value(self, points: torch.Tensor) -> torch.Tensor:
        height = points[..., self.axis] + 0.5
        side = points.index_select(-1, torch.tensor([a for a in range(3) if a != self.axis])).norm(dim=-1)
        return torch.minimum(0.6 * (1 - height) - side, height)


def test_what_it_stands_on(ball: type[Ball]):
    assert up_axis_of(Cone(1))[0] == "y"
    up, part = up_axis_of(Cone(2))
    assert up == "z"
    assert part == pytest.approx(3.14159 / 4, rel=0.1)
    assert up_axis_of(ball(0.5))[0] == "y"  # neither


def test_the_command_says_it(nif: Callable[..., Result], trained: Path, tmp_path: Path):
    told = nif("render", f"run={trained}", "instances=1", "frames=1", "size=16", "up=auto", "output=made")
    assert told.code == 0, told.err
    assert ": up=" in told.out
