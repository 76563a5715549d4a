"""transforms.json of instant-ngp and nerfstudio."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nif_cli import NifError
from nif_cli.data.formats.transforms import TransformsViews

NAMES = [f"{k:04d}.jpg" for k in range(10)]


@pytest.fixture
def make(tmp_path, poses, pictures):
    """`make(file keys, frame keys)`: a folder of ten frames, the pictures of the first nine there."""

    def made(frame=None, **keys):
        root = tmp_path / "fox"
        pictures(root / "images", NAMES[:9])
        frames = [
            {"file_path": f"images/{name}", "transform_matrix": [*p.tolist(), [0, 0, 0, 1]], **(frame or {})}
            for name, p in zip(NAMES, poses, strict=True)
        ]
        (root / "transforms.json").write_text(json.dumps({"frames": frames, **keys}))
        return root

    return made


def test_instant_ngps_space(make, poses):
    """Its unit cube is [-1, 1]^3: 2 (p scale + offset - 1/2)."""
    root = make(fl_x=25.0, aabb_scale=4, scale=0.5, offset=[0.5, 0.6, 0.4])
    (scene,) = TransformsViews(str(root), hold_out=0).prepare()
    expected = 2 * (poses[2][:, 3] * 0.5 + [0.5, 0.6, 0.4] - 0.5)
    assert np.allclose(scene.train[2].pose[:, 3].numpy(), expected, atol=1e-5)
    assert scene.bounds.tolist() == [[-4] * 3, [4] * 3]
    assert "1 of 10 frames without a picture" in scene.report
    (plain,) = TransformsViews(str(make(fl_x=25.0))).prepare()
    assert plain.transform.scale == pytest.approx(0.66)
    assert plain.bounds[1, 0] == 1


def test_nerfstudios_space(make, poses):
    """What the cameras look at is the centre, the farthest camera at distance 1."""
    root = make(fl_x=25.0, camera_model="OPENCV")
    (scene,) = TransformsViews(str(root), hold_out=0).prepare()
    assert max(float(v.pose[:, 3].norm()) for v in scene.train) == pytest.approx(1, abs=1e-5)
    assert np.allclose(scene.transform.to_original(scene.train[4].pose[:, 3].numpy()), poses[4][:, 3], atol=1e-5)


def test_the_lens_by_any_name(make):
    for keys in (
        {"fl_x": 25.0, "fl_y": 25.0},
        {"camera_angle_x": 2 * math.atan(10 / 25)},
        {"x_fov": math.degrees(2 * math.atan(10 / 25))},
        {"camera_angle_y": 2 * math.atan(5 / 25)},
    ):
        (scene,) = TransformsViews(str(make(**keys))).prepare()
        assert scene.train[0].camera.fx == pytest.approx(25)
        assert scene.train[0].camera.fy == pytest.approx(25)
    keys = {"fl_x": 25.0, "cx": 9.0, "cy": 6.0, "k1": 0.1, "k2": 0.2, "p1": 0.01, "p2": 0.02}
    camera = TransformsViews(str(make(keys, w=20.0, h=10.0))).prepare()[0].train[0].camera  # of each frame
    assert (camera.cx, camera.cy, camera.k1, camera.k2, camera.p1, camera.p2) == (9.0, 6.0, 0.1, 0.2, 0.01, 0.02)
    assert TransformsViews(str(make(fl_x=9.0, is_fisheye=True, k4=0.1))).prepare()[0].train[0].camera.fisheye


def test_smaller_prints_scale_the_lens(make, pictures):
    """The file speaks of 40 x 20 pixels, the pictures have 20 x 10; images_2 is found for downscale=4."""
    root = make(fl_x=50.0, w=40, h=20)
    camera = TransformsViews(str(root)).prepare()[0].train[0].camera
    assert (camera.width, camera.fx, camera.cx) == (20, 25.0, 10.0)
    pictures(root / "images_4", NAMES[:9], size=(10, 5))
    view = TransformsViews(str(root), downscale=4).prepare()[0].train[0]
    assert (view.camera.width, view.camera.fx) == (10, 12.5)
    assert view.pixels.shape == (5, 10, 3)


def test_masks_in_both_senses(make):
    """nerfstudio: black is ignored; instant-ngp: what is not black is ignored."""
    left = np.zeros((10, 20), np.uint8)
    left[:, :5] = 255
    root = make(fl_x=25.0)
    Image.fromarray(left).save(root / "mask.png")
    Image.fromarray(left).save(root / "images" / "dynamic_mask_0001.png")
    file = json.loads((root / "transforms.json").read_text())
    file["frames"][2]["mask_path"] = "mask.png"
    (root / "transforms.json").write_text(json.dumps(file))
    views = {v.name: v for v in TransformsViews(str(root), hold_out=0).prepare()[0].train}
    assert torch.equal(views["images/0002"].valid, torch.from_numpy(left > 0))
    assert torch.equal(views["images/0001"].valid, torch.from_numpy(left == 0))
    assert views["images/0000"].valid is None


def test_held_out_views(make):
    (scene,) = TransformsViews(str(make(fl_x=25.0)), hold_out=4).prepare()
    assert [v.name for v in scene.test] == ["images/0000", "images/0004", "images/0008"]
    root = make(fl_x=25.0, train_filenames=["images/0001.jpg", "images/0002.jpg"], val_filenames=["images/0005.jpg"])
    (scene,) = TransformsViews(str(root)).prepare()
    assert [v.name for v in scene.train] == ["images/0001", "images/0002"]
    assert [v.name for v in scene.test] == ["images/0005"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"fl_x": float("nan")}, "'fl_x' is nan"),
        ({"fl_x": 25.0, "w": 30, "h": 30}, r"0000\.jpg: 20 x 10 pixels, but its camera has 30 x 30"),
        ({"fl_x": 25.0, "camera_model": "EQUIRECTANGULAR"}, "camera_model=EQUIRECTANGULAR: there are OPENCV"),
        ({"fl_x": 25.0, "scale": 0}, "a positive number"),
        ({"fl_x": 25.0, "aabb_scale": "large"}, "'aabb_scale' is 'large'"),
        ({}, "no focal length"),
    ],
)
def test_files_that_are_wrong_are_refused_by_name(make, keys, says):
    with pytest.raises(NifError, match=says):
        TransformsViews(str(make(**keys))).prepare()


def test_what_is_no_json(make):
    root = make(fl_x=25.0)
    (root / "transforms.json").write_text("{ frames")
    with pytest.raises(NifError, match=r"transforms\.json: not JSON"):
        TransformsViews(str(root)).prepare()
    (root / "transforms.json").write_text("[" * 100_000)
    with pytest.raises(NifError, match=r"transforms\.json: not JSON"):
        TransformsViews(str(root)).prepare()
    (root / "transforms.json").write_text("[1]")
    with pytest.raises(NifError, match="it holds a list"):
        TransformsViews(str(root)).prepare()


@pytest.mark.data
def test_the_fox():
    data = os.environ.get("NIF_DATA")
    if not data or not (Path(data) / "nerf" / "fox").is_dir():
        pytest.skip("NIF_DATA has no nerf/fox")
    (scene,) = TransformsViews(str(Path(data).resolve() / "nerf" / "fox"), downscale=2).prepare()
    assert (len(scene.train), len(scene.test)) == (43, 7)
    assert "17 of 67 frames without a picture" in scene.report
    camera = scene.train[0].camera
    assert (camera.width, camera.height) == (540, 960)
    assert camera.fx == pytest.approx(1375.52 / 2)
    assert camera.k1 == pytest.approx(0.0578421)
    assert scene.background is None
