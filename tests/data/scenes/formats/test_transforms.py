"""transforms.json of instant-ngp and nerfstudio."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from narrowing import sure
from PIL import Image

from nif_cli import NifError
from nif_cli.data.scenes.transforms import TransformsViews

NAMES = [f"{k:04d}.jpg" for k in range(10)]


@pytest.fixture
def make(tmp_path, poses, images):
    """`make(file keys, frame keys)`: a folder of ten frames, the images of the first nine there."""

    def made(frame=None, **keys):
        root = tmp_path / "fox"
        images(root / "images", NAMES[:9])
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
    assert "1 of 10 frames without an image" in scene.report.text
    (plain,) = TransformsViews(str(make(fl_x=25.0))).prepare()
    assert plain.transform.scale == pytest.approx(0.66)
    assert plain.bounds[1, 0] == 1


def test_nerfstudios_space(make, poses):
    """What the cameras look at is the centre, the farthest camera at distance 1."""
    root = make(fl_x=25.0, camera_model="OPENCV")
    (scene,) = TransformsViews(str(root), hold_out=0).prepare()
    assert max(float(v.pose[:, 3].norm()) for v in scene.train) == pytest.approx(1, abs=1e-5)
    assert np.allclose(
        scene.transform.to_original(scene.train[4].pose[:, 3].numpy()), poses[4][:, 3], atol=1e-5
    )


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
    assert (camera.cx, camera.cy, camera.k1, camera.k2, camera.p1, camera.p2) == (
        9.0,
        6.0,
        0.1,
        0.2,
        0.01,
        0.02,
    )
    assert TransformsViews(str(make(fl_x=9.0, is_fisheye=True, k4=0.1))).prepare()[0].train[0].camera.fisheye


def test_smaller_prints_scale_the_lens(make, images):
    """The file speaks of 40 x 20 pixels, the images have 20 x 10; images_2 is found for downscale=4."""
    root = make(fl_x=50.0, w=40, h=20)
    camera = TransformsViews(str(root)).prepare()[0].train[0].camera
    assert (camera.width, camera.fx, camera.cx) == (20, 25.0, 10.0)
    images(root / "images_4", NAMES[:9], size=(10, 5))
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
    assert torch.equal(sure(views["images/0002"].valid), torch.from_numpy(left > 0))
    assert torch.equal(sure(views["images/0001"].valid), torch.from_numpy(left == 0))
    assert views["images/0000"].valid is None


def test_held_out_views(make):
    (scene,) = TransformsViews(str(make(fl_x=25.0)), hold_out=4).prepare()
    assert [v.name for v in scene.test] == ["images/0000", "images/0004", "images/0008"]
    root = make(
        fl_x=25.0, train_filenames=["images/0001.jpg", "images/0002.jpg"], val_filenames=["images/0005.jpg"]
    )
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
    assert "17 of 67 frames without an image" in scene.report.text
    camera = scene.train[0].camera
    assert (camera.width, camera.height) == (540, 960)
    assert camera.fx == pytest.approx(1375.52 / 2)
    assert camera.k1 == pytest.approx(0.0578421)
    assert scene.background is None


# files as people have them


def edit(root, change):
    path = root / "transforms.json"
    file = json.loads(path.read_text())
    change(file)
    path.write_text(json.dumps(file))
    return str(root)


def read(root, **keys):
    return TransformsViews(str(root), **{"hold_out": 0, **keys}).prepare()[0]


@pytest.mark.parametrize(
    "own",
    [{"fl_x": 40.0}, {"camera_angle_x": 2 * math.atan(0.25)}, {"x_fov": math.degrees(2 * math.atan(0.25))}],
)
@pytest.mark.parametrize(
    "common", [{"fl_x": 25.0, "fl_y": 25.0}, {"camera_angle_x": 0.8, "camera_angle_y": 0.5}, {"x_fov": 50.0}]
)
def test_a_frames_own_lens_goes_before_the_files_whatever_the_key(make, own, common):
    root = make(k1=0.1, k2=0.2, **common)
    edit(root, lambda file: file["frames"][3].update(own, k1=0.05))
    views = {v.name: v.camera for v in read(root).train}
    camera = views["images/0003"]
    assert (camera.fx, camera.fy, camera.k1, camera.k2) == pytest.approx((40, 40, 0.05, 0.2))
    assert views["images/0002"].fx != pytest.approx(40)
    assert views["images/0002"].k1 == 0.1


def test_lenses_without_a_size_speak_of_larger_prints(make):
    """cx and cy are about the middle of 40 x 20 pixels, the images have 20 x 10."""
    scene = read(make(fl_x=50.0, cx=20.6, cy=9.8))
    camera = scene.train[0].camera
    assert (camera.width, camera.fx, camera.cx, camera.cy) == pytest.approx((20, 25, 10.3, 4.9))
    assert "9 taken for smaller or larger prints by cx and cy" in scene.report.text
    # off the middle, but of these images
    assert read(make(fl_x=50.0, cx=10.9, cy=4.2)).train[0].camera.fx == 50
    with pytest.raises(NifError, match=r"cx=19, cy=4 cannot be of images of 20 x 10 pixels: give w and h"):
        read(make(fl_x=50.0, cx=19.0, cy=4.0))


def test_a_frames_own_size_scales_the_files_pixels(make):
    root = make(fl_x=50.0, cx=21.0, cy=9.0, w=40, h=20)
    edit(root, lambda file: file["frames"][3].update(w=20, h=10))
    first, own = (v.camera for v in read(root).train[2:4])
    assert (own.fx, own.cx, own.cy) == pytest.approx((25, 10.5, 4.5))
    assert (first.fx, first.cx, first.cy) == pytest.approx((25, 10.5, 4.5))  # resized with its image


@pytest.mark.parametrize(
    ("lists", "train", "test", "said"),
    [
        ({"train": range(4)}, range(4), range(4, 9), ""),
        ({"test": range(3)}, range(3, 9), range(3), ""),
        ({"val": range(3)}, range(3, 9), range(3), ""),
        (
            {"train": range(6), "test": range(4, 9)},
            range(4),
            range(4, 9),
            "2 views named for training and for testing",
        ),
        (
            {"train": range(3), "test": range(3, 5)},
            range(3),
            range(3, 5),
            "4 views are named in no list and left out",
        ),
        (
            {"train": range(9), "val": [7], "test": [8]},
            range(7),
            [8],
            "2 views named for training and for testing",
        ),
    ],
)
def test_lists_are_obeyed_and_completed_and_no_test_view_is_trained_on(make, lists, train, test, said):
    names = {f"{part}_filenames": [f"images/{k:04d}.jpg" for k in listed] for part, listed in lists.items()}
    scene = read(make(fl_x=25.0, **names), hold_out=8)
    assert [v.name for v in scene.train] == [f"images/{k:04d}" for k in train]
    assert [v.name for v in scene.test] == [f"images/{k:04d}" for k in test]
    assert said in scene.report.text


def test_lists_that_name_other_images(make):
    moved = [f"images_2/{k:04d}.jpg" for k in range(5)]
    scene = read(make(fl_x=25.0, train_filenames=moved))
    assert len(scene.train) == 5
    assert (
        "5 of 'train_filenames' found by the file's name alone (images_2/0000 as images/0000"
        in scene.report.text
    )
    for wrong, says in (
        (["x.jpg", *moved], r"names 1 images that no frame has \(the first: x\)"),
        ("all", "must be a list"),
        ([3], "text"),
    ):
        with pytest.raises(NifError, match=f"train_filenames.*{says}"):
            read(make(fl_x=25.0, train_filenames=wrong))
    with pytest.raises(NifError, match="leave no image to train on"):
        read(make(fl_x=25.0, test_filenames=[f"images/{n}" for n in NAMES]))


@pytest.mark.parametrize(
    "write",
    [
        lambda n: n.replace("/", "\\"),
        lambda n: f"C:\\data\\{n}",
        lambda n: f"/home/x/fox/{n}",
        lambda n: n[:-4],
    ],
)
def test_names_of_other_systems(make, write):
    plain = read(make(fl_x=25.0))
    root = make(fl_x=25.0)
    edit(root, lambda file: [f.update(file_path=write(f["file_path"])) for f in file["frames"]])
    scene = read(root)
    assert len(scene.train) == 9
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(scene.train, plain.train, strict=True))


def test_images_beside_the_file_and_in_this_folder(make, monkeypatch):
    root = make(fl_x=25.0)
    for path in (root / "images").iterdir():
        path.rename(root / path.name)
    edit(root, lambda file: [f.update(file_path=f["file_path"].split("/")[-1]) for f in file["frames"]])
    monkeypatch.chdir(root)
    assert len(read(".", downscale=2).train) == 9


def test_images_outside_are_said(make):
    root = make(fl_x=25.0)
    (root / "images" / "0000.jpg").rename(root.parent / "secret.jpg")
    edit(root, lambda file: file["frames"][0].update(file_path="../secret.jpg"))
    assert "1 of them outside of its folder (the first: " in read(root).report.text
    (root.parent / "secret.txt").write_text("nothing to see")
    edit(root, lambda file: file["frames"][0].update(file_path="../secret.txt"))
    with pytest.raises(NifError, match=r"secret\.txt: cannot be read as an image"):
        read(root)


def test_opaque_alpha_is_none(make):
    """Only what is transparent anywhere has a background."""
    root = make(fl_x=25.0)
    rgb = np.full((10, 20, 4), 255, np.uint8)
    for name in NAMES[:9]:
        Image.fromarray(rgb).save(root / "images" / f"{name[:-4]}.png")
        (root / "images" / name).unlink()
    edit(root, lambda file: [f.update(file_path=f["file_path"][:-4]) for f in file["frames"]])
    scene = read(root)
    assert scene.background is None
    assert scene.train[0].pixels.shape == (10, 20, 3)
    rgb[3, 4, 3] = 0
    Image.fromarray(rgb).save(root / "images" / "0005.png")
    scene = read(root)
    assert scene.background == "white"
    assert [v.pixels.shape[2] for v in scene.train] == [3] * 5 + [4] + [3] * 3


def test_masks_by_alpha_and_masks_that_hide_nothing(make):
    root = make({"mask_path": "mask.png"}, fl_x=25.0)
    left = np.full((10, 20, 4), 255, np.uint8)
    left[:, 5:, 3] = 0
    Image.fromarray(left).save(root / "mask.png")
    view = read(root).train[0]
    assert torch.equal(sure(view.valid), torch.from_numpy(left[..., 3] > 0))
    Image.fromarray(left[..., 0]).save(root / "mask.png")
    assert "9 of 9 masks hide nothing (the first: images/0000)" in read(root).report.text
    Image.fromarray(left[:5, :, 0]).save(root / "mask.png")
    with pytest.raises(NifError, match=r"mask\.png: a mask of 20 x 5 pixels for an image of 20 x 10"):
        read(root)
    (root / "mask.png").unlink()
    with pytest.raises(NifError, match=r"no such mask: .*mask\.png"):
        read(root)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"fl_x": 1e300}, "'fl_x' is 1e"),
        ({"fl_x": 1e11}, "focal length of 1e"),
        ({"fl_x": 10**400}, "'fl_x' is 1000"),
        ({"fl_x": [1]}, r"'fl_x' is \[1\]"),
        ({"fl_x": True}, "'fl_x' is True"),
        ({"camera_angle_x": 47}, "'camera_angle_x' is 47"),
        ({"fl_x": 25.0, "w": 1e9, "h": 1}, "'w' is"),
        ({"fl_x": 25.0, "k1": "bent"}, "'k1' is 'bent'"),
        ({"fl_x": 25.0, "camera_model": ["x"]}, "camera_model="),
        ({"fl_x": 25.0, "is_fisheye": "no"}, "'is_fisheye' is 'no'"),
        ({"fl_x": 25.0, "offset": ["a", 1, 2]}, "'offset'"),
        ({"fl_x": 25.0, "aabb_scale": -4}, "'aabb_scale' is -4"),
        ({"fl_x": 25.0, "frames": [{"file_path": "x" * 5000}]}, "text of 5,000 characters"),
        ({"fl_x": 25.0, "frames": [{"file_path": "a\0b"}]}, "must be text"),
        (
            {"fl_x": 25.0, "frames": [{"file_path": "a", "transform_matrix": [[10**400] * 4] * 4}]},
            "its pose has",
        ),
        (
            {"fl_x": 25.0, "frames": [{"file_path": "a", "transform_matrix": [["1"] * 4] * 4}]},
            "its pose has shape",
        ),
        (
            {
                "fl_x": 25.0,
                "frames": [{"file_path": "a", "transform_matrix": [*np.eye(4)[:3].tolist(), [1, 2, 3, 1]]}],
            },
            "last row",
        ),
    ],
)
def test_values_of_strangers(make, keys, says):
    with pytest.raises(NifError, match=f"transforms.json.*{says}"):
        read(make(**keys))
