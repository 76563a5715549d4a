"""One shape in one network: both objectives are least where the network is the signed distance."""

from functools import partial

import pytest
import torch
from torch import nn

from nif_cli import NifError
from nif_cli.data.meshes import ToyShapes
from nif_cli.data.pool import ShapeBatch
from nif_cli.fields.mlp import MLP
from nif_cli.models.optimizers import Adam
from nif_cli.models.sdf import Sdf


class Exact(nn.Module):
    """The signed distance of a ball of radius `radius`, times `scale`."""

    def __init__(self, dim: int, out: int, code_size: int, radius: float = 0.5, scale: float = 1.0):
        super().__init__()
        self.radius, self.scale = nn.Parameter(torch.tensor(radius)), scale

    def forward(self, points, code=None):
        return self.scale * (self.radius - points.norm(dim=-1, keepdim=True))


def on_a_ball(count: int = 400) -> ShapeBatch:
    normals = nn.functional.normalize(torch.randn(1, count, 3), dim=-1)
    points = torch.rand(1, count, 3) * 2 - 1
    return ShapeBatch(torch.tensor([0]), points, 0.5 - points.norm(dim=-1), 0.5 * normals, normals)


def loss(objective: str, **field: float) -> dict[str, float]:
    model = Sdf(partial(Exact, **field), Adam, objective=objective)
    return {k: v.item() for k, v in model.loss(on_a_ball()).items()}


def test_regression_is_zero_at_the_distance():
    assert loss("regression")["l1"] == pytest.approx(0, abs=1e-6)
    assert loss("regression", radius=0.45)["l1"] > 1e-3


def test_eikonal_terms_are_zero_at_the_distance():
    """And each notices what it is there for: another radius, a steeper field, one that is turned inside out."""
    exact = loss("eikonal")
    assert exact["surface"] == pytest.approx(0, abs=1e-2)
    assert exact["normal"] == pytest.approx(0, abs=1e-3)
    assert exact["eikonal"] == pytest.approx(0, abs=1e-3)
    assert loss("eikonal", radius=0.4)["surface"] == pytest.approx(3e3 * 0.1, rel=1e-3)
    assert loss("eikonal", scale=2.0)["eikonal"] == pytest.approx(50, rel=1e-3)
    assert loss("eikonal", scale=-1.0)["normal"] == pytest.approx(200, rel=1e-3)


def test_the_eikonal_loss_can_be_minimised():
    """Its gradient goes through the gradient of the network, to every weight."""
    model = Sdf(partial(MLP, width=16, layers=2, activation="softplus"), Adam, objective="eikonal")
    sum(model.loss(on_a_ball(50)).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.network.parameters())


def test_distances_are_trusted_up_to_the_clamp_or_everywhere():
    assert Sdf(Exact, Adam, clamp=0.2).field("any").trust == 0.2
    assert Sdf(Exact, Adam, objective="eikonal").field("any").trust == float("inf")


def test_one_shape_only():
    model = Sdf(Exact, Adam)
    with pytest.raises(NifError, match="model=deepsdf"):
        model.adopt(ToyShapes(count=2, samples=50, surface_samples=10))
    model.adopt(ToyShapes(count=1, samples=50, surface_samples=10))
    assert list(model.instances) == ["chair/0000"]


def test_a_clamp_is_positive():
    with pytest.raises(ValueError, match="clamp"):
        Sdf(Exact, Adam, clamp=0.0)
