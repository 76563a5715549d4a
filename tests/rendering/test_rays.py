"""Cameras: camera-to-world, OpenGL axes, pixel centres at +0.5, unit directions."""

import math

import pytest
import torch

from nif_cli.rendering.camera_paths import look_from, turntable
from nif_cli.rendering.rays import pinhole_rays


@pytest.mark.parametrize("up", ["y", "z"])
def test_turntable_poses_are_right_handed_and_look_at_the_origin(up):
    poses = turntable(5, 30.0, up)
    rotation, position = poses[:, :, :3], poses[:, :, 3]
    assert torch.allclose(rotation.transpose(1, 2) @ rotation, torch.eye(3).expand(5, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(5), atol=1e-5)
    assert torch.allclose(rotation[:, :, 2], torch.nn.functional.normalize(position, dim=-1), atol=1e-5)
    axis = "xyz".index(up)
    height = position[:, axis] / position.norm(dim=-1)
    assert torch.allclose(height, torch.full((5,), math.sin(math.radians(30))), atol=1e-5)
    assert (rotation[:, axis, 1] > 0).all()  # the image's up is the world's


def test_turntable_goes_round_in_equal_steps():
    position = turntable(4, 0.0)[:, :, 3]
    assert torch.allclose(position[0], -position[2], atol=1e-5)
    assert torch.allclose(position[1], -position[3], atol=1e-5)


@pytest.mark.parametrize("bad", [(0, 20.0, "y"), (4, 90.0, "y"), (4, 20.0, "x")])
def test_impossible_turntables_are_refused(bad):
    with pytest.raises(ValueError, match="frames"):
        turntable(*bad)


def test_rays_go_through_pixel_centres_from_the_top_left():
    pose = look_from(torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0]))
    rays = pinhole_rays(pose, 4, 2, fov=90.0)
    assert rays.directions.shape == rays.origins.shape == (8, 3)
    assert torch.allclose(rays.directions.norm(dim=-1), torch.ones(8))
    # at 90 degrees the focal length of 2 rows is 1 pixel: the first centre is 1.5 left and 0.5 up
    first = torch.tensor([-1.5, 0.5, -1.0])
    assert torch.allclose(rays.directions[0], first / first.norm(), atol=1e-6)
    assert torch.allclose(rays.directions.mean(0)[:2], torch.zeros(2), atol=1e-6)
    assert torch.allclose(rays.origins, pose[:, 3].expand(8, 3))
