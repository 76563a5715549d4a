"""Learned initialisations: each algorithm's gradient against finite differences, contexts, adaptation to any
shape, runs."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from narrowing import sure

from nif_cli import NifError, runs
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.samples import PointSamples, Scan
from nif_cli.data.shapes.toy import ToyShapes
from nif_cli.field import Field, Signal
from nif_cli.fields.mlp import MLP
from nif_cli.fields.network import Network
from nif_cli.fields.siren import Siren
from nif_cli.models.inner_loop import Task
from nif_cli.models.metasdf import MetaSdf
from nif_cli.optim.adam import Adam

TINY_SIREN = partial(Siren, width=5, layers=2, omega=4.0, first_omega=4.0)


def make(algorithm: str = "metasdf", field: Callable[..., Network] = TINY_SIREN, **options: Any) -> MetaSdf:
    settings: dict[str, Any] = {"algorithm": algorithm, "steps": 3, "inner_lr": 0.05, **options}
    return MetaSdf(field, partial(Adam, lr=1e-3), **settings).train()


def value_at(field: Field | Signal, points: torch.Tensor) -> torch.Tensor:
    assert isinstance(field, Field)
    return field.value(points)


def balls(shapes: int = 4, points: int = 32, dtype=torch.float32) -> ShapeBatch:
    """Signed distances of balls of different radii; outside first, as a pool draws them."""
    radius = torch.linspace(0.3, 0.7, shapes, dtype=dtype)[:, None]
    direction = torch.nn.functional.normalize(torch.randn(shapes, points, 3, dtype=dtype), dim=-1)
    away = torch.cat(
        (
            1 + 0.4 * torch.rand(shapes, points // 2, dtype=dtype),
            torch.rand(shapes, points // 2, dtype=dtype),
        ),
        1,
    )
    return ShapeBatch(
        torch.arange(shapes),
        direction * (away * radius)[..., None],
        radius - away * radius,
        direction * radius[..., None],
        direction,
    )


def value(model: MetaSdf, batch: ShapeBatch) -> float:
    model.eval()
    with torch.no_grad():
        found = model.loss(batch)["query"].item()
    model.train()
    return found


def gradient(model: MetaSdf, batch: ShapeBatch) -> list[torch.Tensor]:
    model.zero_grad()
    model.loss(batch)["query"].backward()
    return [sure(p.grad).clone() for p in model.parameters()]


def slope(function, tensors: list[torch.Tensor], along: list[torch.Tensor], eps: float = 1e-6) -> float:
    """The central difference of `function()` when all tensors move in direction `along`."""
    both = []
    for sign in (1, -1):
        with torch.no_grad():
            for t, a in zip(tensors, along, strict=True):
                t += sign * eps * a
        both.append(function())
        with torch.no_grad():
            for t, a in zip(tensors, along, strict=True):
                t -= sign * eps * a
    return (both[0] - both[1]) / (2 * eps)


def directions(model: MetaSdf, count: int = 4) -> list[list[torch.Tensor]]:
    return [[torch.randn_like(p) for p in model.parameters()] for _ in range(count)]


def dot(a, b) -> float:
    return sum((x * y).sum().item() for x, y in zip(a, b, strict=True))


SECOND_ORDER = [
    ("maml", {}),
    ("maml", {"objective": "two_headed"}),
    ("maml", {"objective": "l1", "inner": "same"}),
    ("maml", {"inner": "same"}),
    ("metasdf", {"step_size": "scalar", "per_step": False}),
    ("metasdf", {"step_size": "tensor"}),
    ("metasdf", {"step_size": "parameter"}),
    ("metasdf", {"step_size": "parameter", "objective": "two_headed"}),
    ("metasdf", {"context": "surface"}),
    ("metasdf", {"field": partial(MLP, width=6, layers=2)}),
    (
        "metasdf",
        {"field": partial(MLP, width=12, layers=3, skips=[1], weight_norm=True, activation="softplus")},
    ),
]


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(("algorithm", "options"), SECOND_ORDER, ids=str)
def test_second_order_is_the_derivative_of_the_loss_after_adaptation(algorithm, options, checkpoint):
    model, batch = make(algorithm, checkpoint=checkpoint, **options).double(), balls(dtype=torch.float64)
    found = gradient(model, batch)
    for along in directions(model):
        assert slope(lambda: value(model, batch), list(model.parameters()), along) == pytest.approx(
            dot(found, along), rel=2e-4, abs=1e-8
        )


@pytest.mark.parametrize("objective", ["clamped_l1", "two_headed"])
def test_fomaml_is_the_derivative_where_the_steps_end(objective):
    """As if the steps were the same wherever they begin: theta_0 moves, what the steps added stays."""
    model, batch = make("fomaml", objective=objective).double(), balls(dtype=torch.float64)
    context, query = model.tasks(batch)
    names = [n for n, _ in model.network.named_parameters()]
    start = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    added = {n: w.detach() - start[n] for n, w in model.adapt(context)[0].items()}

    def ends() -> float:
        now = dict(model.network.named_parameters())
        with torch.no_grad():
            return model.errors({n: now[n] + added[n] for n in names}, query, outer=True).mean().item()

    found = gradient(model, batch)
    for along in directions(model):
        assert slope(ends, list(model.parameters()), along) == pytest.approx(
            dot(found, along), rel=1e-4, abs=1e-8
        )


def test_reptile_is_the_way_that_the_steps_went():
    """theta_0 minus where they end: the inner rate times the sum of the context loss's slopes on the way."""
    model, batch = make("reptile").double(), balls(dtype=torch.float64)
    context, _ = model.tasks(batch)
    found = gradient(model, batch)
    along = directions(model, 1)[0]
    expected = 0.0
    for shape in range(4):
        one = context.part(slice(shape, shape + 1))
        for k in range(model.steps):
            weights = {n: w.detach() for n, w in model.adapt(one, k)[0].items()}

            def inner(w=weights, one=one) -> float:
                with torch.no_grad():
                    return model.errors(w, one).item()

            expected += model.inner_lr * slope(inner, list(weights.values()), [a[None] for a in along]) / 4
    assert dot(found, along) == pytest.approx(expected, rel=1e-4)


def test_first_and_second_order_differ():
    batch = balls(dtype=torch.float64)
    found = {}
    for algorithm in ("maml", "fomaml", "reptile"):
        torch.manual_seed(0)
        found[algorithm] = torch.cat([g.flatten() for g in gradient(make(algorithm).double(), batch)])
    for a, b in (("maml", "fomaml"), ("maml", "reptile"), ("fomaml", "reptile")):
        assert (found[a] - found[b]).norm() > 0.05 * found[a].norm(), (a, b)


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "reptile", "metasdf"])
def test_micro_batches_and_checkpoints_change_nothing(algorithm):
    batch, found = balls(5, dtype=torch.float64), []
    each: list[dict[str, Any]] = [{}, {"micro_batch": 2}, {"micro_batch": 1, "checkpoint": True}]
    for options in each:
        torch.manual_seed(0)
        found.append(gradient(make(algorithm, objective="two_headed", **options).double(), batch))
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found[0], other, strict=True))


def test_training_makes_steps_worth_more():
    """After a few hundred outer steps three inner steps tell balls apart that were never seen."""
    torch.manual_seed(0)
    model = make(field=partial(Siren, width=16, layers=2, first_omega=5.0, omega=5.0), inner_lr=1e-2)
    new = balls(5, 64)
    context, query = model.tasks(new)

    def after(steps: int) -> float:
        with torch.no_grad():
            return model.errors(model.adapt(context, steps)[0], query, outer=True).mean().item()

    before = after(3)
    optimizer = torch.optim.Adam(model.parameter_groups(), 3e-3)
    for _ in range(250):
        optimizer.zero_grad()
        model.loss(balls(8, 64))["query"].backward()
        optimizer.step()
    assert after(3) < 0.4 * before
    assert after(3) < 0.6 * after(0)


class TestTasks:
    def test_dense(self):
        """Half of the points, as many inside as outside."""
        context, query = make().tasks(balls(points=40))
        assert context.points.shape == (4, 20, 3)
        assert ((context.target > 0).sum(1) == 10).all()
        assert query.points.shape == (4, 40, 3)

    def test_the_rest(self):
        """With query=rest no point of the context is in the query; together they are all, and halves stay
        halves."""
        batch = balls(points=40)
        context, query = make(query="rest").tasks(batch)
        assert ((query.target > 0).sum(1) == 10).all()
        both = torch.cat((context.points, query.points), 1)
        assert {tuple(p) for p in both[0].tolist()} == {tuple(p) for p in batch.points[0].tolist()}
        with pytest.raises(ValueError, match="query=rest"):
            make(query="rest", context="partial")

    def test_surface(self):
        batch = balls()
        context, query = make(context="surface", offset=0.02).tasks(batch)
        radius = torch.linspace(0.3, 0.7, 4)[:, None]
        assert torch.allclose(context.target, radius - context.points.norm(dim=-1), atol=1e-6)
        assert context.target.abs().max() == pytest.approx(0.02)
        batch.surface = None
        near, _ = make(context="surface").tasks(batch)
        assert near.target.abs().max() < query.target.abs().max()

    def test_partial(self):
        batch = balls(points=100)
        context, _ = make(context="partial").tasks(batch)
        assert context.points.shape == (4, 50, 3)
        assert (context.points.mean(1).norm(dim=-1) > 2 * batch.points.mean(1).norm(dim=-1)).all()
        radius = torch.linspace(0.3, 0.7, 4)[:, None]
        assert torch.allclose(context.target, radius - context.points.norm(dim=-1), atol=1e-6)


class TestSizes:
    def test_at_first_they_are_the_inner_rate(self):
        each: list[dict[str, Any]] = [
            {"algorithm": "maml"},
            {"step_size": "scalar"},
            {"step_size": "tensor"},
            {"step_size": "parameter"},
        ]
        for options in each:
            for rates in make(**options).log_sizes.sizes(4):
                assert all(torch.as_tensor(r).allclose(torch.tensor(0.05)) for r in rates)
                assert len(rates) == 6

    def test_counts(self):
        def learned(**options):
            return sum(p.numel() for p in make(**options).log_sizes)

        weights = sum(p.numel() for p in make().network.parameters())
        assert learned(algorithm="maml") == 0
        assert learned(step_size="scalar") == 3
        assert learned(step_size="scalar", per_step=False) == 1
        assert learned(step_size="tensor") == 18
        assert learned(step_size="parameter") == 3 * weights
        assert learned(step_size="parameter", per_step=False) == weights

    def test_steps_beyond_the_learned_ones_go_on_with_the_last(self):
        model = make(step_size="tensor")
        with torch.no_grad():
            model.log_sizes[0][:] = torch.arange(3.0)[:, None]
        rates = [torch.as_tensor(r[0]).item() for r in model.log_sizes.sizes(5)]
        assert rates == pytest.approx([1, np.e, np.e**2, np.e**2, np.e**2])


class TestInference:
    def seen(self, batch: ShapeBatch) -> list[PointSamples]:
        return [
            PointSamples(points=p.numpy(), distance=d.numpy())
            for p, d in zip(batch.points, sure(batch.distance), strict=True)
        ]

    def test_together_is_as_alone_and_the_report_has_every_loss(self):
        model = make().eval()
        seen = self.seen(balls(3))
        together = model.infer(seen, steps=4)
        points = torch.rand(7, 3)
        for k in range(3):
            alone = model.infer(seen[k : k + 1], steps=4)[0]
            assert torch.allclose(
                value_at(alone.field, points), value_at(together[k].field, points), atol=1e-6
            )
            losses = together[k].report["losses"]
            assert len(losses) == 5
            assert losses[-1] == together[k].report["loss"]
            assert together[k].report["steps"] == 4
            task = Task(*(torch.from_numpy(a)[None] for a in (seen[k].points, seen[k].distance)))
            assert losses[0] == pytest.approx(model.errors(model.adapt(task, 0)[0], task).item(), rel=1e-4)
            again = make().eval()
            again.network.load_state_dict(together[k].state)
            assert torch.allclose(
                again.network(points[None])[0, :, 0], value_at(together[k].field, points), atol=1e-6
            )

    def test_no_step_is_theta_0(self):
        model = make().eval()
        points = torch.rand(7, 3)
        field = model.infer(self.seen(balls(1)), steps=0)[0].field
        assert torch.allclose(value_at(field, points), model.network(points[None])[0, :, 0])

    def test_observations_of_different_lengths_and_kinds(self):
        model = make(inner_lr=1e-3).eval()
        batch = balls(3, 60)
        signed = self.seen(batch)
        short = signed[1].part(slice(10, 50))
        scan = Scan(sure(batch.surface)[2].numpy(), sure(batch.normals)[2].numpy())
        assert len(model.infer([signed[0], short, scan])) == 3

    def test_two_heads_are_one_field(self):
        model = make(objective="two_headed").eval()
        made = model.infer(self.seen(balls(1)))[0]
        points = torch.rand(50, 3)
        out = torch.func.functional_call(model.network, made.state, (points[None], None))[0]
        assert torch.allclose(value_at(made.field, points), out[:, 0].sign() * out[:, 1].abs())

    def test_what_cannot_be_adapted_to_is_told(self):
        model = make().eval()
        seen = self.seen(balls(1))[0]
        with pytest.raises(NifError, match="nothing is seen"):
            model.infer([seen, Scan(np.zeros((0, 3), np.float32))])
        with pytest.raises(NifError, match="are outside"):
            model.infer([PointSamples(points=seen.points, distance=-np.abs(sure(seen.distance)))])
        with pytest.raises(NifError, match="steps=-1"):
            model.infer([seen], steps=-1)
        with pytest.raises(NifError, match="no option 'restarts'"):
            model.infer([seen], restarts=3)
        wild = make("maml", inner_lr=300.0).eval()
        with pytest.raises(NifError, match="diverges"):
            wild.infer([seen], steps=20)


class TestLimits:
    def test_what_a_graph_takes_is_known_before(self):
        """The estimate from small graphs is that of a large one (and half as much again for what backward
        makes)."""
        model = make(field=partial(Siren, width=32, layers=3), steps=4)
        from nif_cli.models.inner_memory import graph_bytes

        context, query = (Task(torch.rand(1, n, 3), torch.rand(1, n)) for n in (500, 1000))
        true = graph_bytes(lambda: model.errors(model.adapt(context, graph=True)[0], query))
        assert model.bytes_of_a_shape(500, 1000) / 1.5 == pytest.approx(true, rel=0.05)

    def test_more_steps_than_memory_allows_are_refused_before(self):
        with pytest.raises(NifError, match=r"model\.steps=40.*1,000 context points.*checkpoint=true"):
            make(steps=40, memory="4MiB", field=partial(Siren, width=32, layers=3)).loss(balls(2, 2000))
        make(steps=40, memory="4MiB", checkpoint=True, field=partial(Siren, width=32, layers=3)).loss(
            balls(2, 2000)
        )

    def test_as_many_shapes_at_a_time_as_fit(self):
        model = make(memory="2MiB")
        context, query = model.tasks(balls(8, 200))
        one = model.bytes_of_a_shape(100, 200)
        assert model.at_once(context, query) == min(8, 2**21 // one)

    def test_a_rate_that_diverges_is_named(self):
        with pytest.raises(NifError, match=r"inner steps is not finite.*model\.inner_lr \(it is 1e\+30\)"):
            make("maml", inner_lr=1e30, field=partial(MLP, width=16, layers=3), objective="l1").loss(balls())

    @pytest.mark.parametrize(
        "options", [{"steps": 0}, {"inner_lr": 0.0}, {"clamp": -1.0}, {"micro_batch": 0}, {"memory": "much"}]
    )
    def test_impossible_settings_are_refused(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(**options)


def test_it_keeps_observations_of_held_out_shapes():
    data = ToyShapes(count=3, test=2, samples=400, surface_samples=100, batch_points=64)
    model = make()
    model.attach_data(data)
    assert list(model.instances) == ["chair/test_0000", "table/test_0000"]
    kept = [i.observation for i in model.instances.values()]
    assert all(isinstance(seen, PointSamples) and seen.points.shape == (400, 3) for seen in kept)
    field = model.field("chair/test_0000")
    assert torch.isfinite(value_at(field, torch.rand(5, 3))).all()
    with pytest.raises(NifError, match="no instance 'nobody'"):
        model.field("nobody")
    model.attach_data(ToyShapes(count=3, test=0, samples=400, surface_samples=100))
    assert len(model.instances) == 3  # nothing is held out: those it trains on
    scans = make(context="surface")
    scans.attach_data(data)
    assert isinstance(scans.instances["chair/test_0000"].observation, Scan)
    assert data.needs.surface_share == 0.5


@pytest.fixture(scope="module")
def overrides() -> list[str]:
    """A network that is a ball before it has learned anything."""
    field = ["field=igr", "field.width=16", "field.layers=2", "field.skips=[]"]
    return ["model=metasdf", *field, "model.steps=2", "data.count=4", "data.test=2"]


def test_the_commands_work_on_it(nif, tiny, overrides, tmp_path):
    """Train, resume, extract, reconstruct and evaluate from the shell, without the data after training."""
    own = [o for o in tiny if not o.startswith("field")]
    assert nif("train", *own, *overrides, "output_dir=run").code == 0
    model = runs.load_model(tmp_path / "run")
    assert list(model.instances) == ["chair/test_0000", "table/test_0000"]
    assert nif("train", *[f"resume={tmp_path / 'run'}", "trainer.max_steps=20"]).code == 0
    assert nif("extract", "run=run", "resolution=16").code == 0
    assert (tmp_path / "run/meshes/chair/test_0000.ply").is_file()
    result = nif("reconstruct", "run=run", "input=run/meshes/chair/test_0000.ply", "steps=3", "resolution=16")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "run/reconstructions/test_0000.json").read_text())
    assert len(report["losses"]) == 4
    assert nif("evaluate", "run=run", "split=test", "resolution=16", "protocol=[deepsdf]").code == 0
    result = nif("evaluate", "run=run", "split=test", "curve=[0,1,3]", "points=100")
    assert result.code == 0, result.err
    curves = json.loads((tmp_path / "run/adaptation.json").read_text())["curves"]
    assert all(list(c) == ["0", "1", "3"] for c in curves.values())
    assert set(curves) == {"learned", "random, Adam", "one shape, Adam"}
    assert (tmp_path / "run/adaptation.png").is_file()
    assert "curve=[-1]" in nif("evaluate", "run=run", "split=test", "curve=[-1]").error
    (tmp_path / "folder").mkdir()
    for name in ("a", "c"):
        trimesh.creation.box([1, 2, 3]).export(tmp_path / f"folder/{name}.ply")
    (tmp_path / "folder/b.ply").write_text("nothing")
    result = nif("evaluate", "run=run", "data=meshes", "data.path=folder", "curve=[0,1]", "points=100")
    assert result.code == 1
    assert "b: left out: " in result.out
    assert "1 of 3 shapes were left out" in result.error
    assert json.loads((tmp_path / "run/adaptation.json").read_text())["instances"] == ["a", "c"]
    result = nif(
        "reconstruct",
        "run=run",
        "input=run/meshes/chair/test_0000.ply",
        "save=run",
        "resolution=16",
        "output=saved",
    )
    assert result.code == 0, result.err
    adapted = np.load("saved/test_0000.npz")
    plain = runs.load_model(tmp_path / "saved/test_0000")
    weights = plain.get_submodule("network").named_parameters()
    assert all(np.array_equal(p.detach().numpy(), adapted[n]) for n, p in weights)
    result = nif(
        "train",
        "resume=saved/test_0000",
        "trainer.max_steps=5",
        "data.samples=500",
        "data.surface_samples=50",
    )
    assert result.code == 0, result.err
    assert "5 steps" in result.out
    assert nif("extract", "run=saved/test_0000", "resolution=16").code == 0


@pytest.mark.parametrize(
    "option", ["model.context=surface", "model.context=partial", "model.objective=two_headed"]
)
def test_other_contexts_and_objectives_train_and_infer(nif, tiny, overrides, option, tmp_path):
    own = [o for o in tiny if not o.startswith("field")]
    field = "field=relu" if "two" in option else "field=siren_small"
    assert (
        nif(
            "train", *own, *overrides[:1], field, "data.count=4", "data.test=1", option, "output_dir=run"
        ).code
        == 0
    )
    model = runs.load_model(tmp_path / "run")
    inferred = model.infer([sure(i.observation) for i in model.instances.values()], steps=1)
    assert torch.isfinite(value_at(inferred[0].field, torch.rand(9, 3))).all()
    assert np.isfinite(inferred[0].report["loss"])


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["model.algorithm=mamml"], ["model.algorithm='mamml'", "maml"]),
        (["model.context=half"], ["model.context='half'", "partial"]),
        (["model.steps=0"], ["steps=0", "positive"]),
        (["model.micro_batch=0"], ["micro_batch=0"]),
        (
            ["model.inner_lr=1e30", "model.algorithm=maml", "model.objective=l1"],
            ["diverges", "model.inner_lr"],
        ),
        (["model.steps=300", "model.memory=1MiB"], ["model.steps=300", "model.checkpoint=true"]),
    ],
)
def test_mistakes_are_one_line(nif, tiny, overrides, typed, words):
    own = [o for o in tiny if not o.startswith("field")]
    message = nif("train", *own, *overrides, *typed).error
    for word in words:
        assert word in message
