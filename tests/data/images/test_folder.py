"""Images of a folder: where they lie, which are held out, what is kept of them, what is in a batch."""

import numpy as np
import pytest
import torch
from narrowing import sure
from PIL import Image as Files

from nif_cli import NifError
from nif_cli.data.images.datamodule import ImageBatches, ImageData
from nif_cli.data.images.folder import KeptImage, image_files

CPU = torch.device("cpu")


def test_each_image_lies_as_a_single_one_does(folder):
    data = ImageData(str(folder), batch_points=200, batch_pictures=3)
    images = {p.id: p for p in data.prepare()}
    assert list(images) == ["a", "b", "c", "sub/d", "sub/e"]
    assert data.summary() == "5 images, 1,109 pixels"
    (alone,) = ImageData(str(folder / "c.png")).prepare()
    assert images["c"].transform == alone.transform
    assert images["c"].report.text == alone.report.text
    truth = np.asarray(Files.open(folder / "c.png"))
    it = images["c"]
    assert isinstance(it, KeptImage)
    seen = it.observed(60, np.random.default_rng(0))
    assert seen.points.shape == (60, 2)
    assert len(np.unique(seen.points, axis=0)) == 60
    at = images["c"].transform.to_original(np.pad(seen.points, ((0, 0), (0, 1))))[:, :2]
    x, y = np.floor(at).astype(int).T
    assert np.allclose(sure(seen.colors) * 255, truth[y, x], atol=1e-3)


def test_a_batch_is_a_function_of_the_seed_and_its_number(folder):
    first, again = (
        ImageBatches(ImageData(str(folder), seed=3, batch_points=60, batch_pictures=2), CPU) for _ in range(2)
    )
    first.batch(0)
    assert torch.equal(first.batch(7).points, again.batch(7).points)
    assert not torch.equal(first.batch(7).points, first.batch(8).points)
    assert first.batch(0).points.shape == (2, 30, 2)
    assert first.batch(0).color.shape == (2, 30, 3)


def test_the_last_are_held_out(folder):
    def ids(**options):
        return [p.id for p in ImageData(str(folder), **options).prepare()]

    assert ids(test=2) == ["a", "b", "c"]
    assert ids(test=2, split="test") == ["sub/d", "sub/e"]
    assert len(ids(test=2, split="all")) == 5
    assert [p.id for p in ImageData(str(folder), test=2).test_images(1)] == ["sub/d"]


def test_pixels_beyond_the_memory_are_left_out_at_random(paint, tmp_path):
    paint(tmp_path / "folder" / "large.png", 500, 400, 0.0)
    paint(tmp_path / "folder" / "small.png", 10, 10, 0.0)
    data = ImageData(str(tmp_path / "folder"), memory="1MiB")
    large, small = data.images()
    assert len(small.colors) == 100
    assert 11 * len(large.colors) <= 2**19
    assert "of their pixels" in data.summary()
    truth = np.asarray(Files.open(tmp_path / "folder" / "large.png"))
    places, colors = large.at(torch.arange(len(large.colors)))
    x, y = (
        np.floor(large.transform.to_original(np.pad(places.numpy(), ((0, 0), (0, 1))))[:, :2]).astype(int).T
    )
    assert np.allclose(colors.numpy() * 255, truth[y, x], atol=1e-3)
    assert y.max() > 390


def test_a_folder_has_names_that_differ(folder, paint):
    assert list(image_files(folder)) == ["a", "b", "c", "sub/d", "sub/e"]
    paint(folder / "a.jpg", 4, 4, 0)
    assert list(image_files(folder))[:2] == ["a_jpg", "a_png"]
    assert image_files(folder / "a.jpg") == {"a": folder / "a.jpg"}


def test_what_no_image_can_be_is_left_out_and_others_must_have_the_same_channels(folder, paint):
    (folder / "b.jpg").write_text("no image")
    data = ImageData(str(folder))
    assert len(data.prepare()) == 4
    assert "1 left out" in data.summary()
    assert "b.jpg" in data.summary()
    paint(folder / "f.png", 4, 4, 0, "RGBA")
    with pytest.raises(NifError, match=r"f\.png: it is RGBA and the others are RGB"):
        ImageData(str(folder)).prepare()


def test_sixteen_bits(tmp_path):
    np.save(tmp_path / "a.npy", np.full((3, 2, 1), 30000, np.uint16))
    (image,) = ImageData(str(tmp_path)).images()
    colors = sure(image.observed(9, np.random.default_rng(0)).colors)
    assert colors.ravel() == pytest.approx([30000 / 65535] * 6)
