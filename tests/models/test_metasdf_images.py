"""Learned initialisations of images: a folder from the command line, new images, saved runs, curves, and
what goes wrong."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrowing import sure
from PIL import Image as Files

from nif_cli import NifError, runs
from nif_cli.data.images.folder import ImagesBatch
from nif_cli.data.shapes.samples import PointSamples, Scan
from nif_cli.fields.siren import Siren
from nif_cli.models.metasdf import MetaSdf
from nif_cli.optim.adam import Adam

SMALL = ["field=siren_small", "field.width=16", "field.layers=2", "model.steps=2", "data.batch_points=256"]
QUICK = [
    "trainer.max_time=null",
    "trainer.max_steps=8",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "output_dir=run",
]
TRAIN = ["train", "model=metasdf", "data=image", "data.path=folder", *SMALL, *QUICK]


def make(algorithm: str = "metasdf", **options: Any) -> MetaSdf:
    settings: dict[str, Any] = {"algorithm": algorithm, "steps": 3, "inner_lr": 0.05, **options}
    field = partial(Siren, width=5, layers=2, omega=4.0, first_omega=4.0)
    return MetaSdf(field, partial(Adam, lr=1e-3), channels=3, **settings)


def waves(images: int, points: int, dtype=torch.float32) -> ImagesBatch:
    """Smooth colours that differ by a phase."""
    x = torch.rand(images, points, 2, dtype=dtype) * 2 - 1
    phase = torch.linspace(0, 1.5, images, dtype=dtype)[:, None]
    colors = [torch.sin(2 * x[..., 0] + phase), torch.cos(x[..., 1] - phase), torch.sin(x.sum(-1) + phase)]
    return ImagesBatch(x, 0.5 + 0.4 * torch.stack(colors, -1))


@pytest.mark.parametrize("algorithm", ["maml", "metasdf", "fomaml", "reptile"])
def test_the_gradient_is_that_of_the_algorithm(algorithm):
    """Second order against finite differences; the first-order ones as what the steps end with."""
    model, batch = make(algorithm).double().train(), waves(3, 24, torch.float64)
    model.loss(batch)["query"].backward()
    found = [sure(p.grad).clone() for p in model.parameters()]
    context, query = model.tasks(batch)
    ends = {n: w.detach() for n, w in model.adapt(context)[0].items()}
    if algorithm == "reptile":
        expected = [(p.detach() - ends[n]).mean(0) for n, p in model.network.named_parameters()]
    elif algorithm == "fomaml":
        leaves = [w.requires_grad_() for w in ends.values()]
        gradients = torch.autograd.grad(model.errors(ends, query).mean(), leaves)
        expected = [g.sum(0) for g in gradients]
    else:
        along, both = [torch.randn_like(p) for p in model.parameters()], []
        model.eval()
        for eps in (1e-6, -2e-6):
            with torch.no_grad():
                for p, a in zip(model.parameters(), along, strict=True):
                    p += eps * a
                both.append(model.loss(batch)["query"].item())
        slope = (both[0] - both[1]) / 2e-6
        assert sum((a * g).sum().item() for a, g in zip(along, found, strict=True)) == pytest.approx(
            slope, rel=1e-4
        )
        return
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-12) for a, b in zip(found, expected, strict=True))


def test_contexts():
    batch = waves(4, 40)
    context, query = make().tasks(batch)
    assert torch.equal(context.points, batch.points[:, ::2])
    assert torch.equal(query.target, batch.color)
    context, _ = make(context="partial").tasks(batch)
    assert context.points.shape == (4, 20, 2)
    assert (context.points.mean(1).norm(dim=-1) > batch.points.mean(1).norm(dim=-1)).all()
    with pytest.raises(ValueError, match="two_headed"):
        make(objective="two_headed")
    with pytest.raises(ValueError, match="surface"):
        make(context="surface")


def test_training_makes_steps_worth_more():
    model = make(inner_lr=0.1).train()
    context, query = model.tasks(waves(5, 200))

    def after() -> float:
        with torch.no_grad():
            return model.value_errors(model.adapt(context)[0], query).mean().item()

    before = after()
    optimizer = torch.optim.Adam(model.parameter_groups(), 5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(waves(8, 64))["query"].backward()
        optimizer.step()
    assert after() < 0.3 * before


def test_what_cannot_be_adapted_to_is_told():
    model = make().eval()
    with pytest.raises(NifError, match="nothing is seen"):
        model.infer([Scan(np.zeros((3, 3), np.float32))])
    with pytest.raises(NifError, match="1 channels"):
        model.infer([PointSamples(points=np.zeros((3, 2), np.float32), colors=np.zeros((3, 1), np.float32))])
    pixel = PointSamples(points=np.zeros((1, 2), np.float32), colors=np.full((1, 3), 0.7, np.float32))
    losses = model.infer([pixel], steps=20)[0].report["losses"]
    assert losses[-1] < losses[0]


def test_the_commands_work_on_it(nif, paint, folder, tmp_path):
    result = nif(*TRAIN, "data.test=2")
    assert result.code == 0, result.err
    assert "3 images" in result.out
    assert "psnr" in result.out
    assert "nif extract" not in result.out
    assert list(runs.load_model(tmp_path / "run").instances) == ["sub/d", "sub/e"]
    assert nif("train", "resume=run", "trainer.max_steps=10").code == 0
    folder.rename(tmp_path / "moved")
    assert nif("render", "run=run").code == 0
    assert Files.open(tmp_path / "run/renders/sub/e.png").size == (24, 10)
    assert "no surface" in nif("extract", "run=run").error

    result = nif("reconstruct", "run=run", "input=moved", "steps=3", "points=50")
    assert result.code == 0, result.err
    assert Files.open(tmp_path / "run/reconstructions/c.png").size == (9, 21)
    report = json.loads((tmp_path / "run/reconstructions/c.json").read_text())
    assert len(report["losses"]) == 4
    assert report["points"] == 50
    assert 0 < report["psnr"] < 60
    result = nif("reconstruct", "run=run", "input=moved/a.png", "save=run", "output=saved", "points=1000")
    assert result.code == 0, result.err
    made = np.asarray(Files.open(tmp_path / "saved/a.png"))
    plain = runs.load_model(tmp_path / "saved/a")
    weights = np.load(tmp_path / "saved/a.npz")
    own = plain.get_submodule("network").named_parameters()
    assert all(np.array_equal(p.detach().numpy(), weights[n]) for n, p in own)
    assert nif("render", "run=saved/a").code == 0
    assert np.array_equal(made, np.asarray(Files.open(tmp_path / "saved/a/renders/a.png")))
    before = json.loads((tmp_path / "saved/a.json").read_text())["psnr"]
    result = nif("train", "resume=saved/a", "trainer.max_steps=150", "model.lr=1e-3", "data.batch_points=300")
    assert result.code == 0, result.err
    assert nif("evaluate", "run=saved/a").code == 0
    after = json.loads((tmp_path / "saved/a/evaluation.json").read_text())["protocol"]["image"]["mean"][
        "psnr"
    ]
    assert after > before + 1
    assert "two images are called 'a'" in nif("reconstruct", "run=run", "input=[moved/a.png,moved]").error
    assert "none.png" in nif("reconstruct", "run=run", "input=none.png").error
    assert (
        "there is a run already"
        in nif("reconstruct", "run=run", "input=moved/a.png", "save=run", "output=saved").error
    )
    assert (
        nif(
            "train", "model=image", "data.path=moved/a.png", *SMALL[:3], *QUICK[:-1], "init_from=saved/a"
        ).code
        == 0
    )


def test_evaluating(nif, paint, folder, tmp_path):
    assert nif(*TRAIN, "data.test=2").code == 0
    result = nif("evaluate", "run=run", "split=test", "points=100")
    assert result.code == 0, result.err
    assert "image: 2 images" in result.out
    part = json.loads((tmp_path / "run/evaluation.json").read_text())["protocol"]["image"]
    assert set(part["instances"]) == {"sub/d", "sub/e"}
    assert part["mean"]["psnr"] == pytest.approx(np.mean([f["psnr"] for f in part["instances"].values()]))
    assert nif("evaluate", "run=run", "output=known.json", "points=100").code == 0
    assert json.loads(Path("known.json").read_text())["protocol"]["image"]["instances"] == part["instances"]
    assert (
        nif("evaluate", "run=run", "+data.path=folder/sub", "split=all", "instances=1", "keep=x+").code == 0
    )
    result = nif("evaluate", "run=run", "split=test", "curve=[0,1,4]", "points=100")
    assert result.code == 0, result.err
    assert "PSNR" in result.out
    curves = json.loads((tmp_path / "run/adaptation.json").read_text())["curves"]
    assert set(curves) == {"learned", "random, Adam", "one image, Adam"}
    assert all(list(c) == ["0", "1", "4"] for c in curves.values())
    assert all(np.isfinite(v["psnr"]) for c in curves.values() for v in c.values())
    assert (tmp_path / "run/adaptation_shapes.png").is_file()
    assert "keep=z+" in nif("evaluate", "run=run", "split=test", "keep=z+").error
    (folder / "sub/d.png").write_text("nothing")
    for more in ([], ["curve=[0,1]"]):
        result = nif("evaluate", "run=run", "split=test", "points=100", *more)
        assert result.code == 1
        assert "1 of 2 images were left out" in result.error
        assert "left out: " in result.out
    assert json.loads((tmp_path / "run/adaptation.json").read_text())["instances"] == ["sub/e"]


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_channels_are_those_of_the_images(nif, paint, tmp_path, mode):
    for k in range(3):
        paint(tmp_path / "folder" / f"{k}.png", 12, 10 + k, k, mode)
    assert nif(*TRAIN).code == 0
    assert nif("reconstruct", "run=run", "input=folder/0.png").code == 0
    assert Files.open(tmp_path / "run/reconstructions/0.png").mode == mode
    paint(tmp_path / "colour.png", 8, 8, 0)
    assert "colour.png: it is RGB" in nif("reconstruct", "run=run", "input=colour.png").error


def test_a_folder_with_one_damaged_image_and_one_of_a_single_pixel(nif, paint, folder, tmp_path):
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:60])
    paint(folder / "pixel.png", 1, 1, 0.4)
    result = nif(*TRAIN)
    assert result.code == 0, result.err
    assert "1 left out" in result.out
    assert "bad.png" in result.out
    result = nif("reconstruct", "run=run", "input=folder")
    assert "1 of 7 files" in result.error
    assert "bad.png" in result.out
    assert Files.open(tmp_path / "run/reconstructions/pixel.png").size == (1, 1)
    assert "bad.png" in nif("reconstruct", "run=run", "input=folder/bad.png").error


def test_what_does_not_fit_is_said(nif, paint, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty: no image" in nif(*TRAIN, "data.path=empty").error
    assert "none: no such file" in nif(*TRAIN, "data.path=none").error
    assert "data.path=<folder>" in nif(*TRAIN, "data.path=folder/a.png").error
    assert "data.path=<folder>" in nif(*TRAIN, "data.path=null").error
    assert "folder: a folder" in nif("train", "model=image", "data.path=folder", *QUICK).error
    assert "none is left" in nif(*TRAIN, "data.test=5").error
    assert "data.split=test" in nif(*TRAIN, "data.split=test").error
    assert "data.hold_out" in nif(*TRAIN, "data.hold_out=0.5").error
    assert "one image" in nif("train", "model=image", "data.path=folder/a.png", "data.test=2", *QUICK).error
    assert "model.channels=4" in nif(*TRAIN, "model.channels=4").error
    assert "two_headed" in nif(*TRAIN, "model.objective=two_headed").error
    paint(folder / "grey.png", 5, 5, 0, "L")
    message = nif(*TRAIN).error
    assert "grey.png: it is grey" in message
    assert "RGB" in message
