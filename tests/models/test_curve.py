"""Curves from the command line: SVG or image in, SVG out, in the user's units."""

import numpy as np
import pytest
from PIL import Image

from nif_cli.data.images.curves import CurveBatches, CurveData
from nif_cli.data.images.formats.svg import read_svg
from nif_cli.geometry.curves import signed_distance

QUICK = [
    "trainer.max_time=null",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "output_dir=run",
    "data.samples=20000",
]
CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg"><g transform="translate(50 20)"><circle r="10"/></g></svg>'


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_circle_goes_round(nif, tmp_path, kind):
    if kind == "svg":
        (tmp_path / "a.svg").write_text(CIRCLE)
    else:
        y, x = np.mgrid[:40, :80] + 0.5
        inside = (10.5 - np.hypot(x - 50, y - 20)).clip(0, 1)  # a soft edge half way at radius 10
        Image.fromarray(((1 - inside) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    train = [
        "train",
        "model=curve",
        f"data.path=a.{kind}",
        "field=voxel",
        "field.resolution=64",
        "trainer.max_steps=30",
        *QUICK,
    ]
    result = nif(*train)
    assert result.code == 0, result.err
    assert nif("extract", "run=run", "resolution=96").code == 0
    (curve,) = read_svg(tmp_path / "run/meshes/a.svg")
    assert np.linalg.norm(curve - [50, 20], axis=1) == pytest.approx(10, abs=0.15)
    assert nif("render", "run=run", "size=64").code == 0
    image = np.asarray(Image.open(tmp_path / "run/renders/a.png")).astype(int)
    assert image[32, 32, 2] > image[32, 32, 0]  # blue inside
    assert image[2, 2, 2] < image[2, 2, 0]
    assert nif("evaluate", "run=run").code == 0


def test_samples_have_the_exact_distance_and_batches_their_number():
    data = CurveData(samples=2000)
    (outline,) = data.prepare()
    rows = data.rows(False).numpy()
    curves = [(c + np.array(outline.transform.offset[:2])) * outline.transform.scale for c in data.curves()]
    assert np.allclose(signed_distance(curves, rows[:, :2].astype(np.float64)), rows[:, 2], atol=1e-6)
    assert max(np.linalg.norm(c, axis=1).max() for c in curves) == pytest.approx(1 / 1.03)
    import torch

    a, b = (CurveBatches(CurveData(samples=2000), torch.device("cpu")) for _ in range(2))
    a.batch(1)
    assert torch.equal(a.batch(5).points, b.batch(5).points)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.svg", None, "no such file"),
        ("text.svg", "hello", "cannot be read as SVG"),
        ("empty.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>', "no closed shape"),
    ],
)
def test_what_is_no_curve_is_named(nif, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    error = nif("train", "model=curve", f"data.path={name}", *QUICK).error
    assert name in error
    assert message in error


def test_a_white_image_has_no_curve(nif, tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "white.png")
    assert "darker" in nif("train", "model=curve", "data.path=white.png", *QUICK).error
