"""Images from the command line: trained, given back at any size and crop, measured; and what does not fit
is said."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Files

from nif_cli import runs
from nif_cli.fields.grids import VoxelArray

QUICK = [
    "trainer.max_time=null",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "data.batch_points=400",
    "output_dir=run",
]


@pytest.fixture
def image(tmp_path):
    """32 x 24 pixels of smooth colour."""
    y, x = np.mgrid[:24, :32] / 31
    Files.fromarray((np.stack([x, y, 1 - x], -1) * 255).astype(np.uint8)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_an_image_is_learned_and_given_back(nif, image, tmp_path):
    train = [
        "train",
        "model=image",
        f"data.path={image}",
        "data.hold_out=0.25",
        "trainer.max_steps=120",
        *QUICK,
    ]
    result = nif(*train, "field=voxel", "field.resolution=33")
    assert result.code == 0, result.err
    assert "32 x 24 pixels, RGB, 8 bits, 25% of the pixels held out" in result.out
    assert "nif extract" not in result.out
    assert nif("render", "run=run").code == 0
    truth = np.asarray(Files.open(image)).astype(int)
    made = np.asarray(Files.open(tmp_path / "run/renders/image.png")).astype(int)
    assert made.shape == truth.shape
    assert np.abs(made - truth).mean() < 5
    assert nif("render", "run=run", "size=80", "crop=[16,0,16,8]", "output=part").code == 0
    part = np.asarray(Files.open(tmp_path / "part/image.png")).astype(int)
    assert part.shape == (40, 80, 3)
    assert np.abs(part[2::5, 2::5] - made[:8, 16:]).max() < 12  # the same places, five times as fine
    assert nif("render", "run=run", "format=npy").code == 0
    values = np.load(tmp_path / "run/renders/image.npy")
    assert np.abs(values * 255 - made).max() <= 1
    assert nif("evaluate", "run=run").code == 0
    figures = json.loads((tmp_path / "run/evaluation.json").read_text())["protocol"]["image"]["mean"]
    assert figures["psnr"] > figures["psnr held-out"] > 30
    assert 0.9 < figures["ssim held-out"] <= 1
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["psnr"] == pytest.approx(figures["psnr"])


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_channels_are_those_of_the_image(nif, tmp_path, mode):
    pixels = np.full((16, 16), 30000, np.uint16) if mode == "I;16" else np.full((16, 16, 4), 128, np.uint8)
    image = Files.fromarray(pixels) if mode == "I;16" else Files.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    result = nif(
        "train", "model=image", "data.path=a.png", "trainer.max_steps=3", *QUICK, "encoding.levels=2"
    )
    assert result.code == 0, result.err
    assert nif("render", "run=run").code == 0
    assert Files.open(tmp_path / "run/renders/a.png").mode == {"I;16": "L"}.get(mode, mode)
    assert runs.load_model(tmp_path / "run").channels == (4 if mode == "RGBA" else 1)


@pytest.mark.parametrize(
    "field", ["relu", "siren", "fourier", "triplane", "dense_grid", "gaussian", "voxel", "wire"]
)
def test_every_field_takes_two_coordinates(nif, field):
    assert nif("train", "model=image", f"field={field}", "trainer.max_steps=2", *QUICK).code == 0


def test_an_array_starts_from_the_pixels_that_are_trained_on(nif, image, tmp_path):
    assert (
        nif("train", "model=image", f"data.path={image}", "field=voxel", "trainer.max_steps=1", *QUICK).code
        == 0
    )
    network = runs.load_model(tmp_path / "run").network
    assert isinstance(network, VoxelArray)
    assert network.table.abs().max() > 0.5
    assert torch.isfinite(network.table).all()


def test_what_does_not_fit_is_said(nif, image, sphere_file, tiny):
    assert "this data holds an image" in nif("train", "model=sdf", "data=image", f"data.path={image}").error
    assert "learns from an image" in nif("train", "model=image", "data=toy_shapes").error
    assert (
        "data.path" in nif("train", "model=image", "data.path=none.png").error
        or "none.png" in nif("train", "model=image", "data.path=none.png").error
    )
    assert nif("train", "model=image", f"data.path={image}", "trainer.max_steps=1", *QUICK).code == 0
    assert "no surface" in nif("extract", "run=run").error
    assert "crop" in nif("render", "run=run", "crop=[0,0,33,24]").error
    assert "crop" in nif("render", "run=run", "crop=[0,0,3]").error
    assert "mp4" in nif("render", "run=run", "format=mp4").error
    assert nif("train", "model=sdf", f"data.path={sphere_file}", *tiny, "output_dir=shape").code == 0
    assert "is for images" in nif("render", "run=shape", "crop=[0,0,1,1]").error
