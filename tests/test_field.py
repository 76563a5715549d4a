"""Fields: binding, evaluating in chunks, gradients."""

import pytest
import torch
from torch import nn

from nif_cli.field import bind, evaluate, gradient


class Affine(nn.Module):
    """x . w + code . 1: a network small enough to check by hand."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, points, code=None):
        out = (points @ self.w)[..., None]
        return out if code is None else out + code.sum(-1)[:, None, None]


def test_bind_keeps_the_shape_of_points():
    field = bind(Affine())
    assert field.value(torch.ones(2, 5, 3)).shape == (2, 5)
    assert torch.equal(field.value(torch.tensor([1.0, 1.0, 1.0])), torch.tensor(6.0))
    assert torch.equal(field.bounds, torch.tensor([[-1.0] * 3, [1.0] * 3]))


def test_a_code_conditions_and_params_replace_weights():
    network = Affine()
    points = torch.rand(4, 3)
    assert torch.allclose(
        bind(network, torch.tensor([1.0, 4.0])).value(points), bind(network).value(points) + 5
    )
    adapted = bind(network, params={"w": torch.zeros(3)})
    assert not adapted.value(points).any()
    assert torch.equal(network.w.detach(), torch.tensor([1.0, 2.0, 3.0]))  # the network itself stays


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_chunked_equals_unchunked(ball, chunk):
    points = torch.rand(100, 3)
    assert torch.equal(evaluate(ball(), points, chunk), ball().value(points))
    assert torch.allclose(gradient(ball(), points, chunk), gradient(ball(), points))


def test_no_points_are_fine(ball):
    assert evaluate(ball(), torch.empty(0, 3)).shape == (0,)
    assert gradient(ball(), torch.empty(0, 3)).shape == (0, 3)


def test_evaluation_keeps_no_graph():
    assert not evaluate(bind(Affine()), torch.rand(3, 3)).requires_grad


def test_gradients_point_inwards_and_work_without_grad_mode(ball):
    points = torch.randn(50, 3)
    with torch.no_grad():
        found = gradient(ball(), points)
    assert torch.allclose(found, -torch.nn.functional.normalize(points, dim=-1), atol=1e-5)
