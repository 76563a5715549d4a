"""Images and voxels of shapes, from meshes whose looks are known, and from files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from nif_cli import NifError
from nif_cli.data.datamodule import ConditioningSpec
from nif_cli.data.shapes.conditioning import (
    grid_voxels,
    load_image,
    load_look,
    mesh_images,
    mesh_voxels,
    view_poses,
)
from nif_cli.data.shapes.samples import ImageFiles, Images, Known
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.images import surface_image
from nif_cli.rendering.rays import pinhole_rays


def test_a_mesh_looks_as_its_field_does(ball):
    """The image of a mesh is what nif render shows of the field of the same shape."""
    mesh = trimesh.creation.icosphere(4, 0.6)
    found = mesh_images(mesh, turntable(2), 48)
    want = np.stack([surface_image(ball(0.6), pose, 48) for pose in turntable(2)])
    assert (np.abs(found.astype(int) - want) > 24).mean() < 0.02  # the silhouette
    assert np.abs(found.astype(int) - want).mean() < 1.5


def test_views_look_at_the_origin_from_above():
    poses = view_poses(20, "ball", np.random.default_rng(0))
    for pose in poses:
        middle = pinhole_rays(pose, 3, 3).directions[4]
        assert torch.allclose(middle, -pose[:, 3] / pose[:, 3].norm(), atol=1e-5)
        assert pose[1, 3] > 0
    assert len({round(float(p[0, 3]), 3) for p in poses}) == 20


def test_voxels_of_a_ball():
    grid = mesh_voxels(trimesh.creation.icosphere(4, 0.6), 1.0, 32)
    assert abs(grid.mean() * 8 - 4 / 3 * np.pi * 0.6**3) < 0.02
    off = trimesh.creation.icosphere(3, 0.2)
    off.apply_translation([0.5, 0, -0.5])
    assert np.allclose(
        (np.argwhere(mesh_voxels(off, 1.0, 32)).mean(0) + 0.5) / 16 - 1, [0.5, 0, -0.5], atol=0.02
    )


def test_a_grid_of_the_users_in_normalised_space(rng):
    """The same cells when both grids are the same cube, moved and scaled with the user's units."""
    grid = rng.random((8, 8, 8)) > 0.5
    # the user's units: voxel i spans [10 + 2i, 12 + 2i]; normalised: the cube of 16 around (18, 18, 18) is
    # +-0.5
    to_voxels, to_normalised = Transform((-11, -11, -11), 0.5), Transform((-18, -18, -18), 1 / 16)
    assert (grid_voxels(grid, to_voxels, to_normalised, 0.5, 8) == grid).all()
    wider = grid_voxels(grid, to_voxels, to_normalised, 1.0, 16)
    assert (wider[4:12, 4:12, 4:12] == grid).all()
    assert wider.sum() == grid.sum()


class TestImages:
    def save(self, path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 40)) -> Path:
        image = Image.new(mode, size, (200, 30, 30) if mode == "RGB" else (200, 30, 30, 0))
        image.paste((20, 200, 20) if mode == "RGB" else (20, 200, 20, 255), (10, 10, 30, 30))
        image.save(path)
        return path

    def test_alpha_and_masks_leave_white(self, tmp_path: Path):
        pixels = load_image(self.save(tmp_path / "a.png", "RGBA"), 20)
        assert pixels.shape == (20, 20, 3)
        assert (pixels[0, 0] == 255).all()
        assert pixels[10, 10].tolist() == [20, 200, 20]
        path = self.save(tmp_path / "b.png")
        assert load_image(path, 20)[0, 0].tolist() == [200, 30, 30]
        mask = Image.new("L", (40, 40))
        mask.paste(255, (10, 10, 30, 30))
        mask.save(tmp_path / "b_mask.png")
        seen = load_look(Known(images=ImageFiles([path])), ConditioningSpec("image", 20), Transform(), 1.0)
        assert isinstance(seen.images, Images)
        assert (seen.images.pixels[0] == pixels).all()  # found beside it

    def test_a_strip_does_not_become_a_square_of_its_length(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        strip = np.zeros((900, 12_000, 3), np.uint8)
        strip[:, 4000:8000] = 255
        Image.fromarray(strip).save(tmp_path / "a.png")
        made, new = [], Image.new
        monkeypatch.setattr(
            Image, "new", lambda mode, size, *color: made.append(size) or new(mode, size, *color)
        )
        assert load_image(tmp_path / "a.png", 32).shape == (32, 32, 3)
        assert max(width * height for width, height in made) <= 4096**2

    def test_a_wide_image_is_padded(self, tmp_path: Path):
        pixels = load_image(self.save(tmp_path / "a.png", size=(80, 40)), 40)
        assert pixels[20, 10].tolist() == [20, 200, 20]
        assert pixels[0, 0].tolist() == [200, 30, 30]

    def test_what_shows_nothing_is_refused(self, tmp_path: Path):
        Image.new("RGB", (40, 40), "blue").save(tmp_path / "a.png")
        with pytest.raises(NifError, match="all of one colour"):
            load_image(tmp_path / "a.png", 20)
        Image.new("RGBA", (40, 40)).save(tmp_path / "a.png")
        with pytest.raises(NifError, match="no object in it: its alpha channel is empty"):
            load_image(tmp_path / "a.png", 20)
        Image.new("RGB", (4, 40)).save(tmp_path / "a.png")
        with pytest.raises(NifError, match="4 x 40 pixels; at least 16"):
            load_image(tmp_path / "a.png", 20)
        (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
        with pytest.raises(NifError, match="cannot be read as an image"):
            load_image(tmp_path / "a.png", 20)
