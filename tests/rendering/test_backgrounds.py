"""Images in front of another colour, or of nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Result
from PIL import Image

from nif_cli import NifError
from nif_cli.rendering.backgrounds import colour_of, cut_out, over, transparent_sheet


def test_what_is_cut_out_is_the_same_before_any_colour():
    torch.manual_seed(0)
    paint, opacity = torch.rand(8, 8, 3), torch.rand(8, 8)
    opacity[0], opacity[1] = 0.0, 1.0
    for was in (0.0, 1.0):
        seen = opacity[..., None] * paint + (1 - opacity[..., None]) * was
        other = torch.tensor([0.2, 0.9, 0.4])
        expected = opacity[..., None] * paint + (1 - opacity[..., None]) * other
        assert torch.allclose(over(seen, opacity, other, was), expected, atol=1e-6)
        image = cut_out(seen, opacity, was).astype(float) / 255
        again = image[..., 3:] * image[..., :3] + (1 - image[..., 3:]) * other.numpy()
        assert np.abs(again - expected.numpy()).max() < 0.01
    sheet = transparent_sheet([np.full((4, 4, 4), 255, np.uint8)] * 3 + [np.full((2, 2, 4), 9, np.uint8)])
    assert sheet.shape == (8, 12, 4)
    assert sheet[7, 11, 3] == 0  # nobody's place
    assert sheet[6, 2, 3] in (0, 9)


def test_colours():
    assert colour_of("#ff8000").tolist() == pytest.approx([1, 128 / 255, 0])
    assert colour_of([0.5, 0, 1]).tolist() == [0.5, 0, 1]
    for wrong in ("nocolour", [1, 2, 3], [0.1], "", ["a", 0, 0]):
        with pytest.raises(NifError, match="background="):
            colour_of(wrong)


def test_the_command(nif: Callable[..., Result], trained: Path, tmp_path: Path):
    few = [f"run={trained}", "instances=1", "frames=2", "size=24", "shadows=false", "output=made"]
    assert nif("render", *few, "transparent=true").code == 0
    (clear,) = (tmp_path / "made").rglob("*.png")
    cut = np.asarray(Image.open(clear))
    assert nif("render", *few, "background=#ff0000").code == 0
    red = np.asarray(Image.open(clear)).astype(int)
    assert cut.shape == (*red.shape[:2], 4)
    there = cut[..., 3:] / 255
    assert np.abs(there * cut[..., :3] + (1 - there) * [255, 0, 0] - red).max() < 4
    assert "goes with format=png" in nif("render", *few, "transparent=true", "format=gif").error
    assert "background=nocolour" in nif("render", *few, "background=nocolour").error
