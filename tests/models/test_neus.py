"""NeuS as a model: where it starts, that its gradient is its distance's, what it learns of a toy scene, and
what a run keeps."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import trimesh
from trimesh.visual import ColorVisuals

from nif_cli import NifError
from nif_cli.data.scenes.toy import ToyViews
from nif_cli.field import Field, gradient
from nif_cli.fields.neus import NeusNetwork
from nif_cli.fields.ngp import NgpNetwork
from nif_cli.models.nerf import Nerf
from nif_cli.models.neus import Neus
from nif_cli.optim.adam import Adam
from nif_cli.rendering.volume import RadianceField

SMALL = functools.partial(
    NeusNetwork, log2_table=12, levels=4, level_features=2, finest=64, first_levels=2, half=False
)


def network(**options) -> NeusNetwork:
    torch.manual_seed(0)
    return SMALL(**options)


def adam(groups):
    return Adam(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-15)


def model(**options) -> Neus:
    torch.manual_seed(0)
    return Neus(SMALL, adam, **{"resolution": 32, "first_steps": 64, "steps": 64, **options})


@pytest.mark.parametrize("radius", [0.3, 0.7])
def test_it_starts_as_the_distance_to_a_sphere(radius):
    made = network(radius=radius, width=64)
    points = 2 * torch.rand(2000, 3) - 1
    here = made.geometry(points)
    away = points.norm(dim=1)
    assert (here.distance - (radius - away)).abs().max() < 0.03
    far = away > 0.1
    outward = -torch.nn.functional.normalize(here.gradient[far], dim=1)
    assert (outward * torch.nn.functional.normalize(points[far], dim=1)).sum(1).min() > 0.98
    assert (here.gradient[far].norm(dim=1) - 1).abs().max() < 0.1


def moved() -> NeusNetwork:
    """A network that is no sphere, with all levels open, in float64."""
    made = network().double()
    made.grid.lazy = False
    torch.nn.init.normal_(made.grid.table, std=0.1)
    made.open.fill_(4)
    return made


def test_the_gradient_is_that_of_the_distance():
    made = moved()
    points = 1.8 * torch.rand(200, 3, dtype=torch.float64) - 0.9
    with torch.no_grad():
        step = 1e-7 * torch.eye(3, dtype=torch.float64)
        ahead, behind = (torch.stack([made.distance(points + sign * s) for s in step], 1) for sign in (1, -1))
        exact = made.geometry(points).gradient
    assert (exact - (ahead - behind) / 2e-7).abs().max() < 1e-4

    class Asked:
        value, level, truncation, bounds = made.distance, 0.0, 1.0, torch.zeros(2, 3)

    assert torch.equal(gradient(cast("Field", Asked), points), exact)


def test_the_gradients_derivative_by_the_parameters_is_exact():
    """Second order, through the eikonal term: against finite differences of every kind of parameter."""
    made = moved()
    points = 1.8 * torch.rand(30, 3, dtype=torch.float64) - 0.9

    def unit() -> torch.Tensor:
        return (made.geometry(points).gradient.norm(dim=1) - 1).square().mean()

    chosen = [made.hidden.weight, made.hidden.bias, made.last.weight, made.grid.table]
    slopes = torch.autograd.grad(unit(), chosen)
    for parameter, slope in zip(chosen, slopes, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                parameter += sign * 1e-6 * direction
                ends.append(unit())
                parameter -= sign * 1e-6 * direction
        assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(float((slope * direction).sum()), rel=1e-4)


def test_scenes_that_it_cannot_learn_are_refused():
    with pytest.raises(NifError, match="one by one"):
        model().attach_data(ToyViews(views=2, test=0, size=8, shapes=2))
    with pytest.raises(ValueError, match="field=neus"):
        Neus(functools.partial(NgpNetwork, log2_table=8), adam)
    with pytest.raises(ValueError, match="model=neus"):
        Nerf(SMALL, adam)
    for wrong in ({"eikonal": -1.0}, {"sharpness_lr": 0.0}, {"opened": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model(**wrong)


def test_laplaces_density_is_learned_from_too():
    """VolSDF: a density of places, and the same surface."""
    data = ToyViews(views=3, test=1, size=16)
    torch.manual_seed(0)
    made = Neus(functools.partial(SMALL, density="volsdf"), adam, resolution=32, first_steps=64, steps=64)
    made.attach_data(data)
    made.train()
    made.before_step()
    batch = data.make_pool(torch.device("cpu")).draw(64, torch.Generator().manual_seed(0))
    torch.stack(list(made.terms(batch).values())).sum().backward()
    slope = made.network.log_sharpness.grad
    assert slope is not None
    assert float(slope) != 0
    (id,) = made.instances
    assert made.field(id).level == 0


def test_a_sharpness_that_explodes_ends_in_a_line():
    data = ToyViews(views=3, test=1, size=16)
    made = model()
    made.attach_data(data)
    made.train()
    made.before_step()
    batch = data.make_pool(torch.device("cpu")).draw(64, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(term) for term in made.terms(batch).values())
    with torch.no_grad():
        made.network.log_sharpness.fill_(12)
    with pytest.raises(NifError, match=r"thin after 0 steps.*sharpness_lr"):
        made.terms(batch)


def test_levels_open_one_by_one():
    made = model(opened=0.5)
    made.attach_data(ToyViews(views=2, test=1, size=8))
    seen = []
    for progress in (0.0, 0.2, 0.25, 0.4, 0.5, 1.0):
        made.progress = lambda p=progress: p
        made.before_step()
        seen.append(int(made.network.open))
    assert seen == [2, 2, 3, 3, 4, 4]


TINY = [
    "train",
    "model=neus",
    "trainer.max_time=null",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "scheduler=constant",
    "data.size=16",
    "data.views=4",
    "data.test=1",
    "field.log2_table=11",
    "field.levels=4",
    "field.finest=64",
    "field.half=false",
    "model.resolution=32",
    "model.samples=1024",
    "model.first_samples=1024",
    "model.growth=0",
    "model.opened=0",
    "model.anneal=0",
    "model.curvature=0",
]


def test_a_stopped_run_goes_on_bit_for_bit_and_becomes_a_mesh(nif, monkeypatch):
    from nif_cli.data.scenes.datamodule import Views

    monkeypatch.setattr(Views, "epoch_batches", 5)
    assert nif(*TINY, "trainer.max_steps=10", "output_dir=part").code == 0
    made = nif(*TINY, "trainer.max_steps=20", "output_dir=all")
    assert made.code == 0, made.err
    assert "psnr held-out" in made.out
    assert nif("train", "resume=part", "trainer.max_steps=20").code == 0
    a, b = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("part", "all")
    )
    for name, value in a.items():
        assert torch.equal(value, b[name]), name

    extracted = nif("extract", "run=all", "resolution=24")
    assert extracted.code == 0, extracted.err
    assert "density" not in extracted.out
    mesh = trimesh.load_mesh(next(Path("all/meshes").rglob("*.ply")))
    assert mesh.is_watertight
    assert mesh.volume > 0
    assert isinstance(mesh.visual, ColorVisuals)
    assert len(np.unique(mesh.visual.vertex_colors[:, :3], axis=0)) > 5
    grown = nif("extract", "run=all", "resolution=24", "offset=0.1", "output=grown")
    assert grown.code == 0, grown.err
    larger = trimesh.load_mesh(next(Path("grown").rglob("*.ply")))
    assert nif("render", "run=all", "frames=1", "size=16", "offset=0.1", "output=drawn").code == 0
    assert next(Path("drawn/offset").rglob("*.png"))
    assert 0.05 < (np.ptp(larger.vertices, axis=0) - np.ptp(mesh.vertices, axis=0)).mean() / 2 < 0.15


def test_a_field_is_what_everything_else_takes():
    """Distances, colours, light; the mesh in the user's units is where its transform says."""
    from nif_cli.inference.meshes import made_mesh
    from nif_cli.schemas import Extract

    data = ToyViews(views=2, test=1, size=8)
    made = model()
    made.attach_data(data)
    (id,) = made.instances
    field = made.eval().field(id)
    assert isinstance(field, RadianceField)
    assert field.level == 0
    assert field.truncation > 0
    transform = made.instances[id].transform
    mesh, _ = made_mesh(id, field, transform, Extract(resolution=40), torch.device("cpu"))
    away = np.linalg.norm(transform.to_normalised(mesh.vertices), axis=1)
    assert mesh.is_watertight
    assert np.abs(away - 0.5).max() < 0.03
