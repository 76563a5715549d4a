"""From photographs to cameras: what is right about the cameras that are found, and what is said where there
are none. Needs pycolmap, but for the parts at the end."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import walls
from PIL import Image, ImageFilter

from nif_cli import NifError
from nif_cli.commands import prepare_photographs
from nif_cli.data.recognise import recognise
from nif_cli.data.scenes import found_cameras, photo_folder
from nif_cli.data.scenes.colmap import ColmapViews
from nif_cli.data.scenes.formats.colmap_model import Posed
from nif_cli.data.scenes.structure_from_motion import pairs_of
from nif_cli.data.scenes.transforms import TransformsViews
from nif_cli.rendering.cameras import Camera

needs_colmap = pytest.mark.skipif(importlib.util.find_spec("pycolmap") is None, reason="needs pycolmap")


def turned(path: Path) -> None:
    """A JPEG as a camera held on its side writes it: the same image for whoever heeds its EXIF."""
    image = Image.open(path).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, quality=95, exif=exif)


@needs_colmap
def test_cameras_are_where_they_were(nif: Callable, tmp_path: Path):
    """Of ten photographs, one of them turned by its EXIF, beside a damaged one and a double."""
    poses = walls.around(10)
    photos, scene = tmp_path / "photos", tmp_path / "scene"
    walls.write(photos, poses)
    turned(photos / "03.jpg")
    (photos / "10.jpg").write_bytes((photos / "00.jpg").read_bytes()[:5000])
    (photos / "11.jpg").write_bytes((photos / "01.jpg").read_bytes())
    result = nif("prepare", f"input={photos}", f"output={scene}")
    assert result.code == 0, result.err
    assert "10 of 12 photographs have cameras (1 lens)" in result.out
    assert "left out: 10.jpg: damaged" in result.out
    assert "left out: 11.jpg: the same image as 01.jpg" in result.out
    report = json.loads((scene / "report.json").read_text())
    assert report["reprojection_error_pixels"] < 1
    assert 60 < report["span_degrees"]["around"] < 100
    assert abs(report["cameras"]["1"]["fl_x"] / walls.FOCAL - 1) < 0.02
    assert Image.open(scene / "sheet.png").size[0] > 500
    check_poses(scene, poses)

    again = nif("prepare", f"input={photos}", f"output={scene}")
    assert again.code == 0
    assert "done before" in again.out
    (reading,) = recognise(scene)
    assert reading.data == "transforms"
    aside = nif("prepare", f"input={scene}", f"output={tmp_path / 'other'}")
    assert aside.code == 0
    assert "none are looked for" in aside.out
    assert not (tmp_path / "other").exists()


def check_poses(scene: Path, truth: np.ndarray) -> None:
    """By both files that were written: the same cameras, within 0.5 % of their extent and a fifth of a
    degree; up is up."""
    (views,) = TransformsViews(str(scene), hold_out=0).read()
    (model,) = ColmapViews(str(scene), hold_out=0).read()
    for one, other in zip(views.train, model.train, strict=True):
        assert one.name.endswith(other.name)
        assert (one.pose - other.pose).abs().max() < 1e-4
        assert one.camera == other.camera
    file = json.loads((scene / "transforms.json").read_text())
    which = [int(Path(frame["file_path"]).stem) for frame in file["frames"]]
    found, truth = np.array([f["transform_matrix"] for f in file["frames"]]), truth[which]
    scale, rotation, translation = walls.aligned(found[:, :3, 3], truth[:, :, 3])
    at = scale * found[:, :3, 3] @ rotation.T + translation
    extent = np.linalg.norm(np.ptp(truth[:, :, 3], axis=0))
    assert np.linalg.norm(at - truth[:, :, 3], axis=1).max() < 0.005 * extent
    apart = np.einsum("nij,nij->n", rotation @ found[:, :3, :3], truth[:, :, :3])
    assert np.degrees(np.arccos(np.clip((apart - 1) / 2, -1, 1))).max() < 0.2
    assert (rotation @ [0, 0, 1]) @ [0, 0, 1] > math.cos(math.radians(3))


@needs_colmap
@pytest.mark.parametrize(
    ("kind", "said"),
    [("turning", "no parallax"), ("unrelated", "nothing in common"), ("blurred", "too little to hold on to")],
)
def test_no_cameras_and_why(nif: Callable, tmp_path: Path, kind: str, said: str):
    photos = tmp_path / "photos"
    if kind == "turning":
        walls.write(photos, walls.turning(6))
    for k in range(5 if kind == "unrelated" else 0):
        photos.mkdir(exist_ok=True)
        Image.fromarray(walls.photograph(walls.around(5)[k], seed=k + 1)).save(photos / f"{k}.png")
    if kind == "blurred":
        walls.write(photos, walls.around(4))
        for path in photos.iterdir():
            Image.open(path).filter(ImageFilter.GaussianBlur(20)).save(path)
    result = nif("prepare", f"input={photos}", f"output={tmp_path / 'scene'}")
    assert result.code == 1
    assert said in result.error
    assert len(result.error.splitlines()) == 1


def some(folder: Path, count: int) -> Path:
    """Small photographs that differ."""
    folder.mkdir()
    for k in range(count):
        noise = np.random.default_rng(k).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k}.png")
    return folder


def test_input_that_cannot_do(nif: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Said in one line, before anything is looked for."""
    photos = some(tmp_path / "photos", 3)
    one = some(tmp_path / "one", 1)
    for k in range(9):
        (one / f"again{k}.png").write_bytes((one / "0.png").read_bytes())
    heic = tmp_path / "heic"
    heic.mkdir()
    (heic / "a.heic").write_bytes(b"no")
    out = f"output={tmp_path / 'scene'}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    cases = [
        ([f"input={one}", out], "1 photographs, at least 3 that differ are needed; 9 are left out"),
        ([f"input={heic}", out], "convert them to JPEG"),
        ([f"input={photos}", f"output={photos / 'scene'}"], "lies in the input"),
        ([f"input={photos}", out, "repair=solid"], "repair=solid: for meshes"),
        ([f"input={photos}", f"output={one}"], "not made by nif prepare"),
    ]
    for words, said in cases:
        result = nif("prepare", *words)
        assert result.code == 1, words
        assert said in result.error
        assert len(result.error.splitlines()) == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "nif-cli[photos]" in nif("prepare", f"input={photos}", out).error
    assert "nif prepare" in nif("train", str(photos)).error


def test_photographs_are_placed_upright(tmp_path: Path):
    photos = some(tmp_path / "photos", 2)
    left = np.zeros((40, 60, 3), np.uint8)
    left[:, :10] = 255
    Image.fromarray(left).save(photos / "side.jpg", quality=95)
    turned(photos / "side.jpg")
    Image.fromarray(left).save(photos / "web.webp")
    found, left_out = photo_folder.photographs_of(photos)
    assert left_out == {}
    assert {p.name: p.size for p in found} == dict.fromkeys(
        ("0.png", "1.png", "side.jpg", "web.png"), (60, 40)
    )
    photo_folder.place(found, tmp_path / "images")
    for name in ("side.jpg", "web.png"):
        with Image.open(tmp_path / "images" / name) as image:
            assert image.getexif().get(0x0112, 1) == 1
            assert abs(np.asarray(image).astype(int) - left).mean() < 10
    assert (tmp_path / "images" / "0.png").read_bytes() == (photos / "0.png").read_bytes()


def test_masks_are_given_or_the_photographs_own(tmp_path: Path):
    photos = some(tmp_path / "photos", 3)
    clear = np.zeros((40, 60, 4), np.uint8)
    clear[:20] = 255
    Image.fromarray(clear).save(photos / "2.png")
    (tmp_path / "given").mkdir()
    Image.fromarray(clear[..., 0].copy()).save(tmp_path / "given" / "0.png")
    found, _ = photo_folder.photographs_of(photos)
    photo_folder.place(found, tmp_path / "scene" / "images")
    masks, hidden = photo_folder.place_masks(found, tmp_path / "given", tmp_path / "scene")
    assert masks == {"0.png": "masks/0.png.png"}
    assert hidden is not None
    for path in (tmp_path / "scene" / masks["0.png"], hidden / "0.png.png", hidden / "2.png.png"):
        assert (np.asarray(Image.open(path)) == clear[..., 0]).all()
    assert not (hidden / "1.png.png").exists()
    with pytest.raises(NifError, match="named as a photograph"):
        photo_folder.place_masks(found, photos / "none", tmp_path / "scene")


@pytest.mark.parametrize("heights", ["level", "alternating"])
def test_up_is_found_in_a_world_that_lies_on_its_side(heights: str):
    poses = walls.around(12, (0, 300))
    if heights == "level":
        poses = poses[::3]
        poses = np.concatenate([poses, walls.around(36, (0, 350))[::3]])
    turn = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]) @ walls.around(3)[1][:, :3]
    moved = np.concatenate([turn @ poses[:, :, :3], (turn @ poses[:, :, 3:]) * 7 + 100], 2)
    scale, rotation, translation, _ = found_cameras.upright(moved)
    assert (rotation @ turn @ [0, 0, 1])[2] > math.cos(math.radians(1))
    at = scale * moved[:, :, 3] @ rotation.T + translation
    assert np.linalg.norm(at, axis=1).max() == pytest.approx(1)
    assert np.linalg.det(rotation) == pytest.approx(1)


def named(poses: np.ndarray) -> list[Posed]:
    return [Posed(f"{k:02d}.jpg", 1, pose) for k, pose in enumerate(poses)]


def test_what_to_photograph_more():
    points = {f"{k:02d}.jpg": 500 for k in range(40)}
    half = found_cameras.spanned(named(walls.around(20, (0, 90))))
    assert half["around"] == pytest.approx(90, abs=3)
    assert "from one side" in found_cameras.advice(half, points, {}, [])[0]
    gap = found_cameras.spanned(named(walls.around(30, (0, 290))))
    assert gap["gap"] == pytest.approx(70, abs=3)
    assert "gap of 70 degrees between 29.jpg and 00.jpg" in found_cameras.advice(gap, points, {}, [])[0]
    whole = found_cameras.spanned(named(walls.around(40, (0, 351))))
    assert found_cameras.advice(whole, points, {}, []) == []
    level = found_cameras.spanned(named(walls.around(120, (0, 357))[::3]))
    assert "another height" in found_cameras.advice(level, points, {}, [])[0]
    said = found_cameras.advice(whole, {**points, "07.jpg": 3}, {"x.jpg": "blurred"}, ["08.jpg"])
    assert [word in line for word, line in zip(("x.jpg", "07.jpg", "08.jpg"), said, strict=True)][1:] == [
        True
    ] * 2


def test_a_lens_survives_the_json(tmp_path: Path):
    """Also where cameras differ in size and kind."""
    cameras = {
        1: Camera(60, 40, 50, 51, 29, 21, k1=0.1, k2=-0.01, p1=0.001, p2=-0.002),
        2: Camera(40, 60, 30, 30, 20, 30, k1=0.1, k2=0.02, k3=0.003, k4=0.004, fisheye=True),
    }
    photos = some(tmp_path / "images", 4)
    Image.open(photos / "3.png").rotate(90, expand=True).save(photos / "3.png")
    posed = [Posed(f"{k}.png", 2 if k == 3 else 1, pose) for k, pose in enumerate(walls.around(4))]
    written = found_cameras.transforms(cameras, posed, 2.0, {})
    (tmp_path / "transforms.json").write_text(json.dumps(written))
    (scene,) = TransformsViews(str(tmp_path), hold_out=0).read()
    assert [view.camera for view in scene.train] == [cameras[p.camera] for p in posed]
    assert scene.bounds.tolist() == [[-2.0] * 3, [2.0] * 3]


def test_pairs():
    """All of few; of many each image has neighbours, near and far, and the ends of a walk may meet."""
    names = [f"{k:03d}" for k in range(300)]
    assert len(pairs_of(names[:50], "auto", False)) == 50 * 49 / 2
    pairs = pairs_of(names, "auto", False)
    assert len(pairs) < 5000
    assert len(pairs) == len(set(pairs))
    assert {("000", "001"), ("000", "128"), ("000", "290")} <= set(pairs)
    assert len(pairs_of(names[:100], "auto", True)) < len(pairs_of(names[:100], "exhaustive", True))


def test_keys_of_the_other_kind(tmp_path: Path):
    config = prepare_photographs.Prepare(input=str(tmp_path), output="x", frames=10)
    with pytest.raises(NifError, match="frames=10: for photographs and videos"):
        prepare_photographs.are_photographs(config)
