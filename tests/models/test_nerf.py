"""NeRF as a model: what it takes, what it learns of a toy scene, and what a run keeps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from narrowing import sure

from nif_cli import NifError
from nif_cli.data.scenes.toy import ToyViews
from nif_cli.fields.nerf import NerfNetwork as PublishedNetwork
from nif_cli.fields.network import RadianceNetwork
from nif_cli.fields.ngp import NgpNetwork
from nif_cli.models.nerf import Nerf
from nif_cli.models.ray_samplers import HierarchicalSampler, OccupancySampler
from nif_cli.optim.adam import Adam
from nif_cli.rendering.volume import RadianceField, volume_render

NGP = functools.partial(NgpNetwork, log2_table=14, levels=6, level_features=4, finest=128, half=False)
PUBLISHED = functools.partial(PublishedNetwork, width=32, layers=3, skip=1, frequencies=5, view_frequencies=2)


def toy(**options) -> ToyViews:
    return ToyViews(**{"views": 12, "test": 2, "size": 40, **options})


def adam(groups):
    return Adam(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-15)


def model(field: Callable[..., RadianceNetwork] = NGP, **options: Any) -> Nerf:
    torch.manual_seed(0)
    small: dict[str, Any] = {"resolution": 32, "first_steps": 64, "steps": 64} if field is NGP else {}
    return Nerf(field, adam, **{**small, **options})


def train(made: Nerf, data: ToyViews, steps: int, rays: int = 512) -> list[float]:
    """By hand, without Lightning: the losses."""
    made.train()
    optimizer = made.configure_optimizers()
    pool, generator = data.make_pool(torch.device("cpu")), torch.Generator().manual_seed(0)
    losses = []
    for step in range(steps):
        if made.grid is not None and step % 16 == 0:
            made._look()
        optimizer.zero_grad()
        total = torch.stack(list(made.loss(pool.draw(rays, generator)).values())).sum()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    return losses


@pytest.fixture(scope="module")
def learned():
    data = toy()
    made = model()
    made.attach_data(data)
    return made, data, train(made, data, 150)


def test_a_toy_scene_is_learned(learned):
    made, data, losses = learned
    assert losses[-1] < 0.2 * losses[0]
    figures = made.final_metrics(data)
    assert figures["psnr held-out"] > 20


def test_the_field_renders_its_views(learned):
    made, data, _ = learned
    scene = data.scenes[0]
    field = made.eval().field(scene.id)
    assert isinstance(field, RadianceField)
    view = scene.test[0]
    rays = scene.rays(view)
    near, far = (torch.full((len(rays),), x) for x in (scene.near, scene.far))
    image = volume_render(field, rays, near, far, "white")
    pixels = view.pixels.float().reshape(-1, 4) / 255
    truth = pixels[:, :3] * pixels[:, 3:] + 1 - pixels[:, 3:]
    assert float((image.color - truth).square().mean()) < 0.02
    assert float((image.opacity - pixels[:, 3]).abs().mean()) < 0.1


def test_density_is_zero_where_no_ray_looks(learned):
    made, data, _ = learned
    field = made.field(data.scenes[0].id)
    points = 2 * torch.rand(500, 3) - 1
    cell = made.grid.at(points)
    empty = made.grid.occupied.view(-1)[cell] == 0
    assert empty.any()
    assert not field.value(points)[empty].any()
    assert field.level > 0
    low, high = field.bounds
    assert (low < high).all()


@pytest.mark.parametrize(
    ("densities", "level"), [([1.0, 2.0, 6.0], 2), ([0.0, 0, 0, 0, 3, 5, 9], 5), ([0.0, 0, 0], 1), ([], 1)]
)
def test_a_surface_is_never_where_there_is_nothing(learned, densities, level):
    """A level of 0 would be the border of all that is not empty."""
    made, data, _ = learned
    field = made.field(data.scenes[0].id)
    field.__dict__["_stopped"] = (torch.zeros(len(densities), 3), torch.tensor(densities))
    assert field.level == level


def test_the_published_network_learns_too():
    data = toy(views=8)
    made = model(PUBLISHED, coarse=16, fine=16, lr=3e-3)
    made.attach_data(data)
    assert made.grid is None
    losses = train(made, data, 60, rays=256)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    scene = data.scenes[0]
    rays = scene.rays(scene.test[0])[:50]
    near, far = (torch.full((50,), x) for x in (scene.near, scene.far))
    first, again = (
        volume_render(made.eval().field(scene.id), rays, near, far, "white").color for _ in range(2)
    )
    assert torch.equal(first, again)  # no random places outside of training


def test_scenes_that_share_need_codes():
    with pytest.raises(NifError, match="shape_code"):
        model().attach_data(toy(shapes=2, materials=2, views=4))


def test_codes_set_shape_and_appearance_apart():
    data = toy(shapes=2, materials=2, views=6)
    made = model(shape_code=4, appearance_code=4)
    made.attach_data(data)
    sizes = {k: len(made.codes.get_parameter(f"tables.{k}.weight")) for k in made.codes.tables}
    assert sizes == {"shape": 2, "appearance": 2}
    train(made, data, 30)
    ids = list(made.instances)
    scenes = {id: sure(made.instances[id].scene) for id in ids}
    assert all(scene.id == id for id, scene in scenes.items())
    a = ids[0]
    b = next(
        i for i in ids if scenes[i].shape != scenes[a].shape and scenes[i].appearance != scenes[a].appearance
    )
    made.eval()
    points, directions = torch.rand(64, 3) - 0.5, torch.nn.functional.normalize(torch.randn(64, 3), dim=-1)
    of_a, mixed, of_b = made.field(a), made.field(a, appearance=b), made.field(b)
    assert torch.equal(mixed.radiance(points, directions)[0], of_a.radiance(points, directions)[0])
    assert not torch.equal(mixed.radiance(points, directions)[1], of_a.radiance(points, directions)[1])
    assert not torch.equal(of_b.radiance(points, directions)[0], of_a.radiance(points, directions)[0])
    alone = model(shape_code=4)
    alone.attach_data(data)
    with pytest.raises(NifError, match="no appearance codes"):
        alone.field(a, appearance=b)


def test_nothing_to_see_opens_the_grid_again():
    """White collapse: the step after the last cell has closed, all are open again."""
    data = toy(views=4)
    made = model()
    made.attach_data(data)
    made.train()
    grid = sure(made.grid)
    grid.occupied.zero_()
    batch = data.make_pool(torch.device("cpu")).draw(64, torch.Generator().manual_seed(0))
    made.loss(batch)["color"].backward()
    assert torch.equal(grid.occupied, grid.allowed)


def test_a_batch_without_any_sample_is_a_step_that_changes_no_table():
    """Rays that meet nothing, between others that do: numbers stay finite, the table and its moments as they
    are."""
    data = toy(views=4)
    made = model()
    made.attach_data(data)
    made.train()
    optimizer = made.configure_optimizers()
    for group in optimizer.param_groups:
        group["fused"] = True
    pool, generator = data.make_pool(torch.device("cpu")), torch.Generator().manual_seed(0)
    assert isinstance(made.network, NgpNetwork)
    table = made.network.grid.table

    def step(empty: bool) -> float:
        batch = pool.draw(256, generator)
        if empty:
            batch.origins = batch.origins + 100.0
        optimizer.zero_grad()
        (loss,) = made.loss(batch).values()
        loss.backward()
        assert (table.grad is None) == empty
        optimizer.step()
        return float(loss.detach())

    assert np.isfinite([step(True) for _ in range(2)]).all()  # also before anything was learned
    first = step(False)
    for _ in range(3):
        before = [
            table.detach().clone(),
            *(optimizer.state[table][n].clone() for n in ("exp_avg", "exp_avg_sq")),
        ]
        assert np.isfinite(step(True))
        after = [table.detach(), *(optimizer.state[table][n] for n in ("exp_avg", "exp_avg_sq"))]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert np.isfinite(step(False))
    assert all(torch.isfinite(p).all() for p in made.network.parameters())
    assert np.mean([step(False) for _ in range(5)]) < 1.5 * first


def test_a_batch_of_masked_rays_has_no_error():
    data = toy(views=4)
    made = model()
    made.attach_data(data)
    made.train()
    batch = data.make_pool(torch.device("cpu")).draw(64, torch.Generator().manual_seed(0))
    batch.valid = torch.zeros(len(batch), dtype=torch.bool)
    loss = made.loss(batch)["color"]
    loss.backward()
    assert loss.item() == 0


def test_fields_without_directions_are_refused():
    from nif_cli.fields.mlp import MLP

    with pytest.raises(ValueError, match="field=ngp"):
        model(cast(Any, functools.partial(MLP, dim=3)))


@pytest.mark.parametrize(
    "wrong", [{"coarse": 1}, {"samples": 0}, {"steps": 2}, {"huber": -1.0}, {"shape_code": -1}]
)
def test_models_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        model(**wrong)


def test_a_key_of_the_other_sampler_is_refused_by_name():
    with pytest.raises(ValueError, match=r"coarse=8: field=ngp .* resolution, threshold"):
        model(coarse=8)
    with pytest.raises(ValueError, match=r"cone=0.5: field=nerf .* its keys are coarse, fine"):
        model(PUBLISHED, cone=0.5)


def test_configurations_that_name_every_key_of_both_load():
    """Old runs: nothing looked at the other's."""
    grid: dict[str, Any] = dict(
        resolution=64, threshold=0.1, samples=99, first_samples=9, steps=20, first_steps=10
    )
    old = dict(grid, growth=0.5, update=3, cone=0.01, hull=False, coarse=8, fine=4)
    assert model(PUBLISHED, **old).sampler == HierarchicalSampler(8, 4)
    assert model(**old).sampler == OccupancySampler(64, 0.1, 99, 9, 20, 10, 0.5, 3, 0.01, False)
    assert model(coarse=64, fine=128).sampler == OccupancySampler(32, first_steps=64, steps=64)


TINY = [
    "train",
    "model=nerf",
    "trainer.max_time=null",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "data.size=24",
    "data.views=6",
    "data.test=2",
    "field.log2_table=11",
    "field.levels=4",
    "field.finest=64",
    "field.half=false",
    "model.resolution=32",
    "model.samples=4096",
    "model.first_samples=1024",
]


def weights(run: str) -> dict:
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)


def test_from_the_shell_a_scene_becomes_a_coloured_mesh(nif):
    made = nif(*TINY, "trainer.max_steps=60", "model.lr=3e-3", "output_dir=run")
    assert made.code == 0, made.err
    assert "psnr held-out" in made.out
    assert "nif extract run=run" in made.out
    extracted = nif("extract", "run=run", "resolution=40", "largest=true")
    assert extracted.code == 0, extracted.err
    assert "surface at density" in extracted.out
    import trimesh
    from trimesh.visual import ColorVisuals

    mesh = trimesh.load_mesh(next(Path("run/meshes").rglob("*.ply")))
    assert isinstance(mesh.visual, ColorVisuals)
    assert len(np.unique(mesh.visual.vertex_colors[:, :3], axis=0)) > 20
    assert np.abs(mesh.vertices).max() < 1.1
    assert len(mesh.split(only_watertight=False)) == 1


def test_a_stopped_run_goes_on_bit_for_bit(nif, monkeypatch):
    from nif_cli.data.scenes.datamodule import Views

    monkeypatch.setattr(Views, "epoch_batches", 8)
    assert (
        nif(*TINY, "trainer.max_steps=20", "scheduler=constant", "model.growth=0", "output_dir=part").code
        == 0
    )
    assert (
        nif(*TINY, "trainer.max_steps=40", "scheduler=constant", "model.growth=0", "output_dir=all").code == 0
    )
    assert nif("train", "resume=part", "trainer.max_steps=40").code == 0
    a, b = weights("part"), weights("all")
    assert a["global_step"] == b["global_step"] == 40
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name


def test_a_loss_that_is_not_finite_ends_in_a_line(nif, monkeypatch):
    real = Nerf.loss

    def breaks(self, batch):
        terms = real(self, batch)
        return {k: v * float("nan") for k, v in terms.items()} if self.step >= 3 else terms

    monkeypatch.setattr(Nerf, "loss", breaks)
    error = nif(*TINY, "trainer.max_steps=60", "output_dir=run").error
    assert "not finite after 3 steps" in error
    assert "model.lr" in error


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["field=relu"], "field=ngp"),
        (["data=toy_shapes"], "model=nerf learns from views"),
        (["model.resolution=50"], "resolution=50"),
        (["data.shapes=2"], "shape_code"),
        (["model.coarse=1"], "coarse"),
    ],
)
def test_wrong_input(nif, wrong, says):
    made = [o for o in TINY if not (o.startswith("field.") and "field=relu" in wrong)]
    made = [o for o in made if not (o.startswith("data.") and "data=toy_shapes" in wrong)]
    assert says in nif(*made, "trainer.max_steps=2", *wrong).error
