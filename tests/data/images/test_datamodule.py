"""Pixels: where they lie, which are held out, and that a batch depends on the seed and its number only."""

import numpy as np
import pytest
import torch

from nif_cli import NifError
from nif_cli.data.images.datamodule import TILE, ImageData, PixelBatches
from nif_cli.geometry.transform import Transform

CPU = torch.device("cpu")


@pytest.fixture
def gradient(tmp_path):
    """An image 40 wide and 20 high whose red is x and whose green is y."""
    y, x = np.mgrid[:20, :40]
    path = tmp_path / "gradient.npy"
    np.save(path, np.stack([x * 5, y * 10, x * 0], -1).astype(np.uint8))
    return str(path)


def test_the_longest_side_spans_minus_one_to_one(gradient):
    """Pixel centres at +0.5, x to the right, y down; the transform takes pixels there."""
    data = ImageData(gradient)
    (image,) = data.prepare()
    batch = PixelBatches(data, CPU).batch(0)
    pixels = image.transform.to_original(np.pad(batch.points.numpy(), ((0, 0), (0, 1))))
    assert np.allclose(pixels[:, 0] - 0.5, batch.color[:, 0] * 255 / 5, atol=1e-3)
    assert np.allclose(pixels[:, 1] - 0.5, batch.color[:, 1] * 255 / 10, atol=1e-3)
    assert batch.points.abs().amax(0).tolist() == pytest.approx([1 - 1 / 40, 0.5 - 1 / 40])
    assert image.transform == Transform((-20.0, -10.0, 0.0), 2 / 40)


def test_a_batch_is_a_function_of_the_seed_and_its_number(gradient):
    first, again = (PixelBatches(ImageData(gradient, seed=3), CPU) for _ in range(2))
    first.batch(0)
    assert torch.equal(first.batch(7).points, again.batch(7).points)
    assert not torch.equal(first.batch(7).points, first.batch(8).points)
    assert not torch.equal(
        first.batch(7).points, PixelBatches(ImageData(gradient, seed=4), CPU).batch(7).points
    )


def test_held_out_pixels_are_never_drawn_and_are_all_watched(gradient):
    data = ImageData(gradient, hold_out=0.25, batch_points=5000)
    assert 0.15 < data.held().mean() < 0.35
    pool = data.make_pool(CPU)
    drawn = {tuple(p) for p in PixelBatches(data, CPU).batch(0).points.tolist()}
    watched = {tuple(p) for p in pool.watched().points.tolist()}
    assert len(watched) == data.held().sum()
    assert not drawn & watched
    assert len(drawn | watched) == 800


def test_an_image_larger_than_the_memory_comes_in_tiles(tmp_path):
    """Each turn has pixels of some tiles; after all turns everything has been seen, at its right place."""
    y, x = np.mgrid[: 3 * TILE, : 5 * TILE + 20]
    pixels = np.stack([x // 256, x % 256, y // 256 * 80 + y % 64], -1).astype(np.uint8)
    np.save(tmp_path / "large.npy", pixels)
    data = ImageData(str(tmp_path / "large.npy"), memory="1MiB", batch_points=100_000)
    batches = PixelBatches(data, CPU)
    assert not batches.pool.whole
    turn = batches.pool.together * TILE * TILE // 100_000 + 1
    seen = set()
    for k in range(turn * -(-len(batches.pool.tiles) // batches.pool.together)):
        batch = batches.batch(k)
        at = (
            (
                batch.points.double() / batches.pool.scale
                + torch.tensor([x.shape[1] / 2, x.shape[0] / 2])
                - 0.5
            )
            .round()
            .long()
        )
        assert np.array_equal((batch.color * 255).round().byte().numpy(), pixels[at[:, 1], at[:, 0]])
        seen |= {tuple(tile) for tile in torch.unique(at // TILE, dim=0).tolist()}
    assert len(seen) == 18
    assert torch.equal(PixelBatches(data, CPU).batch(9).points, batches.batch(9).points)


def test_crop(gradient):
    data = ImageData(gradient, crop=[10, 5, 8, 4])
    assert np.array_equal(data.pixels(), np.load(gradient)[5:9, 10:18])
    with pytest.raises(NifError, match=r"data\.crop.*40 x 20"):
        ImageData(gradient, crop=[35, 0, 8, 4]).prepare()


@pytest.mark.parametrize("wrong", [{"hold_out": 1.0}, {"crop": [1, 2]}, {"batch_points": 0}, {"seed": -1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageData(**wrong)
