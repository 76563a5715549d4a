"""A card computes what a processor does: values, gradients, and what the command line makes of a run."""

from functools import partial
from pathlib import Path

import pytest
import torch
import trimesh
from torch import nn

from nif_cli import runs
from nif_cli.field import Field, evaluate
from nif_cli.fields.grids import HashGrid, Triplane, VoxelArray
from nif_cli.fields.mlp import MLP
from nif_cli.fields.siren import Siren
from nif_cli.fields.spline import Spline
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.volume import composite

pytestmark = pytest.mark.gpu
CARD = torch.device("cuda")
NETWORKS = {
    "mlp": partial(MLP, width=32, layers=2, weight_norm=True),
    "siren": partial(Siren, width=32, layers=2),
    "hash": partial(MLP, width=32, layers=2, encoding=partial(HashGrid, levels=4, log2_table=10)),
    "triplane": partial(MLP, width=32, layers=2, encoding=partial(Triplane, resolution=16)),
    "voxel": partial(VoxelArray, resolution=16),
    "spline": partial(Spline, resolution=8, detail=16),
}


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert theirs.device.type == CARD.type
    torch.testing.assert_close(ours, theirs.cpu(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_values_and_gradients_of_the_compiled_loops(name):
    """Which there are on a CPU alone."""
    network: nn.Module = NETWORKS[name](3, 2)
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    points, weight = torch.rand(1, 500, 3) * 1.8 - 0.9, torch.randn(1, 500, 2)
    found = []
    for device in (torch.device("cpu"), CARD):
        network.zero_grad()
        network.to(device)
        values = network(points.to(device), None)
        (values * weight.to(device)).sum().backward()
        found.append((values.detach(), [p.grad for p in network.parameters() if p.grad is not None]))
    agree(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        agree(ours.to_dense(), theirs.to_dense())


def test_compositing_is_that_of_the_compiled_loop():
    ray = torch.arange(20).repeat_interleave(torch.arange(20) % 7)
    t, delta = torch.rand(len(ray)).cumsum(0), torch.full((len(ray),), 0.05)
    density, rgb, found = 20 * torch.rand(len(ray)), torch.rand(len(ray), 3), []
    for device in (torch.device("cpu"), CARD):
        a, b = (x.to(device, copy=True).requires_grad_() for x in (density, rgb))
        light, weights = composite(a, b, Samples(ray.to(device), t.to(device), delta.to(device)), 20)
        out = [light.color, light.depth, light.transmittance, weights]
        loss = torch.stack([x.square().sum() for x in out]).sum()
        found.append([x.detach() for x in out] + list(torch.autograd.grad(loss, (a, b))))
    for ours, theirs in zip(*found, strict=True):
        agree(ours, theirs)


def test_a_run_of_a_card_is_one_of_a_processor(nif, tiny):
    """Trained and extracted on the card, read without one: the same field, the same mesh."""
    own = [key for key in tiny if not key.startswith("device")]
    trained = nif("train", *own, "data.count=2", f"device={CARD}", "output_dir=run")
    assert trained.code == 0, trained.err
    here, there = (runs.load_model(Path("run"), device=device) for device in (torch.device("cpu"), CARD))
    points = torch.rand(300, 3) * 2 - 1
    for id in here.instances:
        ours, theirs = here.field(id), there.field(id)
        assert isinstance(ours, Field)
        assert isinstance(theirs, Field)
        agree(evaluate(ours, points), evaluate(theirs, points.to(CARD)))
    for device in ("cpu", CARD):
        made = nif(
            "extract", "run=run", "resolution=24", "instances=1", f"device={device}", f"output={device}"
        )
        assert made.code == 0, made.err
    one, other = (trimesh.load_mesh(next(Path(str(d)).rglob("*.ply"))) for d in ("cpu", CARD))
    assert one.volume == pytest.approx(other.volume, rel=1e-3)
