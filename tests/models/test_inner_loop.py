"""Gradient descent for many shapes at once: the same as shape by shape, and its derivatives are those of
finite differences."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from nif_cli import NifError
from nif_cli.data.shapes.observations import show
from nif_cli.data.shapes.samples import Images, Known, PointSamples, Scan
from nif_cli.fields.encodings import Fourier, Positional
from nif_cli.fields.mlp import MLP
from nif_cli.fields.network import Network
from nif_cli.fields.siren import Siren
from nif_cli.models.inner_loop import (
    adam,
    call_each,
    context_of,
    descend,
    half_space,
    points_off_surface,
    spread,
)
from nif_cli.models.inner_memory import graph_bytes

NETWORKS = {
    "relu": partial(MLP, width=12, layers=2),
    "skip and weight norm": partial(
        MLP, width=12, layers=3, skips=[2], weight_norm=True, activation="softplus", output="tanh"
    ),
    "positional": partial(MLP, width=12, layers=2, encoding=partial(Positional, frequencies=2)),
    "fourier": partial(MLP, width=12, layers=2, encoding=partial(Fourier, features=6)),
    "siren": partial(Siren, width=12, layers=2, omega=5, first_omega=5),
}


class Plain(Network):
    """A network that knows nothing of stacked weights."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, points, code=None):
        return self.b(torch.tanh(self.a(points)))


def network(name: str) -> Network:
    return (Plain() if name == "plain" else NETWORKS[name]()).double().eval()


def tasks(shapes: int = 3, points: int = 20):
    x = torch.rand(shapes, points, 3, dtype=torch.float64) * 2 - 1
    return x, 0.1 * torch.randn(shapes, points, dtype=torch.float64)


@pytest.mark.parametrize("name", [*NETWORKS, "plain"])
def test_each_shape_goes_through_its_own_weights(name):
    net = network(name)
    x, _ = tasks()
    weights = {n: p + 0.1 * torch.randn(3, *p.shape, dtype=p.dtype) for n, p in net.named_parameters()}
    together = call_each(net, weights, x)
    for k in range(3):
        alone = functional_call(net, {n: w[k] for n, w in weights.items()}, (x[k : k + 1], None))[0]
        assert torch.allclose(together[k], alone, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_points_are_no_values(name):
    net = network(name)
    assert net(torch.zeros(2, 0, 3, dtype=torch.float64)).shape == (2, 0, 1)
    assert call_each(net, spread(net, 2), torch.zeros(2, 0, 3, dtype=torch.float64)).shape == (2, 0, 1)


@pytest.mark.parametrize("name", [*NETWORKS, "plain"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_steps_and_their_second_order_gradient_are_those_of_the_plain_loop(name, checkpointed, monkeypatch):
    """The reference: one shape after the other, torch.autograd.grad(create_graph=True)."""
    # torch 2.13's own fails gradgradcheck on the CPU; stacked weights do not use it
    monkeypatch.setattr(torch, "_weight_norm", lambda v, g, _: g * v / v.norm(dim=1, keepdim=True))
    net = network(name)
    x, d = tasks()
    size = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    outer = [*net.parameters(), size]
    expected, value = [torch.zeros_like(p) for p in outer], 0.0
    for k in range(3):
        w: dict[str, torch.Tensor] = dict(net.named_parameters())
        for _ in range(3):
            inner = (
                (functional_call(net, w, (x[k : k + 1, ::2], None))[..., 0] - d[k : k + 1, ::2]).abs().mean()
            )
            found = torch.autograd.grad(inner, list(w.values()), create_graph=True)
            w = {n: v - size * g for (n, v), g in zip(w.items(), found, strict=True)}
        last = (functional_call(net, w, (x[k : k + 1], None))[..., 0] - d[k : k + 1]).abs().mean()
        value += last.item()
        expected = [a + b for a, b in zip(expected, torch.autograd.grad(last, outer), strict=True)]

    def loss(w):
        return (call_each(net, w, x[:, ::2])[..., 0] - d[:, ::2]).abs().mean(1)

    sizes = [[size] * len(outer[:-1])] * 3
    adapted, losses = descend(loss, spread(net, 3), sizes, graph=True, checkpointed=checkpointed)
    together = (call_each(net, adapted, x)[..., 0] - d).abs().mean(1).sum()
    assert together.item() == pytest.approx(value, rel=1e-12)
    assert losses.shape == (3, 3)
    for a, b in zip(torch.autograd.grad(together, outer), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_without_a_graph_nothing_is_kept_and_the_steps_are_the_same():
    net = network("siren")
    x, d = tasks()

    def loss(w):
        return (call_each(net, w, x)[..., 0] - d).square().mean(1)

    sizes = [[0.1] * len(list(net.parameters()))] * 4
    plain, _ = descend(loss, spread(net, 3), sizes)
    graph, losses = descend(loss, spread(net, 3), sizes, graph=True)
    assert all(torch.allclose(plain[n], graph[n], atol=1e-12) for n in plain)
    assert not any(w.requires_grad for w in plain.values())
    assert (losses.diff(dim=0) < 0).all()
    with torch.no_grad():  # also where Lightning validates
        again, _ = descend(loss, spread(net, 3), sizes)
    assert all(torch.equal(plain[n], again[n]) for n in plain)
    same, none = descend(loss, spread(net, 3), [])
    assert none.shape == (0, 3)
    assert all(torch.equal(same[n][1], p) for n, p in net.named_parameters())


def test_adam_for_all_is_adam_for_each():
    net = network("relu")
    x, d = tasks()
    together = adam(
        lambda w: (call_each(net, w, x)[..., 0] - d).abs().mean(1), spread(net, 3), 1e-2, 5, lambda k, w: None
    )
    for k in range(3):
        alone = network("relu")
        alone.load_state_dict(net.state_dict())
        optimizer = torch.optim.Adam(alone.parameters(), 1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            (alone(x[k : k + 1])[..., 0] - d[k : k + 1]).abs().mean().backward()
            optimizer.step()
        assert all(torch.allclose(together[n][k], p, atol=1e-9) for n, p in alone.named_parameters())


def test_graph_bytes_counts_what_backward_needs():
    a = torch.randn(1000, requires_grad=True)
    assert graph_bytes(lambda: a.exp()) == 4000  # its result
    assert graph_bytes(lambda: a.exp().sin()) == 4000  # exp's result is sin's input
    assert graph_bytes(lambda: a.exp().sin().exp()) == 8000


def test_a_half_space_is_one():
    points = torch.randn(4, 200, 3)
    chosen = half_space(points, 100)
    for k in range(4):
        here = points[k, chosen[k]]
        rest = points[k, [i for i in range(200) if i not in set(chosen[k].tolist())]]
        # some direction separates the two: that between their means does, up to the sampling
        apart = (here.mean(0) - rest.mean(0)) / (here.mean(0) - rest.mean(0)).norm()
        assert ((here @ apart) > (rest @ apart).median()).float().mean() > 0.9


def test_a_level_set_has_known_distances():
    """Of a ball: |x| = r, normals outwards, distances positive inside."""
    normals = nn.functional.normalize(torch.randn(2, 30, 3, dtype=torch.float64), dim=-1)
    points, distance = points_off_surface(0.6 * normals, normals, 0.05)
    assert torch.allclose(distance, 0.6 - points.norm(dim=-1))
    assert set(distance[0].mul(100).round().int().tolist()) == {-5, 0, 5}


class TestContexts:
    samples = np.random.default_rng(0).uniform(-1, 1, (300, 3)).astype(np.float32)
    distance = (0.4 - np.linalg.norm(samples, axis=1)).astype(np.float32)

    def test_half_of_the_samples_are_inside(self):
        points, distance = context_of(PointSamples(self.samples, self.distance), 0.01, 200)
        assert len(points) == len(distance) == 200
        assert (distance > 0).sum() == 100
        assert np.allclose(distance, 0.4 - np.linalg.norm(points, axis=1), atol=1e-6)

    def test_the_kind_that_is_shown(self):
        scan = Scan(self.samples[:50], self.samples[:50])
        both = Known(PointSamples(self.samples, self.distance), scan)
        assert len(context_of(show(both, "oriented"), 0.01, 400)[0]) == 50
        assert len(context_of(show(both, "samples"), 0.01, 400)[0]) == 300
        points, distance = context_of(Scan(self.samples[:50]), 0.01, 400)
        assert len(points) == 50
        assert not distance.any()

    @pytest.mark.parametrize(
        ("seen", "words"),
        [
            (Images(np.zeros((1, 16, 16, 3), np.uint8)), "nothing is seen"),
            (Scan(points=np.zeros((0, 3), np.float32)), "nothing is seen"),
            (PointSamples(points=samples[:0], distance=distance[:0]), "nothing is seen"),
            (PointSamples(points=samples, distance=-np.abs(distance)), "all 300 samples are outside"),
            (PointSamples(points=samples, distance=np.abs(distance) + 1), "all 300 samples are inside"),
            (PointSamples(points=samples, inside=distance > 0), "distances"),
        ],
    )
    def test_what_says_nothing_is_refused(self, seen, words):
        with pytest.raises(NifError, match=words):
            context_of(seen, 0.01, 100)
