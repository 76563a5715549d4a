"""The folders of IDR and NeuS: cameras out of projections, masks as alpha."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nif_cli import NifError
from nif_cli.data.scenes.formats.idr import decomposed
from nif_cli.data.scenes.idr import IdrViews

LENS = np.array([[25.0, 0, 9.5], [0, 26.0, 4.5], [0, 0, 1]])  # pixel centres at whole numbers
CENTRE, RADIUS = np.array([3.0, -2.0, 5.0]), 2.5


def projection(pose: np.ndarray) -> np.ndarray:
    """K [R | t] of a pose of OpenGL's axes."""
    axes = pose[:, :3] * [1, -1, -1]
    return LENS @ np.concatenate((axes.T, -axes.T @ pose[:, 3:]), 1)


@pytest.fixture
def folder(tmp_path, poses, images):
    """The sphere lies at CENTRE of the world, the cameras four radii from it."""
    names = [f"{k:03d}.png" for k in range(len(poses))]
    images(tmp_path / "image", names)
    (tmp_path / "mask").mkdir()
    for k, name in enumerate(names):
        mask = np.zeros((10, 20), np.uint8)
        mask[:, : k + 5] = 255
        Image.fromarray(mask).save(tmp_path / "mask" / name)
    arrays = {}
    for k, pose in enumerate(poses):
        world = np.concatenate((pose[:, :3], RADIUS * pose[:, 3:] + CENTRE[:, None]), 1)
        arrays[f"world_mat_{k}"] = np.vstack((-3 * projection(world), [0, 0, 0, 1]))
        scale = np.diag([RADIUS] * 3 + [1])
        scale[:3, 3] = CENTRE
        arrays[f"scale_mat_{k}"] = scale.astype(np.float32)
    np.savez(tmp_path / "cameras_sphere.npz", **arrays)
    return tmp_path


def test_a_projection_becomes_its_camera(poses):
    for pose in poses:
        for factor in (1.0, -0.2):
            found, lens = decomposed(factor * projection(pose), "here")
            assert np.allclose(found, pose, atol=1e-6)  # they have float32 digits
            assert np.allclose(lens, [25, 26, 10, 5], atol=1e-5)


def test_a_folder_is_read(folder, poses):
    (scene,) = IdrViews(str(folder), hold_out=5).prepare()
    assert len(scene.train) == 8
    assert len(scene.test) == 2
    views = sorted(scene.train + scene.test, key=lambda v: v.name)
    for k, view in enumerate(views):
        assert torch.allclose(view.pose, torch.from_numpy(poses[k]).float(), atol=1e-5)
        assert (view.pixels[..., 3] > 0).sum() == 10 * (k + 5)
        assert int(view.pixels[0, 0, 0]) == k
    assert scene.transform.to_original(np.zeros(3)) == pytest.approx(CENTRE)
    assert scene.transform.to_original(np.array([1.0, 0, 0]))[0] == pytest.approx(CENTRE[0] + RADIUS)
    assert scene.background == "white"
    assert scene.near < 4 - 1 < 4 + 1 < scene.far


def test_without_masks_images_are_opaque(folder):
    (scene,) = IdrViews(str(folder), masks=False).prepare()
    assert scene.background is None
    (halved,) = IdrViews(str(folder), downscale=2).prepare()
    assert halved.train[0].pixels.shape == (5, 10, 4)


def broken(folder, **arrays) -> str:
    known = dict(np.load(folder / "cameras_sphere.npz"))
    known.update(arrays)
    np.savez(folder / "cameras_sphere.npz", **{k: v for k, v in known.items() if v is not None})
    with pytest.raises(NifError) as told:
        IdrViews(str(folder)).prepare()
    return str(told.value)


def test_bad_folders_are_named(folder):
    assert "scale_mat_2 is not scale_mat_0" in broken(folder, scale_mat_2=np.eye(4))
    good = {"scale_mat_2": np.load(folder / "cameras_sphere.npz")["scale_mat_0"]}
    assert "singular" in broken(folder, **good, world_mat_1=np.zeros((4, 4)))
    assert "world_mat_1" in broken(folder, world_mat_1=np.full((4, 4), np.nan))
    assert "[4, 4]" in broken(folder, world_mat_1=np.zeros(3))
    assert "10 images, but 9 cameras" in broken(
        folder, world_mat_9=None, world_mat_1=np.load(folder / "cameras_sphere.npz")["world_mat_0"]
    )
    (folder / "cameras_sphere.npz").write_bytes(b"no npz")
    with pytest.raises(NifError, match="npz"):
        IdrViews(str(folder)).prepare()
    with pytest.raises(NifError, match="cameras_sphere"):
        IdrViews(str(folder / "image")).prepare()
