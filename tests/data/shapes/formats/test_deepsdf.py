"""The DeepSDF tree: what is written is read back, distances change sign at the border only, bad files are
named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from narrowing import sure
from scipy.spatial import KDTree

from nif_cli import NifError
from nif_cli.data.shapes.formats import deepsdf
from nif_cli.data.shapes.formats.deepsdf import DeepSdfEntry
from nif_cli.geometry.transform import Transform

ENTRY = DeepSdfEntry("set", "ball", "one")
PLACE = Transform((1.0, -2.0, 0.5), 2.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (500, 3)).astype(np.float32)
    distance = (0.7 - np.linalg.norm(points, axis=1)).astype(np.float32)
    normals = points[:90] / np.linalg.norm(points[:90], axis=1, keepdims=True)
    deepsdf.write_sdf_samples(tmp_path, ENTRY, PLACE, points, distance, 0.7 * normals, normals)
    deepsdf.write_split_json(tmp_path, "somewhere", {"split": [ENTRY]})
    return tmp_path


def test_round_trip(tree: Path) -> None:
    assert deepsdf.read_split(tree) == [ENTRY]
    shape = deepsdf.read(tree, ENTRY)
    assert shape.id == "ball/one"
    assert shape.transform == PLACE
    surface = sure(shape.surface)
    assert np.allclose(sure(shape.distance), 0.7 - np.linalg.norm(shape.points, axis=1), atol=1e-6)
    assert np.allclose(np.linalg.norm(surface, axis=1), 0.7, atol=1e-6)
    assert np.allclose(sure(shape.normals), surface / 0.7, atol=1e-3)


def test_files_are_as_published(tree: Path) -> None:
    """pos is outside, and the surface is in the user's units; trimesh, which the published code reads it
    with, agrees."""
    with np.load(ENTRY.path(tree, "SdfSamples"), allow_pickle=False) as file:
        assert file["pos"].dtype == file["neg"].dtype == np.float32
        assert (np.linalg.norm(file["pos"][:, :3], axis=1) >= 0.7 - 1e-6).all()
        assert (file["neg"][:, 3] < 0).all()
    vertices = trimesh.load_mesh(ENTRY.path(tree, "SurfaceSamples"), process=False).vertices
    assert np.allclose(np.linalg.norm((vertices + PLACE.offset) * PLACE.scale, axis=1), 0.7, atol=1e-5)
    with np.load(ENTRY.path(tree, "NormalizationParameters"), allow_pickle=False) as file:
        assert file["offset"].shape == (3,)
        assert file["scale"].shape == (1,)
    assert json.loads((tree / "split.json").read_text()) == {"set": {"ball": ["one"]}}
    assert json.loads((tree / ".datasources.json").read_text()) == {"set": "somewhere"}


def test_nan_rows_are_dropped_and_counted(tree: Path) -> None:
    path = ENTRY.path(tree, "SdfSamples")
    rows = np.zeros((10, 4), np.float32)
    rows[:, 3] = -1
    rows[2, 3], rows[5, 0] = np.nan, np.inf
    np.savez(path, pos=-rows[:1], neg=rows)
    shape = deepsdf.read(tree, ENTRY)
    assert len(shape.points) == 9
    assert "2 rows with NaN dropped" in shape.report.text


@pytest.mark.parametrize("binary", [False, True])
def test_ply_of_others(tmp_path: Path, binary: bool) -> None:
    mesh = trimesh.creation.box()
    mesh.export(tmp_path / "a.ply", encoding="binary" if binary else "ascii")
    points, _ = deepsdf.read_surface_ply(tmp_path / "a.ply")
    assert np.allclose(points, mesh.vertices)


def test_missing_shapes_are_listed_at_once(tree: Path) -> None:
    (tree / "split.json").write_text(json.dumps({"set": {"ball": ["one", "two", "three"]}}))
    with pytest.raises(NifError, match=r"2 of its 3 shapes .*set/ball/two, set/ball/three"):
        deepsdf.read_split(tree)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"set": ["one"]}', '{"set": {"..": ["one"]}}', '{"set": {"ball": ["../x"]}}']
)
def test_splits_that_are_none(tree: Path, text: str) -> None:
    (tree / "split.json").write_text(text)
    with pytest.raises(NifError, match=r"split\.json"):
        deepsdf.read_split(tree)


def test_bad_samples(tree: Path) -> None:
    path = ENTRY.path(tree, "SdfSamples")
    good = path.read_bytes()
    cases = {
        "truncated": good[: len(good) // 2],
        "no npz": b"hello",
        "empty": b"",
    }
    for content in cases.values():
        path.write_bytes(content)
        with pytest.raises(NifError, match=r"one\.npz: cannot be read"):
            deepsdf.read(tree, ENTRY)
    wrong = [
        (dict(points=np.zeros(3)), "no 'pos'"),
        (dict(pos=np.zeros((4, 3)), neg=np.zeros((4, 4))), r"'pos' has shape \[4, 3\]; it must be \[N, 4\]"),
        (dict(pos=np.array([["a"] * 4]), neg=np.zeros((4, 4))), "must hold numbers"),
        (dict(pos=np.array([[None] * 4]), neg=np.zeros((4, 4))), "Python objects"),
        (dict(pos=np.full((4, 4), np.nan), neg=np.zeros((0, 4))), "of which 0 are numbers"),
    ]
    for arrays, message in wrong:
        np.savez(path, **arrays)
        with pytest.raises(NifError, match=message):
            deepsdf.read(tree, ENTRY)


def test_bad_companions(tree: Path) -> None:
    np.savez(ENTRY.path(tree, "NormalizationParameters"), offset=np.zeros(3), scale=np.zeros(1))
    with pytest.raises(NifError, match="must be positive"):
        deepsdf.read(tree, ENTRY)
    ENTRY.path(tree, "NormalizationParameters").unlink()
    ply = ENTRY.path(tree, "SurfaceSamples")
    ply.write_text(ply.read_text()[:2000])
    with pytest.raises(NifError, match=r"one\.ply: truncated"):
        deepsdf.read(tree, ENTRY)
    ply.unlink()
    assert "stays in normalised space" in deepsdf.read(tree, ENTRY).report.text


def test_no_tree(tmp_path: Path) -> None:
    with pytest.raises(NifError, match="no DeepSDF tree"):
        deepsdf.find_root(tmp_path)


@pytest.mark.data
@pytest.mark.skipif("NIF_DATA" not in os.environ, reason="NIF_DATA is not set")
def test_real_planes() -> None:
    """All samples but the NaN rows, which are counted; the surface lies where distances vanish."""
    root = deepsdf.find_root(Path(os.environ["NIF_DATA"]) / "shapenet-planes-deepsdf")
    entries = deepsdf.read_split(root)
    assert len(entries) == 5
    dropped = {}
    for entry in entries:
        with np.load(entry.path(root, "SdfSamples"), allow_pickle=False) as file:
            rows = np.concatenate([file["pos"], file["neg"]])
        bad = int(np.isnan(rows).any(1).sum())
        shape = deepsdf.read(root, entry)
        assert len(shape.points) == len(rows) - bad
        assert ("NaN" in shape.report.text) == (bad > 0)
        distance = sure(shape.distance)
        assert np.isfinite(distance).all()
        dropped[entry.name] = bad
        near = KDTree(sure(shape.surface)).query(shape.points[np.abs(distance) < 1e-4])[0]
        assert np.median(near) < 0.01
    assert sum(dropped.values()) == 9
