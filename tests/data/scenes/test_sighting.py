"""What cameras see is known before training; scenes that are moved, scaled or turned are the same scene once
mended."""

import json
import math
import re

import numpy as np
import pytest
import torch
from narrowing import sure

from nif_cli import NifError
from nif_cli.data.scenes.blender import BlenderViews
from nif_cli.data.scenes.sighting import common_point, looks_away, share_of_rays
from nif_cli.data.scenes.transforms import TransformsViews
from nif_cli.rendering.camera_paths import turntable

NAMES = [f"{k:02d}.png" for k in range(10)]


def ring() -> np.ndarray:
    """Ten cameras around the origin, four units away."""
    return np.stack([p.double().numpy() for k in (10, 35) for p in turntable(5, k, "z", 4.0)])


@pytest.fixture
def scene(tmp_path, images):
    """`scene(kind, move, scale, **keys)`: the ring of cameras moved and scaled, in a file of that kind, read
    again."""

    def made(kind, move=(0.0, 0.0, 0.0), scale=1.0, written="opengl", **keys):
        root = tmp_path / "place"
        folder = root / ("train" if kind == "blender" else "images")
        images(folder, NAMES)
        frames = []
        for name, pose in zip(NAMES, ring(), strict=True):
            pose = pose * ([1, -1, -1, 1] if written == "opencv" else 1)
            pose[:, 3] = pose[:, 3] * scale + move
            matrix = [*pose.tolist(), [0, 0, 0, 1]]
            frames.append({"file_path": f"{folder.name}/{name}", "transform_matrix": matrix})
        lens = {"camera_angle_x": 2 * math.atan(10 / 25)}
        file = root / ("transforms_train.json" if kind == "blender" else "transforms.json")
        file.write_text(json.dumps({**lens, **keys.pop("file", {}), "frames": frames}))
        made = (BlenderViews if kind == "blender" else TransformsViews)(str(root), **keys)
        return made.prepare()[0]

    return made


def rays(scene) -> torch.Tensor:
    views = sorted([*scene.train, *scene.test], key=lambda v: v.name)
    return torch.cat([torch.cat((r.origins, r.directions), 1) for r in map(scene.rays, views)])


@pytest.mark.parametrize("kind", ["blender", "transforms", "nerfstudio"])
@pytest.mark.parametrize(
    ("move", "scale"),
    [((200, -70, 3), 1.0), ((0, 0, 0), 1000.0), ((0, 0, 0), 0.002), ((4e6, 1e6, 4.8e6), 3.0)],
)
def test_a_scene_that_is_moved_and_scaled_is_the_same_scene(scene, kind, move, scale):
    """Its normalised rays, near, far and box are those of the scene about the origin."""
    keys = {"file": {"camera_model": "OPENCV"}} if kind == "nerfstudio" else {"place": "cameras"}
    file = "blender" if kind == "blender" else "transforms"
    here, there = scene(file, **keys), scene(file, move, scale, **({} if "place" in keys else keys))
    assert torch.allclose(rays(here), rays(there), atol=2e-5)
    assert (here.near, here.far) == pytest.approx((there.near, there.far), rel=1e-4)
    assert torch.equal(here.bounds, there.bounds)
    assert "the cameras" in there.report.text or kind == "nerfstudio"
    assert not there.report.doubts


def test_published_scenes_keep_their_published_box(scene):
    found = scene("blender")
    assert (found.transform.scale, found.near, found.far) == pytest.approx((1 / 1.5, 2 / 1.5, 4))
    assert found.transform.offset == (0, 0, 0)
    assert "by the cameras" not in found.report.text
    assert scene("transforms").transform.scale == pytest.approx(0.66)


def test_what_is_given_is_obeyed(scene):
    far = scene("blender", scale=5.0, half=9.0, near=3.0, far=40.0)
    assert (far.transform.scale, far.near, far.far) == pytest.approx((1 / 9, 3 / 9, 40 / 9))
    kept = scene("blender", scale=1.6, place="file")
    assert (1 / kept.transform.scale, kept.near) == pytest.approx((1.5, 2 / 1.5))
    placed = scene("transforms", move=(0.2, 0, 0), file={"scale": 0.2, "offset": [0.5, 0.5, 0.5]})
    assert placed.transform.scale == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["blender", "transforms"])
def test_axes_of_opencv_are_named_and_turned(scene, kind):
    right = scene(kind)
    assert torch.equal(rays(scene(kind, written="opencv", axes="opencv")), rays(right))
    with pytest.raises(NifError, match=r"look away.*data\.axes=opencv"):
        scene(kind, written="opencv")
    assert looks_away(ring() * [1, -1, -1, 1])
    assert not looks_away(ring())


def test_a_scene_that_no_ray_meets_is_refused_with_the_keys(scene):
    with pytest.raises(NifError, match=r"none of the training rays meet its box.*data\.place"):
        scene("transforms", move=(300, 0, 0), place="file")
    with pytest.raises(
        NifError, match=r"none of the training rays meet its box.*data\.half, data\.near, data\.far"
    ):
        scene("blender", near=20.0, far=60.0)
    said = scene("transforms", move=(3.0, 2.0, 0.5), place="file").report.text
    assert "doubtful: only" in said
    assert "of the training rays meet its box" in said


def test_pixels_to_which_the_lens_sends_nothing_are_counted(scene):
    """r (1 + k1 r^2) is largest at r = (-3 k1)^-0.5 and turns back there: pixels beyond that radius see no
    direction."""
    k1 = -1.6
    y, x = np.mgrid[-5:5:101j, -10:10:201j] / 25
    beyond = np.hypot(x, y) > 2 / 3 * (-3 * k1) ** -0.5
    report = scene("transforms", file={"k1": k1}).report.text
    assert "doubtful: " in report
    found = re.search(r"([0-9.]+)% of the pixels of images/00 have no direction", report)
    share = float(sure(found)[1]) / 100
    assert share == pytest.approx(beyond.mean(), abs=0.02)
    assert "(k1 -1.6)" in report
    assert "direction" not in scene("transforms", file={"k1": -0.05}).report.text


def test_near_beyond_what_is_looked_at(scene):
    assert (
        "near is 4.5, but the cameras look at something 4 away"
        in scene("blender", near=4.5, far=7.0).report.text
    )


def test_shares_and_points_in_common(scene):
    assert share_of_rays(scene("blender")) > 0.9
    point = common_point(ring() + np.array([0, 0, 0, 1.0]) * np.array([[5.0], [6], [7]]))
    assert point is not None
    assert np.allclose(point, [5, 6, 7], atol=1e-4)
    parallel = np.concatenate(
        [np.broadcast_to(np.eye(3), (10, 3, 3)), np.random.default_rng(0).random((10, 3, 1))], 2
    )
    assert common_point(parallel) is None
    assert not looks_away(parallel)
