"""Codes of new shapes: recovered from each kind of observation, where the right answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from narrowing import sure
from torch import nn

from nif_cli.fields.network import Network


class Spheres(Network):
    """A decoder whose every code is a ball: radius 0.5 + 0.1 z0, centre 0.1 (z1, z2, z3)."""

    def __init__(self, dim: int = 3, out: int = 1, code_size: int = 4):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, points, code=None):
        code = sure(code)
        centre = 0.1 * code[:, None, 1:4]
        return (0.5 + 0.1 * code[:, :1] + self.zero - (points - centre).norm(dim=-1))[..., None]


class Waves(Spheres):
    """Balls again, but the radius goes up and down with the code: fitting from 0 ends in the wrong valley."""

    def forward(self, points, code=None):
        code = sure(code)
        radius = 0.45 + 0.05 * code[:, :1] + 0.1 * torch.sin(8 * code[:, :1])
        return (radius + self.zero - points.norm(dim=-1))[..., None]


def model(network=Spheres, codes: torch.Tensor | None = None):
    from nif_cli.geometry.transform import Transform
    from nif_cli.models.deepsdf import DeepSdf
    from nif_cli.models.model import Instance

    made = DeepSdf(network, torch.optim.Adam, code_size=4, code_norm=10.0)
    codes = torch.randn(20, 4) if codes is None else codes
    made.allocate([f"s{k}" for k in range(len(codes))])
    assert made.codes is not None
    made.codes.weight.data.copy_(codes)
    made.instances = {f"s{k}": Instance(f"s{k}", Transform()) for k in range(len(codes))}
    return made.eval()


def ball(z: list[float]) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(4, 0.5 + 0.1 * z[0])
    mesh.apply_translation(0.1 * np.array(z[1:]))
    return mesh


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("samples", 0.05), ("oriented", 0.05), ("points", 0.05), ("depth", 0.08)]
)
def test_a_code_is_recovered_from_each_kind_of_observation(kind, tolerance, rng):
    from nif_cli.data.shapes.observations import observe_mesh
    from nif_cli.field import Field

    z = [0.8, -0.5, 0.3, 0.6]
    seen = observe_mesh(ball(z), kind, 2000, rng)
    (made,) = model().infer([seen], steps=300, restarts=2, points=512, code_lr=2e-2, prior=0.0)
    assert torch.allclose(made.state["code"], torch.tensor(z), atol=tolerance)
    assert made.report["loss"] < 0.005
    assert made.report["steps"] == 300
    assert made.report["seconds"] > 0
    surface = torch.from_numpy(np.asarray(ball(z).vertices, np.float32))
    assert isinstance(made.field, Field)
    assert made.field.value(surface).abs().max() < 0.01


def test_half_a_shape_is_enough_where_the_codes_know_the_rest(rng):
    from nif_cli.data.shapes.observations import keep_half, observe_mesh
    from nif_cli.data.shapes.samples import Scan

    z = [0.5, 0.4, -0.2, 0.0]
    seen = keep_half(observe_mesh(ball(z), "oriented", 4000, rng), "x+")
    assert isinstance(seen, Scan)
    assert (seen.points[:, 0] >= 0).all()
    (made,) = model().infer([seen], steps=300, points=512, code_lr=2e-2, prior=0.0)
    assert torch.allclose(made.state["code"], torch.tensor(z), atol=0.05)


def test_shapes_fitted_together_are_those_fitted_alone(rng):
    """Nothing leaks from one shape to another: each answer is what its own observation says."""
    from nif_cli.data.shapes.observations import observe_mesh

    truth = [[0.8, 0, 0, 0], [-0.8, 0.5, 0, 0], [0.0, 0, -0.7, 0.2]]
    seen = [observe_mesh(ball(z), "samples", 2000, rng) for z in truth]
    together = model().infer(seen, steps=300, restarts=1, points=512, code_lr=2e-2, prior=0.0)
    for z, made in zip(truth, together, strict=True):
        assert torch.allclose(made.state["code"], torch.tensor(z), atol=0.03)
        assert made.report["together"] == 3


def test_the_best_of_several_starts_is_kept(rng):
    from nif_cli.data.shapes.observations import observe_mesh

    seen = observe_mesh(trimesh.creation.icosphere(4, 0.62), "samples", 2000, rng)
    codes = torch.zeros(40, 4)
    codes[:, 0] = torch.linspace(-2.5, 2.5, 40)
    one, many = (
        model(Waves, codes).infer([seen], steps=200, restarts=r, points=256, code_lr=1e-2, prior=0.0)[0]
        for r in (1, 8)
    )
    assert many.report["loss"] == pytest.approx(min(many.report["losses"]), rel=1e-3)
    assert len(many.report["losses"]) == 8
    assert many.report["loss"] < 0.3 * one.report["loss"]


def test_the_nearest_known_shapes_are_named(rng):
    from nif_cli.data.shapes.observations import observe_mesh

    codes = torch.randn(20, 4)
    known = model(codes=codes)
    seen = observe_mesh(ball(codes[7].tolist()), "samples", 2000, rng)
    (made,) = known.infer([seen], steps=300, points=512, code_lr=2e-2, prior=0.0)
    assert made.report["nearest"][0]["id"] == "s7"
    assert made.report["nearest"][0]["distance"] < 0.1


def test_codes_drawn_at_random_have_the_mean_and_covariance_of_the_learned_ones():
    codes = torch.randn(500, 4) @ torch.diag(torch.tensor([1.0, 0.5, 0.2, 0.0])) + torch.tensor(
        [0.3, 0, 0, 1.0]
    )
    drawn = model(codes=codes).sample_codes(20_000, seed=1)
    assert torch.allclose(drawn.mean(0), codes.mean(0), atol=0.03)
    assert torch.allclose(drawn.T.cov(), codes.T.cov(), atol=0.05)
    assert torch.equal(drawn[:5], model(codes=codes).sample_codes(20_000, seed=1)[:5])


def test_between_two_shapes():
    codes = torch.tensor([[0.0, 0, 0, 0], [2.0, 0, 0, 0]])
    known = model(codes=codes)
    x = torch.tensor([[0.0, 0.0, 0.0]])
    values = [known.between("s0", "s1", t).value(x).item() for t in (0.0, 0.5, 1.0)]
    assert values == pytest.approx([0.5, 0.6, 0.7])


def test_bounds_say_what_is_known_and_no_more(rng):
    from nif_cli.data.shapes.samples import PointSamples
    from nif_cli.models.latent_fitting import bounds_of, violation

    points = np.zeros((4, 3), np.float32)
    b = bounds_of(
        PointSamples(points=points, distance=np.array([0.5, 0.05, -0.05, -0.5], np.float32)), 0.1, rng
    )
    assert b.low.tolist() == pytest.approx([0.1, 0.05, -0.05, -math.inf])
    assert b.high.tolist() == pytest.approx([math.inf, 0.05, -0.05, -0.1])
    value = torch.tensor([[0.7, 0.1, 0.0, -0.05]])  # beyond the clamp is right, the others are off by 0.05
    assert violation(value, torch.stack((b.low, b.high), -1)[None])[0] == pytest.approx(0.15 / 4)
    b = bounds_of(PointSamples(points=points[:2], inside=np.array([True, False])), 0.1, rng)
    assert b.low.tolist() == [0, -math.inf]
    assert b.high.tolist() == [math.inf, 0]


def test_violation_is_the_clamped_l1_loss(rng):
    from nif_cli.data.shapes.samples import PointSamples
    from nif_cli.losses import clamped_l1
    from nif_cli.models.latent_fitting import bounds_of, violation

    distance = rng.uniform(-0.3, 0.3, 1000).astype(np.float32)
    b = bounds_of(PointSamples(points=rng.random((1000, 3)).astype(np.float32), distance=distance), 0.1, rng)
    value = torch.randn(1000) * 0.2
    ours = violation(value[None], torch.stack((b.low, b.high), -1)[None])[0]
    assert ours == pytest.approx(float(clamped_l1(value, torch.from_numpy(distance), 0.1)), rel=1e-5)


def test_nothing_seen_and_numbers_that_are_none(rng):
    from nif_cli import NifError
    from nif_cli.data.shapes.samples import PointSamples
    from nif_cli.models.latent_fitting import bounds_of

    with pytest.raises(NifError, match="nothing is seen"):
        bounds_of(PointSamples(np.zeros((0, 3), np.float32)), 0.1, rng)
    with pytest.raises(NifError, match="NaN"):
        bounds_of(
            PointSamples(points=np.full((4, 3), np.nan, np.float32), distance=np.zeros(4, np.float32)),
            0.1,
            rng,
        )


def test_folded_weight_norm_is_the_same_function():
    from nif_cli.fields.mlp import MLP

    net = (
        MLP(3, 1, 8, width=64, layers=4, skips=[2], weight_norm=True, dropout=0.2, output="tanh")
        .double()
        .eval()
    )
    for name, parameter in net.named_parameters():
        if name.endswith(".gain"):
            parameter.data.mul_(1.7)
    folded = net.fold(None)[0]
    points, code = torch.randn(2, 50, 3, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    assert torch.allclose(net(points, code), folded(points, code), atol=1e-12)
    assert not any(p.requires_grad for p in folded.parameters())
    assert net.hidden[0].gain is not None  # the original is as it was
