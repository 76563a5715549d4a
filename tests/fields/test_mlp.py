"""The multilayer perceptron: its layers, its dropout, its beginnings."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from narrowing import sure

from nif_cli.fields.encodings import Positional
from nif_cli.fields.mlp import MLP, Linear

PAPER: dict[str, Any] = dict(width=512, layers=8, skips=(4,), weight_norm=True, dropout=0.2, output="tanh")


def test_the_papers_decoder_has_its_parameters():
    """DeepSDF's decoder with a code of 256."""
    assert sum(p.numel() for p in MLP(code_size=256, **PAPER).parameters()) == 1_843_195


@pytest.mark.parametrize("weight_norm", [False, True])
def test_a_code_is_concatenation(weight_norm):
    layer = Linear(5, 7, code_size=3, weight_norm=weight_norm).double()
    h, code = torch.randn(2, 11, 5).double(), torch.randn(2, 3).double()
    joined = torch.cat((h, code[:, None].expand(2, 11, 3)), -1)
    assert torch.allclose(layer(h, code), F.linear(joined, layer.effective_weight(), layer.bias))
    plain = Linear(5, 7, weight_norm=weight_norm).double()
    assert torch.allclose(plain(h).reshape(2, 11, 7), F.linear(h, plain.effective_weight(), plain.bias))


def test_weight_norm_separates_length_from_direction():
    """At the start W = v; rows of W have length g; scaling v changes nothing."""
    layer = Linear(5, 7, weight_norm=True)
    assert torch.allclose(layer.effective_weight(), layer.weight, atol=1e-6)
    with torch.no_grad():
        sure(layer.gain).fill_(2.0)
        assert torch.allclose(layer.effective_weight().norm(dim=1), torch.full((7,), 2.0))
        before = layer.effective_weight().clone()
        layer.weight.mul_(10)
    assert torch.allclose(layer.effective_weight(), before, atol=1e-6)


def reference(network: MLP, points: torch.Tensor, code: torch.Tensor | None) -> torch.Tensor:
    """The network as one would write it, with concatenations: the input and the code enter at 0 and at the
    skips."""
    x = points if network.encoding is None else network.encoding(points)
    if code is not None:
        x = torch.cat((x, code[:, None].expand(*points.shape[:2], -1)), -1)
    h = x
    for i, layer in enumerate(network.hidden):
        assert isinstance(layer, Linear)
        h = torch.cat((h, x), -1) if i in network.skips else h
        h = F.linear(h, layer.effective_weight(), layer.bias)
        h = F.softplus(h, network.beta) if network.activation == "softplus" else F.relu(h)
    h = F.linear(h, network.last.weight, network.last.bias)
    return h.tanh() if network.output == "tanh" else h


@pytest.mark.parametrize("code_size", [0, 4])
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("options", [{}, {"weight_norm": True, "output": "tanh"}, {"activation": "softplus"}])
def test_the_network_is_what_its_description_says(code_size, encoded, options):
    encoding = partial(Positional, frequencies=2) if encoded else None
    network = MLP(3, 2, code_size, encoding=encoding, width=32, layers=4, skips=(1, 3), **options).double()
    points = torch.randn(2, 9, 3).double()
    code = torch.randn(2, code_size).double() if code_size else None
    out = network(points, code)
    assert out.shape == (2, 9, 2)
    assert torch.allclose(out, reference(network, points, code))
    widths = {layer.get_parameter("weight").shape[0] for layer in network.hidden[1:]}
    assert max(widths) == 32


def test_points_of_a_shape_do_not_see_each_other():
    network = MLP(code_size=4, width=16, layers=2)
    points, code = torch.randn(2, 9, 3), torch.randn(2, 4)
    assert torch.allclose(network(points, code)[:, 3:5], network(points[:, 3:5], code), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"activation": "softplus", "beta": 3.0}, {"weight_norm": True, "output": "tanh"}]
)
def test_gradients_are_those_of_finite_differences(options):
    network = MLP(code_size=2, width=8, layers=3, **options).double()
    points = torch.randn(2, 3, 3).double().requires_grad_(True)
    code = torch.randn(2, 2).double().requires_grad_(True)
    assert torch.autograd.gradcheck(network, (points, code))


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_dropout_keeps_the_expectation(p):
    """The mean of the trained network over its masks is the network in evaluation: exact where one layer
    drops."""
    network = MLP(width=64, layers=1, dropout=p)
    point = torch.randn(1, 1, 3).expand(1, 20_000, 3).contiguous()
    with torch.no_grad():
        drawn, settled = network(point)[0, :, 0], network.eval()(point[:, :1])[0, 0, 0]
    assert drawn.unique().numel() > 100
    assert abs(drawn.mean() - settled) < 5 * drawn.std() / 20_000**0.5 + 1e-3 * settled.abs()


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_dropout_drops_its_share(p):
    network = MLP(width=512, layers=1, dropout=p)
    with torch.no_grad():
        network.get_parameter("hidden.0.weight").zero_()
        network.get_parameter("hidden.0.bias").fill_(1.0)  # every hidden value is 1 before the dropout
        network.last.weight.fill_(1.0)
        network.last.bias.zero_()
        kept = network(torch.zeros(1, 200, 3)) / network.eval()(torch.zeros(1, 1, 3))
    assert (kept.mean() * (1 - p)).item() == pytest.approx(1 - p, abs=0.01)
    # a share q of 512 kept, each scaled by 1/q: variance (1 - q) / (512 q)
    assert kept.var().item() == pytest.approx(p / (1 - p) / 512, rel=0.35)


@pytest.mark.parametrize(
    "options", [{}, {"skips": (2,)}, {"weight_norm": True}, {"code_size": 2, "skips": (1,)}]
)
def test_the_gradient_of_dropout_is_that_of_its_masks(options):
    """With the masks held by the seed, training is piecewise linear and its gradient is that of finite
    differences: for the points, the code and every weight."""
    network = MLP(width=13, layers=3, dropout=0.3, **options).double()
    names = [n for n, _ in network.named_parameters()]

    def drawn(points, code, *values):
        torch.manual_seed(5)
        args = (points, code if "code_size" in options else None)
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), args)

    points = torch.randn(2, 5, 3).double().requires_grad_(True)
    code = torch.randn(2, 2).double().requires_grad_("code_size" in options)
    assert torch.autograd.gradcheck(drawn, (points, code, *network.parameters()))


def test_dropout_follows_the_seed_and_is_off_in_evaluation():
    network = MLP(width=32, layers=2, dropout=0.5)
    points = torch.randn(1, 50, 3)
    torch.manual_seed(3)
    a = network(points)
    torch.manual_seed(3)
    assert torch.equal(a, network(points))
    assert not torch.equal(a, network(points))
    network.eval()
    assert torch.equal(network(points), network(points))
    assert torch.allclose(network(points), reference(network, points, None), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"skips": (2,)}, {"weight_norm": True}])
@pytest.mark.parametrize("radius", [0.5, 0.8])
def test_geometric_init_is_a_ball(radius, options):
    """Inside positive: the zero set starts about the sphere of `radius`, and values fall along every ray."""
    torch.manual_seed(0)
    network = MLP(width=512, layers=4, activation="softplus", init="geometric", radius=radius, **options)
    rays = F.normalize(torch.randn(1, 200, 3), dim=-1)
    with torch.no_grad():
        values = torch.cat([network(rays * r) for r in (0.02, radius - 0.25, radius + 0.25, 2 * radius)])[
            ..., 0
        ]
    assert values[1].mean() > 0 > values[2].mean()
    assert (values[0] > 0).all()
    assert (values[3] < 0).all()
    assert (values.diff(dim=0) < 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"layers": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"skips": (0,)},
        {"skips": (2,), "layers": 2},
        {"skips": (1,), "width": 3},
        {"init": "geometric", "code_size": 2},
    ],
)
def test_impossible_networks_are_refused(options):
    with pytest.raises(ValueError, match=r"width|dropout|skips|geometric"):
        MLP(**{"width": 16, "layers": 2, **options})
