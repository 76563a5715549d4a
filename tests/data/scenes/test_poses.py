"""Poses: what is no camera is refused, what is one comes through; boxes that cut a scene off are noticed."""

import numpy as np
import pytest
import torch

from nif_cli import NifError
from nif_cli.data.scenes.poses import (
    around_cameras,
    cube,
    cut,
    farthest,
    held_out_views,
    mean_up,
    normalised,
    rigid,
)
from nif_cli.data.scenes.scene import Scene, View
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.cameras import Camera, camera_rays

CAMERA = Camera(64, 64, 80.0, 80.0, 32.0, 32.0)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.diag([1.0, 1, 0, 1]), "singular"),
        (np.diag([1.0, 1, -1, 1]), "mirrors"),
        (np.diag([2.0, 2, 2, 1]), "scales"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.eye(3), "shape"),
        ("abc", "shape"),
        (None, "shape"),
        ([[1, 2], [3]], "shape"),
    ],
)
def test_what_is_no_pose_is_refused_by_name(matrix, says):
    with pytest.raises(NifError, match=f"frame 7: its pose.*{says}"):
        rigid(matrix, "frame 7")


def test_a_pose_of_a_few_digits_becomes_orthonormal():
    pose = turntable(3)[1].double().numpy()
    found = rigid(pose.round(4), "x")
    assert np.allclose(found[:, :3].T @ found[:, :3], np.eye(3), atol=1e-12)
    assert np.allclose(found, pose, atol=1e-4)


def test_cameras_around_a_centre_are_normalised():
    poses = turntable(8, distance=5.0).double().numpy()
    poses[:, :, 3] += [10, 20, 30]
    transform = around_cameras(poses)
    assert transform.offset == pytest.approx((-10, -20, -30), abs=1e-4)
    assert transform.scale == pytest.approx(1 / 5)
    assert torch.allclose(
        normalised(poses[3], transform)[:, 3], turntable(8, distance=1.0)[3, :, 3], atol=1e-5
    )
    x, y, z = mean_up(poses)
    assert (x, y, z) == pytest.approx((0, 1, 0), abs=1e-5)


def test_every_eighth_view_by_name_is_held_out():
    views = [View(f"{k:02d}", torch.eye(3, 4), CAMERA) for k in reversed(range(20))]
    train, test = held_out_views(views, 8)
    assert [v.name for v in test] == ["00", "08", "16"]
    assert len(train) == 17
    assert held_out_views(views, 0)[1] == []


def test_the_far_corner():
    poses = [turntable(1, distance=3.0)[0], torch.cat((torch.eye(3), torch.tensor([[2.0], [0], [0]])), 1)]
    assert farthest(poses[1:], cube(1.0)) == pytest.approx((9 + 1 + 1) ** 0.5)


def ball_scene(radius: float, half: float) -> Scene:
    views = []
    for k, pose in enumerate(turntable(6)):
        rays = camera_rays(pose, CAMERA)
        closest = (rays.origins - (rays.origins * rays.directions).sum(1, True) * rays.directions).norm(dim=1)
        pixels = torch.full((64, 64, 4), 255, dtype=torch.uint8)
        pixels[..., 3] = 255 * (closest < radius).view(64, 64)
        views.append(View(str(k), pose, CAMERA, lambda pixels=pixels: pixels.numpy()))
    return Scene("ball", Transform(), cube(half), 2.0, 4.0, views)


def test_a_box_that_holds_the_scene_is_not_questioned():
    assert cut(ball_scene(0.6, 0.7)) is None


def test_a_box_that_cuts_the_scene_off_is_noticed_and_the_right_one_named():
    """The outline of a ball cannot be hidden by a cube much smaller than it."""
    ratio = cut(ball_scene(0.8, 0.4))
    assert ratio is not None
    assert 1.3 < ratio <= 2.05  # a ball's outlines do not need all of its box: rays may pass its corners
