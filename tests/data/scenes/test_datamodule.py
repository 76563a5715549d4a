"""Rays of views: each belongs to its pixel, batches depend on (seed, number) only, a run keeps the
cameras."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from nif_cli import NifError
from nif_cli.data.datamodule import Needs
from nif_cli.data.scenes.datamodule import RayBatches, RayPool, Views, view_rays
from nif_cli.data.scenes.poses import cube
from nif_cli.data.scenes.scene import Scene, View
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.cameras import Camera
from nif_cli.rendering.ndc import Ndc

CPU = torch.device("cpu")
BENT = Camera(12, 8, 20.0, 20.0, 6.0, 4.0, k1=0.1)
FISHEYE = Camera(6, 10, 8.0, 8.0, 3.0, 5.0, fisheye=True)


def image(camera: Camera, number: int, channels: int = 4) -> np.ndarray:
    """Red is the column, green the row, blue the image."""
    y, x = np.mgrid[: camera.height, : camera.width]
    return np.stack([x, y, 0 * x + number, 0 * x + 200], -1)[..., :channels].astype(np.uint8)


class Made(Views):
    """Three views of mixed sizes, lenses and channels, in two scenes; the second in NDC."""

    def __init__(self, masked=False, cameras=(BENT, FISHEYE, BENT), **options):
        super().__init__(**options)
        self.masked, self.cameras = masked, cameras

    def read(self):
        views = []
        for k, (camera, pose) in enumerate(zip(self.cameras, turntable(3, 10.0), strict=True)):
            read = partial(image, camera, k, 4 if k < 2 else 3)
            mask = (lambda camera=camera: image(camera, 0)[..., 0] >= 3) if self.masked and k == 0 else None
            views.append(View(f"v{k}", pose, camera, read, mask))
        ndc = Ndc(turntable(1)[0], (0.5, 0.5))
        first = Scene("a", Transform(), cube(1.0), 2.0, 4.0, views[:2], background="white")
        return [first, Scene("b", Transform((1.0, 0, 0), 2.0), cube(2.0), 0.0, 1.0, views[2:], ndc=ndc)]


@pytest.mark.parametrize("table", [0, 2**22], ids=["anew", "table"])
def test_each_ray_belongs_to_its_pixel(table, monkeypatch):
    monkeypatch.setattr("nif_cli.data.scenes.datamodule.TABLE", table)
    data = Made()
    pool = RayPool(data, CPU)
    assert (pool.tables is None) == (table == 0)
    batch = pool.at(torch.arange(len(pool.colors)))
    start = 0
    for scene_number, scene in enumerate(data.prepare()):
        for view in scene.train:
            size = view.camera.width * view.camera.height
            part, rays = slice(start, start + size), view_rays(scene, view)
            assert torch.allclose(batch.origins[part], rays.origins, atol=1e-5)
            assert torch.allclose(batch.directions[part], rays.directions, atol=1e-5)
            assert torch.allclose(batch.views[part], rays.views, atol=1e-5)
            pixels = view.pixels.reshape(size, -1).float() / 255
            assert torch.equal(batch.colors[part, : pixels.shape[1]], pixels)
            if pixels.shape[1] == 3:
                assert (batch.colors[part, 3] == 1).all()
            assert (batch.scene[part] == scene_number).all()
            assert (batch.near[part] == scene.near).all()
            assert (batch.far[part] == scene.far).all()
            start += size
    assert start == len(pool.colors)


def test_a_batch_is_a_function_of_the_seed_and_its_number():
    first, again = (RayBatches(Made(seed=3, batch_rays=50), CPU) for _ in range(2))
    first.batch(0)
    assert torch.equal(first.batch(7).directions, again.batch(7).directions)
    assert not torch.equal(first.batch(7).directions, first.batch(8).directions)
    assert not torch.equal(
        first.batch(7).directions, RayBatches(Made(seed=4, batch_rays=50), CPU).batch(7).directions
    )
    first.data.expect(Needs(rays=lambda: 9))  # a model may say how many
    assert len(first.batch(7)) == 9


def test_masked_pixels_are_never_drawn():
    batch = RayPool(Made(masked=True), CPU).draw(2000, torch.Generator().manual_seed(0))
    of_first = (batch.scene == 0) & (batch.colors[:, 2] == 0)
    assert of_first.any()
    assert (batch.colors[of_first, 0] * 255 >= 3).all()


def test_pixels_that_a_lens_sees_nothing_through_do_not_count_and_harm_nobody():
    folded = replace(BENT, k1=-2.0)
    batch = RayPool(Made(cameras=(folded, FISHEYE, BENT)), CPU).at(torch.arange(96))
    assert 0 < batch.valid.sum() < 96
    assert torch.isfinite(batch.directions).all()


def test_what_exceeds_the_memory_is_refused_with_what_would_fit():
    wide = Camera(2000, 1000, 900.0, 900.0, 1000.0, 500.0)
    with pytest.raises(NifError, match=r"data\.memory.*data\.downscale=5 would fit"):
        Made(cameras=(wide, wide, wide), memory="1MiB").prepare()


def test_images_of_nothing_are_refused():
    class Blank(Made):
        def read(self):
            (first, _) = super().read()
            blank = np.zeros((8, 12, 4), np.uint8)
            return [replace(first, train=[replace(first.train[0], read=lambda: blank)])]

    with pytest.raises(NifError, match="fully transparent"):
        RayPool(Blank(), CPU)


def test_opaque_images_have_no_background():
    first, second = Made().prepare()
    assert first.background == "white"
    assert second.background is None


def test_a_run_keeps_the_cameras_and_no_images():
    for scene in Made().prepare():
        kept = Scene.restored(scene.id, scene.transform, scene.state())
        for mine, theirs in zip(kept.train, scene.train, strict=True):
            assert mine.camera == theirs.camera
            assert torch.equal(kept.rays(mine).directions, scene.rays(theirs).directions)
            with pytest.raises(NifError, match="keeps the cameras"):
                _ = mine.pixels
        for name in ("near", "far", "background", "up", "shape", "appearance", "protocol"):
            assert getattr(kept, name) == getattr(scene, name)


@pytest.mark.parametrize(
    "spoil", [{"poses": torch.zeros(1, 3, 4)}, {"cameras": [[0, 1, False] + [1.0] * 12]}]
)
def test_spoilt_scenes_of_a_checkpoint_are_refused(spoil):
    (scene, _) = Made().prepare()
    state = scene.state()
    state["train"] |= spoil
    with pytest.raises((ValueError, TypeError)):
        Scene.restored("a", scene.transform, state)


@pytest.mark.parametrize("wrong", [{"batch_rays": 0}, {"background": "green"}, {"seed": -1}, {"memory": "x"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(Exception, match=next(iter(wrong))):
        Made(**wrong)
