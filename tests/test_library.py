"""nif from Python gives what the commands write, in the user's units."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from conftest import TINY, TINY_MLP
from narrowing import sure
from PIL import Image

import nif_cli
from nif_cli import NifError
from nif_cli.field import BoundField

OFFSET, SIZE = np.array([500.0, -200.0, 30.0]), 40.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A mesh far from the origin, and a run that has learned it well enough to have a surface."""
    place = tmp_path_factory.mktemp("library")
    ball = trimesh.creation.icosphere(3, SIZE)
    ball.vertices += OFFSET
    ball.export(place / "ball.ply")
    keys = [
        "model=sdf",
        "field=siren",
        "field.width=32",
        "field.layers=2",
        "field.omega=10",
        "field.first_omega=3",
        "model.clamp=2",
        "model.lr=2e-3",
        f"data.path={place / 'ball.ply'}",
    ]
    budget = ["trainer.max_steps=400", "data.batch_points=512", f"output_dir={place / 'run'}"]
    run = nif_cli.train([*TINY, *keys, *budget], quiet=True)
    assert run.path == place / "run"
    return place


@pytest.fixture
def run(folder: Path) -> nif_cli.Run:
    return nif_cli.load(folder / "run", device="cpu")


def test_the_package_is_imported_at_once():
    code = (
        "import sys, time; t = time.perf_counter(); import nif_cli; "
        "print(time.perf_counter() - t, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, loaded = out.split()
    assert loaded == "False"
    assert float(seconds) < 0.1


def test_a_mesh_is_that_of_extract(run, folder, nif):
    assert nif("extract", f"run={folder / 'run'}", "resolution=40", "output=out", "device=cpu").code == 0
    written = trimesh.load_mesh("out/ball.ply", process=False)
    made = run.mesh("ball", resolution=40)
    assert np.array_equal(made.faces, written.faces)
    assert np.allclose(made.vertices, written.vertices, atol=1e-5 * SIZE)
    assert np.abs(np.linalg.norm(made.vertices - OFFSET, axis=1) - SIZE).max() < 0.3 * SIZE


def test_values_are_lengths_in_the_units_of_the_file(run):
    mesh = run.mesh("ball", resolution=96, refine=2)
    assert np.abs(run.value("ball", mesh.vertices)).max() < 1e-3 * SIZE
    centre = run.value("ball", OFFSET)
    assert centre.shape == ()
    assert centre > 0  # inside is positive
    away = trimesh.creation.icosphere(2).vertices
    for radius in (0.85, 1.0, 1.02):
        found = run.value("ball", OFFSET + radius * SIZE * away)
        assert np.abs(found - (1 - radius) * SIZE).mean() < 0.05 * SIZE
        slope = np.linalg.norm(run.gradient("ball", OFFSET + radius * SIZE * away), axis=1)
        assert slope.mean() == pytest.approx(1, abs=0.25)
    assert run.value("ball", OFFSET + SIZE * np.eye(3)[0]) < centre
    assert run["ball"].inside(np.stack([OFFSET, OFFSET + 1.02 * SIZE])).tolist() == [True, False]


def test_a_gradient_is_that_of_finite_differences(run):
    points = OFFSET + np.random.default_rng(0).uniform(-0.5, 0.5, (5, 2, 3)) * SIZE
    found = run.gradient("ball", points)
    step = 2e-3 * SIZE
    for axis in range(3):
        aside = step * np.eye(3)[axis]
        difference = (run.value("ball", points + aside) - run.value("ball", points - aside)) / (2 * step)
        assert np.allclose(found[..., axis], difference, atol=5e-3)


def test_tensors_carry_gradients(run):
    points = torch.tensor(OFFSET[None] + 2.0, dtype=torch.float64, requires_grad=True)
    run.value("ball", points).sum().backward()
    grad = sure(points.grad)
    assert np.allclose(grad.numpy(), run.gradient("ball", points.detach().numpy()), atol=1e-5)
    assert torch.allclose(run.gradient("ball", points.detach()), grad, atol=1e-6)


def test_images_have_the_size_asked_for(run):
    image = run.image("ball", size=48, azimuth=90)
    assert image.shape == (48, 48, 3)
    assert image.dtype == np.uint8
    frames = run.render("ball", frames=2, size=32)
    assert [f.shape for f in frames] == [(32, 32, 3)] * 2


def test_an_evaluation_is_that_of_the_command(run, folder, nif):
    keys = ["resolution=32", "protocol=two_way", "device=cpu", "output=e.json"]
    assert nif("evaluate", f"run={folder / 'run'}", *keys).code == 0
    written = json.loads(Path("e.json").read_text())["protocol"]
    found = run.evaluate(resolution=32, protocol="two_way")["protocol"]
    assert found["two_way"]["mean"] == written["two_way"]["mean"]
    assert not (folder / "run" / "evaluation.json").exists()


def test_what_is_wrong_is_a_niferror(run, tmp_path):
    for wrong in (
        lambda: nif_cli.load(tmp_path / "none"),
        lambda: run.mesh("bal"),
        lambda: run.mesh("ball", resolution=1),
        lambda: run.mesh("ball", resolutoin=64),
        lambda: run.mesh("ball", level=1e6),
        lambda: run.image("ball", elevation=120),
        lambda: run.infer(np.zeros((5, 4))),
        lambda: run.infer(trimesh.creation.box()),  # model=sdf knows one shape
        lambda: run.between("ball", "ball", 0.5),
        lambda: nif_cli.train({"model": "sdff"}, quiet=True),
        lambda: nif_cli.train({"model": "sdf", "data.path": "nowhere.obj"}, quiet=True),
        lambda: nif_cli.train(["-m", "seed=1,2"], quiet=True),
        lambda: nif_cli.train(["--lr", "3"], quiet=True),
        lambda: nif_cli.train(["--info", "nothing"], quiet=True),
        lambda: nif_cli.train(["nowhere.obj"], quiet=True),
        lambda: run.value("ball", np.zeros((5, 2))),
        lambda: run.gradient("ball", torch.zeros(5, 4)),
        lambda: run.value("ball", np.array(3.0)),
        lambda: nif_cli.train(quiet=True, **{"model.lrr": 3}),
    ):
        with pytest.raises(NifError):
            wrong()
    with pytest.raises(AttributeError):
        getattr(nif_cli, "nothing")  # noqa: B009


def test_shapes_with_codes(nif, tmp_path):
    """Between, sampled and inferred ones; keys as a mapping; what is inferred is what reconstruct writes."""
    keys = {key: value for key, _, value in (word.partition("=") for word in [*TINY, *TINY_MLP])}
    run = nif_cli.train(
        {**keys, "model": {"code_size": 4}, "data.count": 3, "trainer.max_steps": 60},
        quiet=True,
        output_dir=tmp_path / "a run",
    )
    assert len(run.ids) == 3
    a, b = run.ids[:2]
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    assert np.allclose(run.between(a, b, 0).value(points), run.value(a, points), atol=1e-5)
    assert np.allclose(run.between(a, b, 1).value(points), run.value(b, points), atol=1e-5)
    assert [s.value(points).shape for s in run.sample(2)] == [(50,)] * 2
    box = trimesh.creation.box((2, 3, 4))
    box.export("box.ply")
    seen = {"steps": 4, "restarts": 1, "points": 200}
    made = run.infer("box.ply", **seen)
    assert made.report["steps"] == 4
    words = [f"{key}={value}" for key, value in seen.items()]
    nif("reconstruct", f"run={run.path}", "input=box.ply", "output=new", "device=cpu", *words)
    code = np.load("new/box.npz")["code"]
    assert isinstance(made.field, BoundField)
    assert np.allclose(sure(made.field.code).detach().numpy(), code, atol=1e-6)
    same = run.infer(box, **seen)
    assert np.allclose(same.value(points), made.value(points), atol=1e-4)
    cloud = trimesh.sample.sample_surface(box, 300, seed=0)[0]
    if "points" in run.model.observes:
        assert run.infer(cloud, **{**seen, "observe": "points"}).value(points).shape == (50,)


def test_words_are_those_of_a_shell(folder, tmp_path):
    run = nif_cli.train([str(folder / "ball.ply"), *TINY, *TINY_MLP, "output_dir=by_name"], quiet=True)
    assert (type(run.model).__name__, run.ids) == ("Sdf", ["ball"])


def test_images(nif, tmp_path):
    """A learned image, and one that is inferred from its pixels."""
    Path("many").mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (12, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"many/{k}.png")
    few = ["trainer.max_time=null", "trainer.max_steps=3", "callbacks=quiet", "logger=csv", "device=cpu"]
    small = ["field=siren_small", "field.width=12", "field.layers=2"]
    one = nif_cli.train(["model=image", "data.path=many/0.png", *few, "output_dir=one"], quiet=True)
    assert one.image(one.ids[0]).shape == (12, 20, 3)
    assert one.image(one.ids[0], size=40).shape == (24, 40, 3)
    batch = ["data.batch_points=64", "data.batch_pictures=2", "model.steps=2"]
    meta = ["model=metasdf", "data=image", "data.path=many", "data.test=1", *batch]
    run = nif_cli.train([*meta, *small, *few, "output_dir=many_run"], quiet=True)
    made = run.infer("many/2.png", points=50)
    assert made.image().shape == (12, 20, 3)
    for wrong in (
        lambda: run.infer(np.zeros((5, 3))),
        lambda: run.infer("many/9.png"),
        lambda: made.mesh(),
        lambda: made.value(np.zeros((5, 2))),
    ):
        with pytest.raises(NifError):
            wrong()


def test_curves_lie_in_the_plane(nif, tmp_path):
    Path("square.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><path d="M20 20H80V80H20Z"/></svg>'
    )
    few = ["trainer.max_time=null", "trainer.max_steps=300", "callbacks=quiet", "device=cpu"]
    run = nif_cli.train(["model=curve", "data.path=square.svg", *few, "output_dir=curve"], quiet=True)
    assert run[run.ids[0]].inside(np.array([[50.0, 50.0], [5.0, 5.0]])).tolist() == [True, False]
    assert run.gradient(run.ids[0], np.array([[50.0, 21.0]])).shape == (1, 2)
    assert run.image(run.ids[0], size=20).shape == (20, 20, 3)
    with pytest.raises(NifError, match="plane"):
        run.mesh(run.ids[0])
