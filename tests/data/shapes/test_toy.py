"""Toy shapes: closed solids, decided by family and seed."""

from typing import Any

import numpy as np
import pytest

from nif_cli.data.shapes.toy import FAMILIES, ToyShapes, toy_shape
from nif_cli.geometry.mesh import clean, inspect_mesh


@pytest.mark.parametrize("family", FAMILIES)
def test_every_shape_is_one_closed_solid(family):
    """Closed once merged, outward (positive volume), in one piece, standing on the ground, of order 1."""
    for seed in range(12):
        mesh = clean(toy_shape(family, seed), family)
        report = inspect_mesh(mesh)
        assert report.watertight, (seed, str(report))
        assert report.components == 1, seed
        assert mesh.volume > 0.005, seed
        assert mesh.bounds[0, 1] == pytest.approx(0, abs=1e-6), seed
        assert 0.3 < np.ptp(mesh.vertices, axis=0).max() < 3, seed


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_is_a_shape(family):
    a, b, c = (toy_shape(family, seed) for seed in (5, 5, 6))
    assert np.array_equal(a.vertices, b.vertices)
    assert np.array_equal(a.faces, b.faces)
    assert a.vertices.shape != c.vertices.shape or not np.allclose(a.vertices, c.vertices)


def test_unknown_families_are_named():
    with pytest.raises(ValueError, match=r"chiar.*chair"):
        toy_shape("chiar", 0)
    with pytest.raises(ValueError, match=r"chiar.*chair"):
        ToyShapes(families=["chiar"])


def sources(**options) -> dict[str, bytes]:
    return {id: read().vertices.tobytes() for id, read in ToyShapes(**options).meshes()}


def test_train_and_test_are_disjoint_whatever_the_count():
    """No id and no shape of the test split is in the training split; more shapes keep the first ones."""
    train, test = sources(count=9, test=6), sources(count=9, test=6, split="test")
    assert (len(train), len(test)) == (9, 6)
    assert not set(train) & set(test)
    assert not set(train.values()) & set(test.values())
    assert len(set(train.values())) == 9
    more = sources(count=12)
    assert {id: more[id] for id in train} == train
    assert sources(count=9, seed=1)["chair/0000"] != train["chair/0000"]


def test_ids_are_class_and_number():
    assert list(sources(count=5)) == ["chair/0000", "table/0000", "lamp/0000", "chair/0001", "table/0001"]


def test_shapes_to_be_shown_are_those_of_the_test_split():
    """Sampled alike, whichever split asks; of the split 'test' itself there are none beside it."""
    few: dict[str, Any] = {"samples": 50, "surface_samples": 20, "test": 2}
    shown, held = ToyShapes(count=3, **few).test_shapes(8), ToyShapes(count=3, split="test", **few).prepare()
    assert [s.id for s in shown] == [s.id for s in held]
    assert all(np.array_equal(a.points, b.points) for a, b in zip(shown, held, strict=True))
    assert len(ToyShapes(count=3, **few).test_shapes(1)) == 1
    assert ToyShapes(count=3, split="test", **few).test_shapes(8) == []
