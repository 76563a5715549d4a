"""The tree of occupancy networks: round trip, what the published loader relies on, bad files."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from narrowing import sure
from PIL import Image
from scipy import ndimage

from nif_cli import NifError
from nif_cli.data.shapes.formats import onet
from nif_cli.data.shapes.formats.onet import OnetEntry, OnetTree
from nif_cli.data.shapes.samples import ImageFiles
from nif_cli.geometry.transform import Transform

ENTRY = OnetEntry("ball", "one")
PLACE = Transform((1.0, -2.0, 0.5), 2.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.55, 0.55, (1003, 3)).astype(np.float16)
    inside = np.linalg.norm(points.astype(np.float64), axis=1) < 0.4
    normals = rng.normal(size=(200, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    onet.write_occupancy_samples(tmp_path, ENTRY, PLACE, points, inside, 0.4 * normals, normals)
    onet.write_split_lists(tmp_path, {"train": [ENTRY], "val": []})
    return tmp_path


def test_round_trip(tree: Path) -> None:
    data = OnetTree(tree)
    assert data.entries(split="train") == [ENTRY]
    shape = data.read(ENTRY)
    assert shape.id == "ball/one"
    assert shape.transform == PLACE
    assert shape.distance is None
    radius = np.linalg.norm(shape.points, axis=1)
    clear = np.abs(radius - 0.4) > 1e-3  # the jitter of 1e-4 moves points that lie nearer
    assert (shape.inside == (radius < 0.4))[clear].all()
    assert np.allclose(np.linalg.norm(sure(shape.surface), axis=1), 0.4, atol=1e-3)
    assert shape.points.dtype == np.float32
    assert (shape.points != data.read(ENTRY).points).sum() == 0  # jittered alike each time


def test_files_are_as_published(tree: Path) -> None:
    with np.load(tree / "ball/one/points.npz", allow_pickle=False) as file:
        assert file["points"].dtype == np.float16
        inside = np.unpackbits(file["occupancies"])[: len(file["points"])]
        assert (inside == (np.linalg.norm(file["points"].astype(np.float64), axis=1) < 0.4)).all()
        assert np.allclose(file["loc"], [-1, 2, -0.5])
        assert file["scale"] == 0.5
    assert (tree / "ball/train.lst").read_text() == "one"
    assert not (tree / "ball/val.lst").exists()
    assert yaml.safe_load((tree / "metadata.yaml").read_text()) == {"ball": {"id": "ball", "name": "ball"}}


def test_observation_is_aligned(tree: Path) -> None:
    """The same point in the user's units, whichever normalised space it is asked in."""
    other = Transform((0.3, 0.1, -0.2), 0.7)
    seen = sure(OnetTree(tree).known("anything/one", other).scan)
    own = sure(sure(OnetTree(tree).read(ENTRY).known).scan)
    assert np.allclose(other.to_original(seen.points), PLACE.to_original(own.points), atol=1e-6)
    with pytest.raises(NifError, match=r"no pointcloud\.npz of 'ball/two'"):
        OnetTree(tree).known("ball/two", other)


def test_missing_shapes_are_listed_at_once(tree: Path) -> None:
    (tree / "ball/train.lst").write_text("one\n\ntwo\nthree\n")
    with pytest.raises(
        NifError, match="2 of the 3 shapes of split=train are not there: ball/two, ball/three"
    ):
        OnetTree(tree).entries(split="train")
    with pytest.raises(NifError, match=r"test\.lst: no such split; there are train"):
        OnetTree(tree).entries(split="test")
    with pytest.raises(NifError, match="no 'cube'"):
        OnetTree(tree).entries(["cube"])


def test_bad_points(tree: Path) -> None:
    path = tree / "ball/one/points.npz"
    with np.load(path, allow_pickle=False) as file:
        good = dict(file)
    wrong = [
        (dict(points=good["points"][:, :2]), r"'points' has shape \[1003, 2\]"),
        (dict(points=np.full_like(good["points"], np.nan)), "1,003 rows with NaN"),
        (dict(occupancies=good["occupancies"][:-1]), "must be 126 packed bytes"),
        (dict(occupancies=good["occupancies"].astype(float)), "must be 126 packed bytes"),
        (dict(scale=np.array(-1.0)), "must be positive"),
        (dict(loc=np.zeros(2)), r"'loc' has shape \[2\]"),
    ]
    for change, message in wrong:
        np.savez(path, **{**good, **change})
        with pytest.raises(NifError, match=message):
            OnetTree(tree).read(ENTRY)
    np.savez(path, points=good["points"])
    with pytest.raises(NifError, match="it has no 'occupancies'"):
        OnetTree(tree).read(ENTRY)


def test_no_tree(tmp_path: Path) -> None:
    with pytest.raises(NifError, match="no tree of occupancy networks"):
        OnetTree(tmp_path)


@pytest.mark.data
@pytest.mark.skipif("NIF_DATA" not in os.environ, reason="NIF_DATA is not set")
def test_real_benches() -> None:
    """Point clouds and 24 images with cameras: projected points land on what is not white."""
    tree = OnetTree(Path(os.environ["NIF_DATA"]) / "shapenet-benches-onet")
    entries = tree.entries(split=None)
    assert len(entries) == 12
    for entry in entries:
        shape = tree.read(entry)
        assert "no points.npz" in shape.report.text
        scan, images = sure(sure(shape.known).scan), sure(shape.known).images
        assert isinstance(images, ImageFiles)
        worlds, cameras = sure(images.world), sure(images.camera)
        assert len(scan.points) == 100_000
        assert len(images.paths) == 24 == len(worlds) == len(cameras)
        homogeneous = np.column_stack((scan.points[:2000], np.ones(2000)))
        for i, (world, camera) in enumerate(zip(worlds, cameras, strict=True)):
            pixel = homogeneous @ world.T @ camera.T
            x, y = (pixel[:, :2] / pixel[:, 2:]).round().astype(int).T
            drawn = ndimage.binary_dilation(
                np.asarray(Image.open(images.paths[i]).convert("L")) < 250, iterations=2
            )
            assert drawn[y.clip(0, 136), x.clip(0, 136)].mean() > 0.8  # some boards are white
