"""The auto-decoder: codes by instance id, bounded, moved only by their own shape."""

from functools import partial

import pytest
import torch
from narrowing import sure

from nif_cli import NifError
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.toy import ToyShapes
from nif_cli.fields.mlp import MLP
from nif_cli.losses import clamped_l1
from nif_cli.models.deepsdf import DeepSdf
from nif_cli.optim.adam import Adam


@pytest.fixture
def data() -> ToyShapes:
    return ToyShapes(count=4, samples=300, surface_samples=50, batch_points=32)


@pytest.fixture
def model(data) -> DeepSdf:
    model = DeepSdf(partial(MLP, width=16, layers=2), partial(Adam, lr=1e-3), code_size=5)
    model.attach_data(data)
    return model


def batch(rows: list[int]) -> ShapeBatch:
    return ShapeBatch(torch.tensor(rows), torch.randn(len(rows), 8, 3), torch.randn(len(rows), 8))


def test_a_code_for_every_instance_of_the_data(model, data):
    assert list(model.instances) == [s.id for s in data.prepare()]
    assert model.codes.weight.shape == (4, 5)
    assert [i.transform for i in model.instances.values()] == [s.transform for s in data.prepare()]


def test_codes_start_with_unit_spread(data):
    """N(0, 1/Z): a norm of about one whatever the size."""
    model = DeepSdf(partial(MLP, width=16, layers=2), Adam, code_size=2000)
    model.attach_data(data)
    assert torch.allclose(sure(model.codes).weight.norm(dim=1), torch.ones(4), atol=0.1)


def test_a_field_is_the_network_with_the_code_of_its_id(model):
    points = torch.randn(6, 3)
    for row, id in enumerate(model.instances):
        assert model.field(id).truncation == model.clamp
        code = model.codes.weight[row].detach()
        code = code / max(1.0, code.norm().item())
        assert torch.allclose(
            model.field(id).value(points), model.network(points[None], code[None])[0, :, 0], atol=1e-6
        )
    with pytest.raises(NifError, match="no instance 'nobody'"):
        model.field("nobody")


def test_codes_stay_in_their_ball(model):
    with torch.no_grad():
        model.codes.weight.mul_(100)
    assert all(model.code(id).norm() <= 1 + 1e-5 for id in model.instances)
    with torch.no_grad():
        model.codes.weight.mul_(1e-4)
    for row, id in enumerate(model.instances):
        assert torch.equal(model.code(id), model.codes.weight[row])


def test_only_the_codes_of_the_batch_have_gradients(model):
    torch.stack(list(model.loss(batch([2, 0])).values())).sum().backward()
    grad = model.codes.weight.grad.coalesce()
    assert sorted(grad.indices()[0].tolist()) == [0, 2]


def test_the_loss_is_the_clamped_distance_and_the_prior(model):
    model.prior, model.prior_warmup = 0.5, 0.0
    b = batch([1, 3])
    terms = model.loss(b)
    codes = torch.stack([model.code(id) for id in list(model.instances)])[[1, 3]]
    values = model.network(b.points, codes)[..., 0]
    assert torch.allclose(terms["l1"], clamped_l1(values, sure(b.distance), 0.1))
    assert torch.allclose(terms["prior"], 0.5 * codes.square().sum(1).mean())
    model.eval()
    assert list(model.loss(b)) == ["l1"]  # what is watched is how well shapes are met


def test_shapes_known_before_keep_their_codes(model):
    """Weights of another run: an id that it knew keeps its code, a new one starts afresh."""
    before = model.code("table/0000").detach().clone()
    more = ToyShapes(count=6, samples=300, surface_samples=50)
    model.attach_data(more)
    assert len(model.instances) == 6
    assert torch.allclose(model.code("table/0000"), before)


@pytest.mark.parametrize(
    "options", [{"code_size": 0}, {"clamp": 0.0}, {"code_norm": -1.0}, {"code_lr": 0.0}, {"lr": 0.0}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DeepSdf(partial(MLP, width=16, layers=2), Adam, **options)
