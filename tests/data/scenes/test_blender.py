"""The synthetic scenes of NeRF."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nif_cli import NifError
from nif_cli.data.scenes.blender import BlenderViews


@pytest.fixture
def root(tmp_path, poses, images, angle):
    """Eight training views (one without an image), two test views with depths and normals lying about."""
    folder = tmp_path / "lego"
    images(folder / "train", [f"r_{k}.png" for k in range(7)], 4)
    images(folder / "test", ["r_0.png", "r_1.png", "r_0_depth_0001.png", "r_0_normal_0001.png"], 4)
    for split, part in (("train", poses[:8]), ("test", poses[8:]), ("val", [])):
        frames = [
            {
                "file_path": f"./{split}/r_{k}",
                "rotation": 0.03,
                "transform_matrix": [*p.tolist(), [0, 0, 0, 1]],
            }
            for k, p in enumerate(part)
        ]
        (folder / f"transforms_{split}.json").write_text(
            json.dumps({"camera_angle_x": angle, "frames": frames})
        )
    return folder


def test_poses_lens_and_images(root, poses):
    (scene,) = BlenderViews(str(root)).prepare()
    assert scene.id == "lego"
    assert [v.name for v in scene.train] == [f"train/r_{k}" for k in range(7)]
    assert [v.name for v in scene.test] == ["test/r_0", "test/r_1"]
    assert "1 frames without an image" in scene.report.text
    view = scene.train[3]
    assert view.camera.fx == pytest.approx(25)
    assert (view.camera.cx, view.camera.cy) == (10, 5)
    assert torch.allclose(view.pose[:, :3].double(), torch.from_numpy(poses[3][:, :3]), atol=1e-6)
    assert np.allclose(scene.transform.to_original(view.pose[:, 3].numpy()), poses[3][:, 3], atol=1e-5)
    assert view.pixels.shape == (10, 20, 4)
    assert int(view.pixels[0, 0, 0]) == 3
    assert (scene.near * 1.5, scene.far * 1.5) == pytest.approx((2, 6))
    assert scene.background == "white"
    assert scene.protocol == "blender"


def test_half_the_size_is_the_average_of_what_shows(root):
    """A transparent pixel's colour does not count."""
    rgba = np.zeros((10, 20, 4), np.uint8)
    rgba[:, ::2] = (200, 100, 50, 255)
    rgba[:, 1::2] = (0, 255, 0, 0)
    Image.fromarray(rgba).save(root / "train" / "r_0.png")
    (scene,) = BlenderViews(str(root), downscale=2).prepare()
    view = scene.train[0]
    assert (view.camera.width, view.camera.height, view.camera.fx) == (10, 5, pytest.approx(12.5))
    assert view.pixels.reshape(-1, 4).float().mean(0).tolist() == pytest.approx([200, 100, 50, 128], abs=1.5)


def test_every_other_test_view(root):
    (scene,) = BlenderViews(str(root), test_skip=2).prepare()
    assert [v.name for v in scene.test] == ["test/r_0"]


def test_a_scene_outside_its_box_is_said_with_the_box_that_would_hold_it(root):
    """The images are opaque to their borders: no box within the cameras' distance holds that, and it is
    said."""
    (scene,) = BlenderViews(str(root), half=0.2).prepare()
    assert "not all of it lies in the box" in scene.report.text


def test_several_scenes(root, tmp_path):
    other = tmp_path / "other"
    root.rename(other)
    os.symlink(other, root)
    scenes = BlenderViews([str(other), str(root) + "/../other/../other"][:1]).prepare()
    assert [s.id for s in scenes] == ["other"]
    with pytest.raises(NifError, match="two scenes are called 'other'"):
        BlenderViews([str(other), str(other)]).prepare()


def spoil(root: Path, **changes) -> None:
    path = root / "transforms_train.json"
    file = json.loads(path.read_text())
    for key, value in changes.items():
        if key == "matrix":
            file["frames"][2]["transform_matrix"] = value
        elif value is None:
            del file[key]
        else:
            file[key] = value
    path.write_text(json.dumps(file))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": None}, "no 'frames'"),
        ({"frames": []}, "'frames' is empty"),
        (
            {"frames": [{"file_path": "nowhere", "transform_matrix": np.eye(4).tolist()}]},
            r"none of its 1 images.*nowhere",
        ),
        ({"camera_angle_x": None}, "no focal length"),
        ({"camera_angle_x": "wide"}, "'camera_angle_x' is 'wide'"),
        ({"camera_angle_x": -1.0}, "focal length of -"),
        ({"matrix": np.diag([1.0, 1, 0, 1]).tolist()}, "r_2: its pose is singular"),
        ({"matrix": np.diag([3.0, 3, 3, 1]).tolist()}, "r_2: its pose scales"),
        ({"matrix": None}, "r_2: its pose has shape"),
    ],
)
def test_files_that_are_wrong_are_refused_by_name(root, changes, says):
    spoil(root, **changes)
    with pytest.raises(NifError, match=f"transforms_train.json.*{says}"):
        BlenderViews(str(root)).prepare()


def test_images_that_are_wrong_are_refused_by_name(root):
    (root / "train" / "r_1.png").write_bytes(b"no image")
    with pytest.raises(NifError, match=r"r_1\.png: cannot be read"):
        BlenderViews(str(root)).prepare()
    Image.fromarray(np.zeros((10, 20), np.float32)).save(root / "train" / "r_1.tiff")
    (root / "train" / "r_1.png").unlink()
    with pytest.raises(NifError, match=r"r_1\.tiff: .*floating-point"):
        BlenderViews(str(root)).prepare()


def test_sixteen_bits_become_eight(root):
    (root / "train" / "r_0.png").unlink()
    Image.fromarray(np.full((10, 20), 257 * 77, np.uint16)).save(root / "train" / "r_0.png")
    (scene,) = BlenderViews(str(root)).prepare()
    assert (scene.train[0].pixels == 77).all()


def test_a_folder_that_is_not_there_or_of_another_format(root, tmp_path):
    with pytest.raises(NifError, match=r"data\.root=.*nowhere: no such folder"):
        BlenderViews(str(tmp_path / "nowhere")).prepare()
    (root / "transforms_train.json").rename(root / "transforms.json")
    with pytest.raises(NifError, match="data=transforms reads"):
        BlenderViews(str(root)).prepare()


@pytest.mark.parametrize(
    "wrong", [{"near": 6.0, "far": 2.0}, {"half": 0.0}, {"downscale": 0}, {"test_skip": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BlenderViews("x", **wrong)


def test_a_test_view_is_never_trained_on(root):
    file = json.loads((root / "transforms_train.json").read_text())
    both = {**file, "frames": file["frames"][:3]}
    (root / "transforms_test.json").write_text(json.dumps(both))
    (scene,) = BlenderViews(str(root)).prepare()
    assert [v.name for v in scene.test] == [f"train/r_{k}" for k in range(3)]
    assert [v.name for v in scene.train] == [f"train/r_{k}" for k in range(3, 7)]
    assert "3 views that are test views too are not trained on" in scene.report.text
    (root / "transforms_test.json").write_text(json.dumps(file))
    (scene,) = BlenderViews(str(root)).prepare()
    assert (len(scene.train), len(scene.test)) == (7, 0)
    assert "none is held out" in scene.report.text


@pytest.mark.data
def test_lego_lies_in_its_box():
    data = os.environ.get("NIF_DATA")
    if not data or not (Path(data) / "nerf" / "lego-400").is_dir():
        pytest.skip("NIF_DATA has no nerf/lego-400")
    root = str(Path(data).resolve() / "nerf" / "lego-400")
    (scene,) = BlenderViews(root).prepare()
    assert (len(scene.train), len(scene.test)) == (100, 25)
    assert "not all" not in scene.report.text
    assert "one 1.1" in BlenderViews(root, half=1.0).prepare()[0].report.text  # the baseplate reaches to 1.14
