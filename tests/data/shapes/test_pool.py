"""Pools: what is drawn, and that a pool larger than its memory draws the same points, part by part."""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from narrowing import sure

from nif_cli import NifError
from nif_cli.data.datamodule import ConditioningSpec, Needs
from nif_cli.data.memory import memory_limit
from nif_cli.data.shapes.datamodule import ShapeBatches, ShapeData
from nif_cli.data.shapes.pool import ShapePool
from nif_cli.data.shapes.samples import Images, Known, ShapeSamples, VoxelGrid
from nif_cli.data.shapes.sharded_pool import ShardedPool
from nif_cli.data.shapes.toy import ToyShapes
from nif_cli.geometry.transform import Transform

CPU = torch.device("cpu")


def ball(id: str, count: int, seed: int, measured: bool = True) -> ShapeSamples:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    distance = (0.8 - np.linalg.norm(points, axis=1)).astype(np.float32)
    surface = rng.normal(size=(count // 4, 3)).astype(np.float32)
    kind = {"distance": distance} if measured else {"inside": distance > 0}
    return ShapeSamples(id, Transform(), points, surface=surface, normals=surface, **kind)


class Given(ShapeData):
    def __init__(self, shapes: list[ShapeSamples], **settings):
        super().__init__(**settings)
        self.given = shapes

    def sources(self):
        return [(s.id, lambda s=s: s) for s in self.given]


def test_half_of_a_batch_is_inside() -> None:
    pool = ShapePool([ball("a", 1000, 0), ball("b", 500, 1)], CPU)
    batch = pool.draw(torch.tensor([1, 0]), 64, 16, torch.Generator().manual_seed(0))
    assert batch.points.shape == (2, 64, 3)
    assert (batch.inside.sum(1) == 32).all()
    assert torch.allclose(sure(batch.distance), 0.8 - batch.points.norm(dim=-1), atol=1e-6)
    assert sure(batch.surface).shape == sure(batch.normals).shape == (2, 16, 3)


def test_clouds_are_seen() -> None:
    """A fresh, noisy cloud of each shape: a function of the generator, points of its own surface."""
    look = ConditioningSpec("points", 2000, 0.01)
    pool = ShapePool([ball("a", 1000, 0), ball("b", 500, 1)], CPU, look=look)
    row = torch.tensor([1, 0])
    batch = pool.draw(row, 64, 0, torch.Generator().manual_seed(0))
    seen = sure(batch.seen)
    assert seen.shape == (2, 2000, 3)
    assert torch.equal(seen, sure(pool.draw(row, 64, 0, torch.Generator().manual_seed(0)).seen))
    assert not torch.equal(seen, sure(pool.draw(row, 64, 0, torch.Generator().manual_seed(1)).seen))
    away = torch.cdist(seen[0], sure(pool.surface)[sure(pool.surface_begin)[1] :, :3]).amin(1)
    assert 0.005 < away.mean() < 0.02
    assert [sure(b.seen).shape for b in batch.split(1)] == [(1, 2000, 3)] * 2
    assert sure(pool.held_out([0, 1], 10).seen).shape == (2, 2000, 3)


def test_voxels_and_images_are_seen(rng) -> None:
    grids = rng.random((2, 16, 16, 16)) > 0.5
    shapes = [
        replace(ball(id, 100, 0), known=Known(voxels=VoxelGrid(g))) for id, g in zip("ab", grids, strict=True)
    ]
    pool = ShapePool(shapes, CPU, look=ConditioningSpec("voxels", 16))
    seen = sure(pool.draw(torch.tensor([1, 0]), 4, 0, torch.Generator().manual_seed(0)).seen)
    assert (seen.numpy() == grids[[1, 0]]).all()
    pixels = [
        np.full((n, 8, 8, 3), k * 10, np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
        for k, n in ((1, 3), (2, 5))
    ]
    shapes = [replace(s, known=Known(images=Images(p))) for s, p in zip(shapes, pixels, strict=True)]
    pool = ShapePool(shapes, CPU, look=ConditioningSpec("image", 8, views=5))
    generator = torch.Generator().manual_seed(0)
    drawn = [sure(pool.draw(torch.tensor([0, 1]), 4, 0, generator).seen) for _ in range(60)]
    seen = torch.stack([one[:, 0, 0, 0] for one in drawn])
    assert set(seen[:, 0].tolist()) == {10, 11, 12}
    assert set(seen[:, 1].tolist()) == {20, 21, 22, 23, 24}


def test_what_is_inside_counts_where_both_are_known() -> None:
    shape = ball("a", 1000, 0)
    shape.inside = shape.points[:, 0] > 0.5
    row, generator = torch.tensor([0]), torch.Generator().manual_seed(0)
    batch = ShapePool([shape], CPU, occupancy=True).draw(row, 64, 0, generator)
    assert (batch.inside == (batch.points[..., 0] > 0.5)).all()
    assert ShapePool([shape], CPU).draw(row, 64, 0, generator).distance is not None


def test_points_as_they_come() -> None:
    """Not balanced: the part of a batch that is inside is that of the samples."""
    pool = ShapePool([ball("a", 5000, 0)], CPU, balanced=False)
    batch = pool.draw(torch.tensor([0]), 4000, 0, torch.Generator().manual_seed(0))
    assert abs(batch.inside.float().mean() - 4 / 3 * np.pi * 0.8**3 / 8) < 0.03


def test_occupancies_only() -> None:
    pool = ShapePool([ball("a", 1000, 0, measured=False)], CPU)
    batch = pool.draw(torch.tensor([0]), 64, 0, torch.Generator().manual_seed(0))
    assert batch.distance is None
    assert (batch.inside == (batch.points.norm(dim=-1) < 0.8)).all()


def test_surfaces_only() -> None:
    shape = ShapeSamples(
        "a", Transform(), np.empty((0, 3), np.float32), surface=np.ones((5, 3)), normals=np.ones((5, 3))
    )
    pool = ShapePool([shape], CPU)
    batch = pool.draw(torch.tensor([0]), 64, 8, torch.Generator().manual_seed(0))
    assert batch.points.shape == (1, 0, 3)
    assert sure(batch.surface).shape == (1, 8, 3)
    assert pool.held_out([0], 10).surface is not None


def test_shards_hold_every_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIF_CACHE", str(tmp_path))
    shapes = [ball("a", 60_000, 0), ball("b", 30_000, 1)]
    data = Given(shapes, memory="1MiB", batch_points=1024)
    pool = data.make_pool(CPU)
    assert isinstance(pool, ShardedPool)
    assert pool.shards >= 4
    parts = []
    for shard in range(pool.shards):
        part = pool.at(shard * pool.count // pool.shards, 1)
        assert len(part) == 2  # every shard has every shape
        assert part.rows.nbytes + sure(part.surface).nbytes < 2**20 / 2
        parts.append(part.rows.numpy().copy())
    rows = np.concatenate(parts + [h.numpy() for h in pool.first.held])
    want = np.concatenate([np.column_stack((s.points, sure(s.distance))) for s in shapes])
    assert (rows[np.lexsort(rows.T)] == want[np.lexsort(want.T)]).all()


def test_batches_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch k depends on k only, and the shards take turns."""
    monkeypatch.setenv("NIF_CACHE", str(tmp_path))
    settings = dict(memory="1MiB", batch_points=8192, batch_shapes=2)
    one = ShapeBatches(Given([ball("a", 60_000, 0), ball("b", 30_000, 1)], **settings), CPU)
    two = ShapeBatches(Given([ball("a", 60_000, 0), ball("b", 30_000, 1)], **settings), CPU)
    drawn = [one.batch(k) for k in range(12)]
    late = two.batch(11)
    assert torch.equal(late.points, drawn[11].points)
    assert torch.allclose(sure(late.distance), 0.8 - late.points.norm(dim=-1), atol=1e-6)
    kept = {tuple(row) for row in one.pool.at(0, 8192).rows[:, :3].tolist()}
    shard = [tuple(b.points[0, 0].tolist()) in kept for b in drawn]
    assert any(shard)
    assert not all(shard)
    assert list(tmp_path.glob("pool-*"))
    del one, two
    gc.collect()
    assert not list(tmp_path.glob("pool-*"))


@pytest.mark.parametrize(
    ("text", "size"), [("400MiB", 400 * 2**20), ("2G", 2**31), (2**21, 2**21), ("1.5 MB", 3 * 2**19)]
)
def test_sizes(text: str, size: int) -> None:
    assert memory_limit(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-3G", "10", "3 XB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        memory_limit(text)


def test_what_a_model_needs_is_asked_for() -> None:
    data = Given([ball("a", 100, 0, measured=False)])
    data.holds = "occupancies"
    data.meet(Needs("model=occupancy", ("inside",)))
    with pytest.raises(NifError, match="holds occupancies, model=deepsdf needs distances; run nif prepare"):
        data.meet(Needs("model=deepsdf", ("distance",)))


def test_instances() -> None:
    shapes = [ball(id, 10, 0) for id in ("chair/a", "chair/b", "lamp/a")]
    assert [s.id for s in Given(shapes, instances="chair/*").prepare()] == ["chair/a", "chair/b"]
    assert [s.id for s in Given(shapes, instances=["lamp/a"]).prepare()] == ["lamp/a"]
    assert [s.id for s in Given(shapes, instances=2).prepare()] == ["chair/a", "chair/b"]
    with pytest.raises(NifError, match="no 'table"):
        Given(shapes, instances="table*").prepare()
    with pytest.raises(NifError, match="two instances are called 'chair/a'"):
        Given([*shapes, shapes[0]]).prepare()


def test_a_source_that_fails_is_left_out_and_named(capsys) -> None:
    def broken() -> ShapeSamples:
        raise NifError("x.npz: truncated")

    class Broken(ShapeData):
        def sources(self):
            return [("a", lambda: ball("a", 10, 0)), ("b", broken)]

    data = Broken()
    assert [s.id for s in data.prepare()] == ["a"]
    assert data.left_out == ["b"]  # nif train ends with 1
    assert "b: left out: x.npz: truncated" in capsys.readouterr().out
    with pytest.raises(NifError, match="truncated"):  # nothing is left without it
        Broken(instances=["b"]).prepare()


def test_toy_shapes_through_the_same_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIF_CACHE", str(tmp_path))
    data = ToyShapes(count=2, samples=500, surface_samples=100)
    first = data.prepare()
    again = ToyShapes(count=2, samples=500, surface_samples=100).prepare()  # from the cache
    assert all(
        (a.points == b.points).all() and (a.distance == b.distance).all()
        for a, b in zip(first, again, strict=True)
    )
