"""Data modules: meshes become samples of known distance, and batches follow (seed, number) alone."""

from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from narrowing import sure

from nif_cli import NifError
from nif_cli.data.shapes.datamodule import ShapeBatches
from nif_cli.data.shapes.meshes import Meshes
from nif_cli.data.shapes.toy import ToyShapes
from nif_cli.geometry.transform import BALL_RADIUS

CPU = torch.device("cpu")
SMALL: dict[str, Any] = dict(samples=800, surface_samples=200, batch_points=64)


def batches(**options) -> ShapeBatches:
    return ShapeBatches(ToyShapes(**{**SMALL, **options}), CPU)


def test_a_batch_depends_on_seed_and_number_alone():
    a, b, other = batches(count=5, batch_shapes=2), batches(count=5, batch_shapes=2), batches(count=5, seed=1)
    for _ in range(3):
        a.batch(11)
    for k in (7, 3):
        x, y = a.batch(k), b.batch(k)
        assert torch.equal(x.row, y.row)
        assert torch.equal(x.points, y.points)
    assert not torch.equal(a.batch(3).points, a.batch(4).points)
    assert not torch.equal(a.batch(3).points, other.batch(3).points)


def test_each_shape_comes_once_a_round():
    source = batches(count=6, batch_shapes=2)
    rounds = [torch.cat([source.batch(3 * r + k).row for k in range(3)]).tolist() for r in range(8)]
    assert all(sorted(r) == list(range(6)) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1  # in an order of its own each time


def test_shapes_that_do_not_divide_take_turns():
    """Five shapes, two a batch: none twice in a batch, and none left out for long."""
    source = batches(count=5, batch_shapes=2)
    rows = [source.batch(k).row.tolist() for k in range(60)]
    assert all(len(set(r)) == 2 for r in rows)
    counts = np.bincount(np.concatenate(rows), minlength=5)
    assert counts.min() > 0.6 * counts.mean()


@pytest.mark.parametrize("shapes", [1, 3])
def test_a_batch_has_its_points(shapes):
    batch = batches(count=3, batch_shapes=shapes, batch_points=60).batch(0)
    assert batch.points.shape == (shapes, 60 // shapes, 3)


def test_samples_of_a_ball_are_its_distances(tmp_path):
    """A file in anybody's units: normalised to the ball, distances positive inside, the transform kept."""
    mesh = trimesh.creation.icosphere(4, 30.0)
    mesh.apply_translation([7, 8, 9])
    mesh.export(tmp_path / "ball.stl")
    (shape,) = Meshes(str(tmp_path / "ball.stl"), **SMALL).prepare()
    assert shape.id == "ball"
    distance, surface = sure(shape.distance), sure(shape.surface)
    assert np.allclose(distance, BALL_RADIUS - np.linalg.norm(shape.points, axis=1), atol=4e-3)
    assert np.allclose(shape.transform.to_original(np.zeros(3)), [7, 8, 9], atol=1e-3)
    assert shape.transform.scale == pytest.approx(BALL_RADIUS / 30, rel=1e-4)
    assert np.allclose(np.linalg.norm(surface, axis=1), BALL_RADIUS, atol=4e-3)
    assert np.allclose(sure(shape.normals) * BALL_RADIUS, surface, atol=0.1)
    assert "watertight" in shape.report.text
    assert shape.points.dtype == distance.dtype == np.float32


def test_a_mesh_with_holes_is_sampled_and_says_so(tmp_path):
    mesh = trimesh.creation.icosphere(3)
    keep = mesh.triangles_center[:, 2] < 0.9
    trimesh.Trimesh(mesh.vertices, mesh.faces[keep]).export(tmp_path / "open.ply")
    (shape,) = Meshes(str(tmp_path / "open.ply"), **SMALL).prepare()
    assert "not watertight" in shape.report.text
    assert (sure(shape.distance) > 0).any()
    assert np.isfinite(sure(shape.distance)).all()


def test_a_sheet_has_no_inside_and_says_so(tmp_path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 1, 2], [1, 3, 2]]).export(
        tmp_path / "s.ply"
    )
    (shape,) = Meshes(str(tmp_path / "s.ply"), **SMALL).prepare()
    assert "no point is inside" in shape.report.text


def test_ids_are_paths_below_the_folder(tmp_path):
    for name in ("b.ply", "chair/a.stl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        trimesh.creation.box().export(tmp_path / name)
    assert [s.id for s in Meshes(str(tmp_path), **SMALL).prepare()] == ["b", "chair/a"]


def test_two_instances_of_one_name_are_refused(tmp_path):
    for name in ("spot.ply", "spot.stl"):
        trimesh.creation.box().export(tmp_path / name)
    with pytest.raises(NifError, match="two instances are called 'spot'"):
        Meshes(str(tmp_path), **SMALL).prepare()


def test_one_bad_file_of_many_is_left_out_and_named(tmp_path, capsys):
    for k in range(4):
        trimesh.creation.box().export(tmp_path / f"{k}.ply")
    (tmp_path / "broken.ply").write_bytes(b"ply\nnonsense")
    data = Meshes(str(tmp_path), **SMALL)
    assert [s.id for s in data.prepare()] == ["0", "1", "2", "3"]
    assert data.left_out == ["broken"]
    assert "broken.ply" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 1},
        {"batch_points": 0},
        {"batch_shapes": 0},
        {"surface_samples": -1},
        {"uniform": 1.5},
        {"spread": []},
        {"spread": [-0.1]},
        {"count": 0},
        {"families": []},
        {"seed": -1},
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ToyShapes(**options)


class TestCache:
    @pytest.fixture(autouse=True)
    def _own(self, tmp_path, monkeypatch):
        self.folder = tmp_path / "own"
        monkeypatch.setenv("NIF_CACHE", str(self.folder))

    def files(self):
        return sorted(p for p in self.folder.rglob("*") if p.is_file())

    def test_what_was_sampled_comes_back_the_same(self):
        first = ToyShapes(count=1, **SMALL).prepare()[0]
        (file,) = self.files()
        written = file.stat().st_mtime_ns
        again = ToyShapes(count=1, **SMALL).prepare()[0]
        assert np.array_equal(first.points, again.points)
        assert np.array_equal(sure(first.distance), sure(again.distance))
        assert file.stat().st_mtime_ns == written

    def test_other_settings_or_another_shape_are_other_samples(self):
        for options in ({}, {"samples": 801}, {"seed": 3}, {"uniform": 0.3}, {"families": ["lamp"]}):
            ToyShapes(count=1, **{**SMALL, **options}).prepare()
        assert len(self.files()) == 5

    @pytest.mark.parametrize("content", [b"", b"nonsense", "cut"])
    def test_a_damaged_file_is_made_again(self, content):
        first = ToyShapes(count=1, **SMALL).prepare()[0]
        (file,) = self.files()
        file.write_bytes(file.read_bytes()[:500] if content == "cut" else content)
        again = ToyShapes(count=1, **SMALL).prepare()[0]
        assert np.array_equal(first.points, again.points)

    def test_a_foreign_file_of_that_name_is_made_again(self):
        """Arrays that are not samples (other shapes, pickles) are never taken for them."""
        first = ToyShapes(count=1, **SMALL).prepare()[0]
        (file,) = self.files()
        np.savez(file, points=np.array([{}], object), distance=[0], surface=[0], normals=[0])
        assert np.array_equal(first.points, ToyShapes(count=1, **SMALL).prepare()[0].points)

    def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(self):
        self.folder.write_text("a file where the folder should be")
        with pytest.warns(UserWarning, match="not cached"):
            (shape,) = ToyShapes(count=1, **SMALL).prepare()
        assert len(shape.points) == SMALL["samples"]
