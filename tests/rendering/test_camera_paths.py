"""Ways for a camera: every pose is rigid, and looks where it should."""

import numpy as np
import pytest

from nif_cli.rendering.camera_paths import focus, looking, mean_pose, one_sided, orbit, spiral, through

UP = np.array([0.0, 0.0, 1.0])


def ring(count=12, centre=(1.0, 2.0, 3.0), span=2 * np.pi, radius=4.0):
    """Cameras on a circle, looking at the centre from a little above."""
    made = []
    for angle in span * (np.arange(count) + 0.5) / count - span / 2:
        back = np.array([np.cos(angle), np.sin(angle), 0.5])
        back /= np.linalg.norm(back)
        made.append(looking(np.asarray(centre) + radius * back, back, UP))
    return np.stack(made)


def assert_rigid(poses):
    turned = poses[:, :, :3]
    assert np.allclose(turned.transpose(0, 2, 1) @ turned, np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(turned), 1)


def test_focus_is_where_the_cameras_look():
    assert np.allclose(focus(ring()), (1, 2, 3))
    parallel = np.stack(
        [looking(np.array([x, 0.0, 0.0]), np.array([0, 1.0, 0]), UP) for x in (-1.0, 0.0, 2.0)]
    )
    assert np.allclose(focus(parallel), (1 / 3, 0, 0))


def test_an_orbit_keeps_the_cameras_distance_and_looks_at_what_they_look_at():
    poses = orbit(ring(), 7, 35.0, UP)
    assert_rigid(poses)
    away = poses[:, :, 3] - np.array([1, 2, 3])
    assert np.allclose(np.linalg.norm(away, axis=1), 4)
    assert np.allclose(poses[:, :, 2], away / 4)
    assert np.allclose(away[:, 2] / 4, np.sin(np.radians(35)))
    assert (poses[:, 2, 1] > 0).all()  # upright


def test_a_spiral_before_a_scene_seen_from_one_side():
    cameras = ring(9, span=0.8)
    assert one_sided(cameras)
    poses = spiral(cameras, 40, 4.0)
    assert_rigid(poses)
    middle = mean_pose(cameras)
    goal = middle[:, 3] - 4 * middle[:, 2]
    aim = goal - poses[:, :, 3]
    assert np.allclose(-poses[:, :, 2], aim / np.linalg.norm(aim, axis=1, keepdims=True))
    stray = np.quantile(np.abs((cameras[:, :, 3] - middle[:, 3]) @ middle[:, :3]), 0.9, axis=0)
    assert np.abs((poses[:, :, 3] - middle[:, 3]) @ middle[:, :3] / stray).max() <= 1 + 1e-9


def test_a_spiral_goes_around_what_was_seen_from_all_around():
    cameras = ring()
    assert not one_sided(cameras)
    poses = spiral(cameras, 16, 1.0)
    assert_rigid(poses)
    assert np.allclose(np.linalg.norm(poses[:, :, 3] - [1, 2, 3], axis=1), 4)


def test_a_way_through_poses_meets_them():
    cameras = ring(4)
    poses = through(cameras, 7)
    assert_rigid(poses)
    assert np.allclose(poses[::2], cameras)
    assert through(cameras, 4) is cameras
    assert through(cameras[:1], 3).shape == (3, 3, 4)


def test_straight_down_is_a_way_to_look():
    assert_rigid(looking(np.zeros(3), UP, UP)[None])


@pytest.mark.parametrize(
    "call", [lambda: orbit(ring(), 0, 0.0, UP), lambda: spiral(ring(), 0, 1.0), lambda: through(ring(), 0)]
)
def test_no_frames_are_refused(call):
    with pytest.raises(ValueError, match="frames"):
        call()
