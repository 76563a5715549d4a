"""One shape in one network: both objectives are least where the network is the signed distance."""

from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
import trimesh
from torch import nn

from nif_cli import NifError
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.toy import ToyShapes
from nif_cli.fields.mlp import MLP
from nif_cli.fields.network import Network
from nif_cli.models.sdf import Sdf
from nif_cli.optim.adam import Adam


class Exact(Network):
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


def loss(objective: Literal["regression", "eikonal", "sal"], **field: float) -> dict[str, float]:
    model = Sdf(partial(Exact, **field), Adam, objective=objective)
    return {k: v.item() for k, v in model.loss(on_a_ball()).items()}


def test_regression_is_zero_at_the_distance():
    assert loss("regression")["l1"] == pytest.approx(0, abs=1e-6)
    assert loss("regression", radius=0.45)["l1"] > 1e-3


def test_eikonal_terms_are_zero_at_the_distance():
    """And each notices what it is there for: another radius, a steeper field, one that is turned inside
    out."""
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
    torch.stack(list(model.loss(on_a_ball(50)).values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.network.parameters())


def test_distances_are_trusted_up_to_the_clamp_or_everywhere():
    assert Sdf(Exact, Adam, clamp=0.2).field("any").truncation == 0.2
    assert Sdf(Exact, Adam, objective="eikonal").field("any").truncation == float("inf")


def test_one_shape_only():
    model = Sdf(Exact, Adam)
    with pytest.raises(NifError, match="model=deepsdf"):
        model.attach_data(ToyShapes(count=2, samples=50, surface_samples=10))
    model.attach_data(ToyShapes(count=1, samples=50, surface_samples=10))
    assert list(model.instances) == ["chair/0000"]


def test_a_clamp_is_positive():
    with pytest.raises(ValueError, match="clamp"):
        Sdf(Exact, Adam, clamp=0.0)


def test_sal_takes_the_signed_distance_and_its_opposite():
    """Both are its minima, and no sign is looked at."""
    assert loss("sal")["l1"] == pytest.approx(0, abs=1e-6)
    assert loss("sal", scale=-1.0)["l1"] == pytest.approx(0, abs=1e-6)
    assert loss("sal", radius=0.4)["l1"] > 0.02


def test_sal_learns_from_bare_points(nif, tmp_path):
    """A ball from 3,000 points without normals or signs, in the user's units."""
    points = torch.nn.functional.normalize(torch.randn(3000, 3), dim=-1).numpy() * 5 + [100, 0, 0]
    np.savetxt(tmp_path / "scan.xyz", points)
    command = [
        "train",
        "experiment=sdf_sal",
        "data=points",
        "data.path=scan.xyz",
        "trainer.max_steps=250",
        "device=cpu",
    ]
    small = [
        "trainer.max_time=null",
        "callbacks=quiet",
        "logger=csv",
        "data.batch_points=500",
        "field.width=32",
        "field.layers=3",
    ]
    result = nif(*command, *small, "field.skips=[]", "output_dir=run")
    assert result.code == 0, result.err
    assert "3,000 points without normals" in result.out
    assert nif("extract", "run=run", "resolution=32").code == 0
    mesh = trimesh.load_mesh(tmp_path / "run/meshes/scan.ply")
    radius = np.linalg.norm(mesh.vertices - [100, 0, 0], axis=1)
    assert np.abs(radius - 5).mean() < 0.3
    assert mesh.volume > 0
    assert "needs distances" in nif("train", "model=sdf", "data=points", "data.path=scan.xyz").error
    assert (
        "needs surface points with normals"
        in nif("train", "experiment=sdf_igr", "data=points", "data.path=scan.xyz").error
    )
