"""LLFF's poses_bounds.npy."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nif_cli import NifError
from nif_cli.data.scenes.formats.llff import read_poses_bounds
from nif_cli.data.scenes.llff import LlffViews
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.cameras import project

NAMES = [f"image{k:03d}.png" for k in range(10)]


def forward():
    """Ten cameras that look down -z from places around (1, 2, 3)."""
    made = np.concatenate([np.broadcast_to(np.eye(3), (10, 3, 3)), np.zeros((10, 3, 1))], 2)
    made[:, :, 3] = [1, 2, 3] + 0.3 * np.random.default_rng(0).standard_normal((10, 3))
    return made


def table(poses, hwf=(100.0, 200.0, 250.0), bounds=(4.0, 20.0)):
    """As LLFF writes it: columns down, right, back."""
    turned = np.stack((-poses[:, :, 1], poses[:, :, 0], poses[:, :, 2], poses[:, :, 3]), 2)
    with_hwf = np.concatenate([turned, np.broadcast_to(np.array(hwf)[:, None], (len(poses), 3, 1))], 2)
    return np.concatenate([with_hwf.reshape(len(poses), 15), np.broadcast_to(bounds, (len(poses), 2))], 1)


@pytest.fixture
def root(tmp_path, images):
    folder = tmp_path / "fern"
    images(folder / "images_8", NAMES)
    np.save(folder / "poses_bounds.npy", table(forward()))
    return folder


def test_poses_are_turned_to_opengl_axes(root):
    poses, sizes, bounds = read_poses_bounds(root / "poses_bounds.npy")
    assert np.allclose(poses, forward())
    assert sizes[0].tolist() == [100, 200, 250]
    assert bounds[0].tolist() == [4, 20]


def test_a_forward_facing_scene_is_in_ndc(root):
    """The near plane lies at 3/4 of the nearest bound; what the mean camera sees fills the cube; every 8th
    view is held out."""
    (scene,) = LlffViews(str(root)).prepare()
    assert scene.ndc is not None
    assert (scene.near, scene.far) == (0, 1)
    assert [v.name for v in scene.test] == ["image000", "image008"]
    assert scene.transform.scale == pytest.approx(1 / (0.75 * 4))
    camera = scene.train[0].camera
    assert (camera.width, camera.height, camera.fx) == (20, 10, pytest.approx(25))
    assert scene.ndc.slope == pytest.approx((0.4, 0.2))
    assert torch.allclose(scene.ndc.frame[:, :3], torch.eye(3), atol=1e-6)
    low, high = scene.bounds
    assert (low <= -1).all()
    assert (high >= 1).all()
    assert (low[2], high[2]) == (-1, 1)
    rays = scene.rays(scene.train[3])
    assert torch.allclose(rays.origins[:, 2], torch.full((200,), -1.0), atol=1e-5)
    end = rays.origins + rays.directions
    assert ((end >= low - 1e-4) & (end <= high + 1e-4)).all()


def test_a_scene_from_all_around_is_not(tmp_path, images):
    poses = turntable(10, 20.0, "z", 5.0).double().numpy()
    poses[:, :, 3] += [10, 0, 0]
    folder = tmp_path / "around"
    images(folder / "images", NAMES)
    np.save(folder / "poses_bounds.npy", table(poses))
    (scene,) = LlffViews(str(folder)).prepare()
    assert scene.ndc is None
    assert scene.transform.offset == pytest.approx((-10, 0, 0), abs=1e-3)
    assert (scene.near, scene.far) == pytest.approx((0.9 * 4 / 5, 20 / 5), rel=1e-3)
    with pytest.raises(NifError, match=r"data\.ndc=true: some cameras look sideways"):
        LlffViews(str(folder), ndc=True).prepare()


def test_which_images(root, images):
    with pytest.raises(NifError, match=r"data\.downscale=3: there is images_8"):
        LlffViews(str(root), downscale=3).prepare()
    images(root / "images", NAMES, size=(200, 100))
    images(root / "images_4", NAMES, size=(50, 25))
    assert LlffViews(str(root)).prepare()[0].train[0].camera.width == 50
    view = LlffViews(str(root), downscale=2).prepare()[0].train[0]
    assert (view.camera.width, view.camera.fx) == (100, 125)
    assert view.pixels.shape == (50, 100, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[:, :16], r"shape \[10, 16\]; it must be \[N, 17\]"),
        (lambda t: t[:8], "8 poses, but 10 images"),
        (lambda t: np.where(np.arange(17) == 15, 30.0, t), "row 0: near is 30, far 20"),
        (lambda t: np.where(np.arange(17) == 0, np.nan, t), "NaN"),
        (lambda t: np.where(np.arange(17) < 5, 0.0, t), "row 0: its pose is singular"),
        (lambda t: np.where(np.arange(17) % 5 == 4, 0.0, t), "image of 0 x 0|focal"),
        (lambda t: np.array([{"a": 1}] * 10, object), "never read"),
        (lambda t: t[:0], "no pose"),
    ],
)
def test_files_that_are_wrong_are_refused_by_name(root, change, says):
    np.save(root / "poses_bounds.npy", change(table(forward())), allow_pickle=True)
    with pytest.raises(NifError, match=f"poses_bounds.npy.*({says})"):
        LlffViews(str(root)).prepare()


def test_no_images(root):
    for path in (root / "images_8").iterdir():
        path.unlink()
    with pytest.raises(NifError, match="images_8: no images"):
        LlffViews(str(root)).prepare()


@pytest.mark.data
def test_the_fern_is_seen_alike_by_its_cameras():
    """A point in NDC, brought to the world, is seen at the pixel whose ray goes through it."""
    data = os.environ.get("NIF_DATA")
    if not data or not (Path(data) / "nerf" / "fern").is_dir():
        pytest.skip("NIF_DATA has no nerf/fern")
    (scene,) = LlffViews(str(Path(data).resolve() / "nerf" / "fern")).prepare()
    assert scene.ndc is not None
    assert (len(scene.train), len(scene.test)) == (17, 3)
    view = scene.test[1]
    rays = scene.rays(view)[torch.arange(0, 504 * 378, 999)]
    world = scene.ndc.to_world(rays.origins + 0.6 * rays.directions)
    pixels = project(view.camera, (world - view.pose[:, 3]) @ view.pose[:, :3])
    index = torch.arange(0, 504 * 378, 999)
    assert torch.allclose(pixels, torch.stack((index % 504, index // 504), -1) + 0.5, atol=0.02)


def around():
    poses = turntable(10, 20.0, "z", 5.0).double().numpy()
    poses[:, :, 3] += [10, 0, 0]
    return poses


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (16, 2500.0, "1 far bounds left out (the first: 2.5e+03 of image005.png)"),
        (15, 1e-4, "1 near bounds left out"),
    ],
)
@pytest.mark.parametrize("poses", [forward, around])
def test_odd_bounds_change_nothing(tmp_path, images, poses, column, value, says):
    images(tmp_path / "images", NAMES)
    rows = table(poses())
    np.save(tmp_path / "poses_bounds.npy", rows)
    (plain,) = LlffViews(str(tmp_path)).prepare()
    rows[5, column] = value
    np.save(tmp_path / "poses_bounds.npy", rows)
    (scene,) = LlffViews(str(tmp_path)).prepare()
    assert says in scene.report.text
    assert (scene.near, scene.far) == (plain.near, plain.far)
    assert torch.equal(scene.bounds, plain.bounds)
    assert scene.transform == plain.transform


def test_far_bounds_beyond_every_box(tmp_path, images):
    images(tmp_path / "images", NAMES)
    np.save(tmp_path / "poses_bounds.npy", table(around(), bounds=(4.0, 1e6)))
    (scene,) = LlffViews(str(tmp_path)).prepare()
    assert float(scene.bounds.max()) == 64
    assert "is not learned" in scene.report.text


def test_one_camera_that_looks_sideways(root):
    """It does not stop the others; asked for NDC it is named."""
    poses = forward()
    poses[4, :, :3] = [[0.71, 0, 0.704], [0, 1, 0], [-0.704, 0, 0.71]]
    u, _, v = np.linalg.svd(poses[4, :, :3])
    poses[4, :, :3] = u @ v
    np.save(root / "poses_bounds.npy", table(poses, hwf=(100.0, 200.0, 60.0)))
    (scene,) = LlffViews(str(root)).prepare()
    assert scene.ndc is None
    assert "not in NDC, since image004 looks sideways" in scene.report.text
    with pytest.raises(
        NifError, match=r"data\.ndc=true: some cameras look sideways or backwards \(image004\)"
    ):
        LlffViews(str(root), ndc=True).prepare()


def test_hidden_files_are_no_images(root):
    (root / "images_8" / "._image000.png").write_bytes(b"\0\5\x16\7")
    assert len(LlffViews(str(root), hold_out=0).prepare()[0].train) == 10


@pytest.mark.parametrize(
    "spoil",
    [lambda b: b.replace(b"<f8", b"|V0"), lambda b: b.replace(b"(10, 17)", b"(-1, 17)"), lambda b: b[:100]],
)
def test_headers_that_lie(root, spoil):
    path = root / "poses_bounds.npy"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(NifError, match=r"poses_bounds\.npy"):
        LlffViews(str(root)).prepare()
