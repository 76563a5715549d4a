"""Camera paths: each frame's own lens, the size and the time that the file names, and the world that it lies
in."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nif_cli import NifError
from nif_cli.data.scenes.formats.camera_paths import read_camera_path
from nif_cli.rendering.cameras import Camera

LENS = Camera(400, 300, 380.0, 380.0, 200.0, 150.0)


def listed(poses):
    return [[*p.ravel().tolist(), 0, 0, 0, 1] for p in poses]


def read(file, size=None, applied=False):
    Path("path.json").write_text(json.dumps(file))
    return read_camera_path(Path("path.json"), LENS, size, 400, applied)


def studio(poses, fovs=(60.0, 20.0), **keys):
    frames = [
        {"camera_to_world": m, "fov": f, "aspect": 16 / 9} for m, f in zip(listed(poses), fovs, strict=False)
    ]
    return {"camera_path": frames, **keys}


def test_each_frame_has_its_angle_and_the_size_is_the_files(poses):
    found = read(studio(poses, render_width=96, render_height=54, seconds=4, fps=24))
    assert [2 * math.degrees(math.atan(27 / c.fy)) for c in found.cameras] == pytest.approx([60, 20])
    assert [(c.width, c.height) for c in found.cameras] == [(96, 54)] * 2
    assert found.seconds == 4
    assert np.allclose(found.poses, poses[:2])
    small = read(studio(poses, render_width=96, render_height=54), size=48).cameras[0]
    assert (
        small.width,
        small.height,
        2 * math.degrees(math.atan(small.height / 2 / small.fy)),
    ) == pytest.approx((48, 27, 60))
    by_aspect = read(studio(poses)).cameras[0]
    assert (by_aspect.width, by_aspect.height) == (400, 225)


def test_frames_between_have_angles_between(poses):
    found = read(studio(poses, render_width=96, render_height=54)).sampled(5)
    focal = [c.fy for c in found.cameras]
    assert len(found.poses) == 5
    assert np.allclose(np.diff(focal, 2), 0, atol=1e-6)
    assert found.sampled(None) is found


def test_types_of_cameras(poses):
    sphere = read(studio(poses, camera_type="equirectangular", render_width=96, render_height=48)).cameras[0]
    assert (sphere.kind, sphere.fx) == ("sphere", pytest.approx(96 / (2 * math.pi)))
    assert read(studio(poses, camera_type="fisheye", render_width=96, render_height=48)).cameras[0].fisheye
    with pytest.raises(
        NifError, match="camera_type 'omnidirectional' is not supported; there are perspective, fisheye"
    ):
        read(studio(poses, camera_type="omnidirectional"))


def test_key_frames_are_column_by_column(poses):
    columns = [np.concatenate([p, [[0, 0, 0, 1]]]).T.ravel().tolist() for p in poses[:2]]
    for write in (list, json.dumps):
        frames = [{"matrix": write(m), "fov": 50, "aspect": 1.5} for m in columns]
        found = read({"keyframes": frames, "camera_path": [], "seconds": 2.0, "fps": 10})
        assert len(found.poses) == 20
        assert np.allclose(found.poses[[0, -1]], poses[:2], atol=1e-6)


def test_lenses_of_transforms(poses):
    frames = [{"transform_matrix": [*p.tolist(), [0, 0, 0, 1]]} for p in poses[:3]]
    found = read(
        {"fl_x": 55.0, "fl_y": 50.0, "cx": 40.0, "cy": 36.0, "w": 96, "h": 72, "k1": 0.1, "frames": frames}
    )
    c = found.cameras[0]
    assert (c.width, c.height, c.fx, c.fy, c.cx, c.cy, c.k1) == (96, 72, 55, 50, 40, 36, 0.1)
    assert read({"fl_x": 55.0, "w": 96, "h": 72, "frames": frames}, size=48).cameras[0].fx == pytest.approx(
        27.5
    )
    own = [{**f, "camera_angle_x": a} for f, a in zip(frames, (1.4, 0.3, 1.0), strict=True)]
    cameras = read({"fl_x": 55.0, "frames": own}).cameras
    assert [2 * math.atan(200 / c.fx) for c in cameras] == pytest.approx([1.4, 0.3, 1.0])
    assert read({"frames": frames}).cameras == [LENS] * 3


def test_nerfstudios_space_is_undone(poses, tmp_path):
    """scale * (turn p) of every pose, and back; of transforms.json's world its applied_transform again."""
    turn = np.concatenate([Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix(), [[1.0], [-2], [0.5]]], 1)
    moved = turn[:, :3] @ poses
    moved[:, :, 3] = 0.37 * (poses[:, :, 3] @ turn[:, :3].T + turn[:, 3])
    assert "dataparser_transforms.json" in read(studio(moved)).notes[0]
    Path("dataparser_transforms.json").write_text(json.dumps({"transform": turn.tolist(), "scale": 0.37}))
    assert np.allclose(read(studio(moved)).poses, poses[:2], atol=1e-6)
    applied = np.array([[0, 1, 0, 0.0], [1, 0, 0, 0], [0, 0, -1, 2.0]])
    Path("transforms.json").write_text(json.dumps({"applied_transform": applied.tolist(), "frames": []}))
    found = read(studio(moved), applied=True).poses
    assert np.allclose(found[:, :, 3], poses[:2, :, 3] @ applied[:, :3].T + applied[:, 3], atol=1e-6)
    assert np.allclose(found[:, :, :3], applied[:, :3] @ poses[:2, :, :3], atol=1e-6)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"path": [{"R": [0, 0, 0, 1], "T": [0, 0, 3]}]}, "a path of instant-ngp .* is not supported"),
        ({"frames": [{"transform_matrix": [[1, 0], [0, 1]]}]}, "frame 0: its pose has shape"),
        ({"camera_path": [{"camera_to_world": ["a"] * 16}]}, "frame 0: its pose has shape"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": "wide"}]}, "fov"),
        ({"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 400}]}, "fov"),
        (
            {"camera_path": [{"camera_to_world": np.eye(4).ravel().tolist()}], "seconds": "x"},
            "'seconds' is 'x'",
        ),
        (
            {
                "camera_path": [{"camera_to_world": np.eye(4).ravel().tolist()}],
                "render_width": 1e9,
                "render_height": 2,
            },
            "render_width",
        ),
        ({"keyframes": [{"matrix": "no list"}]}, "no list of numbers"),
        ({"camera_path": 3}, "neither 'frames' nor 'camera_path'"),
        ({}, "neither 'frames' nor 'camera_path'"),
    ],
)
def test_what_is_wrong_is_named(file, says):
    with pytest.raises(NifError, match=says):
        read(file)
