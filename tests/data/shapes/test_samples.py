"""Pools and what is drawn from them."""

import numpy as np
import pytest
import torch
from narrowing import sure

from nif_cli.data.shapes.pool import ShapePool
from nif_cli.data.shapes.samples import ShapeSamples
from nif_cli.geometry.transform import Transform

CPU = torch.device("cpu")


def shape(name: str, count: int, rng: np.random.Generator, inside: float = 0.2) -> ShapeSamples:
    points = rng.normal(size=(count, 3)).astype(np.float32)
    distance = np.where(np.arange(count) < inside * count, 0.1, -0.2).astype(np.float32)
    normals = np.full((50, 3), 0.5, np.float32)
    return ShapeSamples(name, Transform(), points, distance, surface=points[:50], normals=normals)


def rows_of(points: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(p) for p in points.reshape(-1, 3).tolist()}


def test_half_is_inside_and_half_outside_of_the_right_shape(rng):
    shapes = [shape("a", 500, rng), shape("b", 300, rng, inside=0.9), shape("c", 100, rng)]
    batch = ShapePool(shapes, CPU).draw(torch.tensor([2, 0]), 64, 16, torch.Generator())
    assert batch.points.shape == (2, 64, 3)
    surface, distance = sure(batch.surface), sure(batch.distance)
    assert surface.shape == sure(batch.normals).shape == (2, 16, 3)
    assert ((distance > 0).sum(1) == 32).all()
    for k, row in enumerate((2, 0)):
        own = sure(shapes[row].distance).tolist()
        of = {tuple(p): d for p, d in zip(shapes[row].points.tolist(), own, strict=True)}
        for p, d in zip(batch.points[k].tolist(), distance[k].tolist(), strict=True):
            assert of[tuple(p)] == d  # the shape's own points, with their own distances
        assert rows_of(surface[k]) <= rows_of(torch.from_numpy(sure(shapes[row].surface)))


def test_held_out_points_are_never_drawn(rng):
    """They are the shape's, always the same, of both signs, and no batch has one."""
    shapes = [shape("a", 1000, rng), shape("b", 1000, rng)]
    pool = ShapePool(shapes, CPU, hold_out=0.1)
    held = pool.held_out([0, 1], 2048)
    assert held.points.shape == (2, 100, 3)
    assert torch.equal(held.points, pool.held_out([0, 1], 2048).points)
    drawn = set()
    generator = torch.Generator()
    for _ in range(30):
        drawn |= rows_of(pool.draw(torch.tensor([0, 1]), 400, 0, generator).points)
    assert not drawn & rows_of(held.points)
    kept = rows_of(pool.rows[:, :3])
    assert drawn <= kept
    assert not kept & rows_of(held.points)
    assert kept | rows_of(held.points) == rows_of(
        torch.from_numpy(np.concatenate([s.points for s in shapes]))
    )
    assert (sure(held.distance) > 0).any()
    assert (sure(held.distance) < 0).any()


@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_a_shape_of_one_kind_draws_it_twice(rng, inside):
    batch = ShapePool([shape("a", 100, rng, inside)], CPU).draw(torch.tensor([0]), 10, 0, torch.Generator())
    assert ((sure(batch.distance) > 0) == bool(inside)).all()


def test_drawing_is_a_function_of_the_generator(rng):
    pool = ShapePool([shape("a", 100, rng)], CPU)
    a, b = (pool.draw(torch.tensor([0]), 20, 5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a.points, b.points)
    assert torch.equal(sure(a.surface), sure(b.surface))


def test_shapes_without_surfaces_draw_none(rng):
    lonely = shape("a", 100, rng)
    lonely.surface = lonely.normals = None
    batch = ShapePool([lonely, shape("b", 100, rng)], CPU).draw(torch.tensor([0]), 4, 4, torch.Generator())
    assert batch.surface is None
