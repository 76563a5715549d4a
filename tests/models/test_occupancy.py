"""Occupancy networks: what they minimise, what they refuse, and that a run is enough to make its shapes
again."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from narrowing import sure
from PIL import Image

from nif_cli import NifError, runs
from nif_cli.data.shapes.pool import ShapePool
from nif_cli.data.shapes.samples import Scan, VoxelGrid
from nif_cli.data.shapes.toy import ToyShapes
from nif_cli.encoders.pointcloud import LatentEncoder, LocalPointNet, PointNet
from nif_cli.encoders.voxels import VoxelNet
from nif_cli.field import Field, evaluate
from nif_cli.fields.conditional import ConditionalResNet
from nif_cli.fields.local import LocalDecoder
from nif_cli.models.occupancy import Occupancy
from nif_cli.optim.adam import Adam

DECODER = partial(ConditionalResNet, width=16, blocks=1)
ENCODERS = {
    "pointcloud": lambda: PointNet(8, points=50, width=8, blocks=2),
    "voxels": lambda: VoxelNet(8, 16, 2),
    "vae": lambda: LatentEncoder(8, points=50, width=8, blocks=2),
    "pointcloud_planes": lambda: LocalPointNet(
        8, 50, resolution=8, width=8, blocks=2, unet_depth=2, unet_width=8
    ),
}
ENCODERS["pointcloud_grid"] = lambda: LocalPointNet(
    8, 50, layout="grid", resolution=8, width=8, blocks=2, unet_depth=2, unet_width=8
)


def make(encoder: str = "pointcloud", **settings) -> tuple[Occupancy, ToyShapes]:
    made = ENCODERS[encoder]()
    model = Occupancy(
        LocalDecoder if made.local else DECODER, partial(Adam, lr=1e-3), encoder=made, **settings
    )
    data = ToyShapes(count=4, test=2, samples=400, surface_samples=200, batch_points=128, batch_shapes=4)
    model.attach_data(data)
    return model, data


def batch_of(data: ToyShapes):
    pool = data.make_pool(torch.device("cpu"))
    assert isinstance(pool, ShapePool)
    return pool.draw(torch.arange(4), 32, 0, torch.Generator().manual_seed(0))


def test_the_loss_is_the_cross_entropy():
    model, data = make()
    batch = batch_of(data)
    logits = model.network(batch.points, sure(model.encoder)(batch.seen))[..., 0]
    want = F.binary_cross_entropy(torch.sigmoid(logits), batch.inside.float())
    assert torch.allclose(model.loss(batch)["bce"], want, atol=1e-5)
    model.reduction = "sum"
    assert torch.allclose(model.loss(batch)["bce"], 32 * want, atol=1e-3)


def test_the_divergence_of_the_unconditional_one():
    """KL(N(m, s^2) || N(0, 1)), from torch's own distributions."""
    model, data = make("vae", kl=0.5)
    batch = batch_of(data)
    mean, log_var = sure(model.encoder)(batch.points, batch.inside).chunk(2, -1)
    normal = torch.distributions.Normal
    kl = (
        torch.distributions.kl_divergence(normal(mean, (0.5 * log_var).exp()), normal(0.0, 1.0))
        .sum(-1)
        .mean()
    )
    assert torch.allclose(model.loss(batch)["kl"], 0.5 * kl, rtol=1e-4)
    model.eval()
    for name, parameter in model.network.named_parameters():
        if name.endswith("beta.weight"):  # before it has learned anything, no code matters
            torch.nn.init.normal_(parameter)
    a, b = (f.value(torch.zeros(3)) for f in model.sample(2, seed=3))
    c = model.sample(2, seed=3)[0].value(torch.zeros(3))
    assert a == c != b


def test_threshold_is_a_probability():
    model, _ = make(threshold=0.2)
    field = model.eval().field(next(iter(model.instances)))
    assert field.level == pytest.approx(np.log(0.25))
    assert field.truncation == 0


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_shapes_that_a_run_keeps_are_unseen_ones(encoder):
    """Test shapes with their observations; a field is the network with the code of what is seen; infer gives
    the same."""
    model, data = make(encoder)
    assert list(model.instances) == [s.id for s in data.test_shapes(8)]
    model.eval()
    points = torch.rand(40, 3) * 2 - 1
    fields = [model.field(id) for id in model.instances]
    inferred = model.infer([sure(i.observation) for i in model.instances.values()])
    for field, made in zip(fields, inferred, strict=True):
        assert isinstance(made.field, Field)
        assert torch.allclose(evaluate(field, points), evaluate(made.field, points), atol=1e-4)
        assert torch.allclose(
            evaluate(field, points), model.network(points[None], made.state["code"][None])[0, :, 0], atol=1e-4
        )
    first, second = model.instances
    ends = [model.between(first, second, share).value(points) for share in (0.0, 1.0)]
    assert all(torch.allclose(a, f.value(points), atol=1e-4) for a, f in zip(ends, fields, strict=True))


@pytest.mark.parametrize("encoder", ["pointcloud", "voxels"])
def test_a_mirrored_shape_is_the_shape_mirrored(encoder):
    model, data = make(encoder, mirror="x")
    batch = batch_of(data)
    shown = sure(batch.seen)
    found = {}
    for seed in range(6):
        torch.manual_seed(seed)
        points, mirrored = model._mirrored(batch.points, shown)
        seen = sure(mirrored)
        for row in range(4):
            flipped = bool((points[row, :, 0] == -batch.points[row, :, 0]).all())
            found[flipped] = True
            assert torch.equal(points[row, :, 1:], batch.points[row, :, 1:])
            want = shown[row].flip(0) if encoder == "voxels" else shown[row] * torch.tensor([-1.0, 1, 1])
            assert torch.equal(seen[row], want if flipped else shown[row])
    assert set(found) == {True, False}


def test_what_does_not_fit_together_is_told():
    with pytest.raises(ValueError, match="field=local"):
        Occupancy(DECODER, Adam, encoder=ENCODERS["pointcloud_planes"]())
    with pytest.raises(ValueError, match="gives one code a shape"):
        Occupancy(LocalDecoder, Adam, encoder=ENCODERS["pointcloud"]())
    with pytest.raises(ValueError, match="choose an encoder"):
        Occupancy(DECODER, Adam)
    with pytest.raises(ValueError, match=r"threshold=1\.5"):
        Occupancy(DECODER, Adam, encoder=ENCODERS["pointcloud"](), threshold=1.5)
    model = Occupancy(partial(ConditionalResNet, condition="concat"), Adam)
    with pytest.raises(NifError, match="learns one shape and the data holds 4"):
        model.attach_data(ToyShapes(count=4, samples=100, surface_samples=50))


CLOUD = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("encoder", "seen", "words"),
    [
        ("pointcloud", VoxelGrid(np.zeros((16,) * 3, bool)), "at least 16 are needed, none are given"),
        ("pointcloud", Scan(points=CLOUD[:5]), "at least 16 are needed, 5 are given"),
        ("pointcloud", Scan(points=CLOUD * np.nan), "100 of 100 points are NaN"),
        ("voxels", Scan(points=CLOUD), r"voxel grids of 16\^3, and none is given"),
        ("voxels", VoxelGrid(occupied=np.zeros((16,) * 3, bool)), "empty"),
        ("voxels", VoxelGrid(occupied=np.ones((16,) * 3, bool)), "full"),
        ("voxels", VoxelGrid(occupied=np.ones((8,) * 3, bool)), r"\(8, 8, 8\)"),
        ("vae", Scan(points=CLOUD), "points with their occupancy"),
    ],
)
def test_what_cannot_be_seen_is_told(encoder, seen, words):
    with pytest.raises(NifError, match=words):
        make(encoder)[0].infer([seen])


def test_few_points_are_repeated_and_many_thinned():
    model, _ = make()
    generator = torch.Generator().manual_seed(0)
    few = model._thinned(Scan(points=CLOUD[:20]), generator).points
    assert len(few) == 50
    assert len(np.unique(few, axis=0)) == 20
    many = model._thinned(Scan(points=CLOUD), generator).points
    assert len(np.unique(many, axis=0)) == 50


SMALL = {
    "pointcloud": ["encoder.points=100", "encoder.width=16", "field.width=16", "field.blocks=1"],
    "pointcloud_grid": [
        "encoder.points=99",
        "encoder.width=8",
        "encoder.resolution=8",
        "encoder.unet_depth=2",
    ],
    "image": ["encoder.size=32", "encoder.width=4", "encoder.views=2", "field.width=16", "field.blocks=1"],
    "voxels": ["encoder.size=16", "encoder.width=4", "field.width=16", "field.blocks=1"],
    "vae": ["encoder.width=16", "field.width=16", "field.blocks=1"],
}


@pytest.mark.parametrize("encoder", SMALL)
def test_a_run_from_the_shell(nif, tiny, encoder, sphere_file, tmp_path: Path):
    """Train, then make a mesh of what the run keeps and of something new; a resumed run goes on with the same
    shapes."""
    options = [o for o in tiny if not o.startswith("field")]
    options += [
        "model=occupancy",
        f"encoder={encoder}",
        *SMALL[encoder],
        "data.count=3",
        "data.test=1",
        "output_dir=run",
    ]
    made = nif("train", *options)
    assert made.code == 0, made.err
    made = nif("extract", "run=run", "resolution=12", "level=-100")
    assert made.code == 0, made.err
    assert (tmp_path / "run/meshes/chair/test_0000.ply").is_file()
    if encoder == "image":
        given = tmp_path / "thing.png"
        image = Image.new("RGBA", (50, 40))
        image.paste((200, 20, 20, 255), (10, 10, 30, 30))
        image.save(given)
    else:
        given = sphere_file
    made = nif("reconstruct", "run=run", f"input={given}", "resolution=12", "points=50")
    assert made.code == 0 or "no surface" in made.err, made.err
    assert (tmp_path / f"run/reconstructions/{given.stem}.json").is_file()
    if encoder == "image":
        Image.new("RGB", (50, 50), "red").save(given)
        assert "all of one colour" in nif("reconstruct", "run=run", f"input={given}").error
        assert "image" in nif("reconstruct", "run=run", f"input={sphere_file}", "observe=points").error
    if encoder == "pointcloud":
        more = nif("train", "resume=run", "trainer.max_steps=14")
        assert more.code == 0, more.err
        assert "val/iou" in (tmp_path / "run/metrics.csv").read_text()
        rendered = nif("render", "run=run", "frames=1", "size=16", "instances=1")
        assert rendered.code == 0, rendered.err


def test_one_shape(nif, tiny, sphere_file):
    """encoder=none: the network is the shape."""
    made = nif(
        "train",
        *tiny,
        "model=occupancy",
        "encoder=none",
        "data=meshes",
        f"data.path={sphere_file}",
        "output_dir=run",
        "trainer.max_steps=300",
        "model.lr=1e-2",
        "data.batch_points=512",
    )
    assert made.code == 0, made.err
    model = runs.load_model(Path("run"))
    points = torch.rand(2000, 3) * 2 - 1
    field = model.field("ball")
    assert isinstance(field, Field)
    inside = evaluate(field, points) > 0
    assert (inside == (points.norm(dim=-1) < 1 / 1.03)).float().mean() > 0.95
    assert "knows the shape it was trained on" in nif("reconstruct", "run=run", f"input={sphere_file}").error


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["model=deepsdf", "field=local"], ["field", "feature planes", "model=occupancy"]),
        (["model=occupancy", "encoder=pointcloud", "field=local"], ["encoder", "field=onet"]),
        (["model=occupancy", "field=onet"], ["feature planes", "field=local"]),
        (["model=deepsdf", "encoder=pointcloud", "field=mlp"], ["encoder", "takes none"]),
        (["model=occupancy", "encoder=none", "field=mlp"], ["learns one shape", "encoder=pointcloud"]),
        (["model=occupancy", "encoder=image", "encoder.weights=gone.pth"], ["gone.pth", "no such file"]),
        (["model=occupancy", "encoder.resolution=30"], ["resolution=30", "multiple of 4"]),
        (["model=occupancy", "model.threshold=2"], ["threshold=2"]),
        (["model=occupancy", "encoder=image", "model.mirror=x"], ["mirror=x", "image"]),
        (["model=occupancy", "encoder=pointclod"], ["no encoder 'pointclod'", "pointcloud"]),
    ],
)
def test_mistakes_are_one_line(nif, tiny, typed, words):
    options = [o for o in tiny if not o.startswith("field")]
    message = nif("train", *options, *typed, "data.count=2").error
    for word in words:
        assert word in message
