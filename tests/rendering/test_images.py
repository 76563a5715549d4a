"""Images, sheets and files."""

import io

import numpy as np
import pytest
from PIL import Image

from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.image_files import gif_bytes, png_bytes, sheet, write_mp4
from nif_cli.rendering.images import surface_image


def test_a_ball_is_a_disc_of_the_right_size(ball):
    """The ball's silhouette covers (r / sqrt(d^2 - r^2) / tan(20 deg))^2 pi / 4 of the image."""
    pose = turntable(1)[0]
    image = surface_image(ball(0.6), pose, 64)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    seen = (image < 250).any(-1)
    expected = (
        (0.6 / np.sqrt(float(pose[:, 3].norm()) ** 2 - 0.6**2) / np.tan(np.radians(20))) ** 2 * np.pi / 4
    )
    assert seen.mean() == pytest.approx(expected, rel=0.08)
    rows, columns = np.nonzero(seen)
    assert abs(rows.mean() - 31.5) < 0.75
    assert abs(columns.mean() - 31.5) < 0.75
    assert (image[0, 0] == 255).all()


@pytest.mark.parametrize(("count", "columns"), [(1, None), (5, 3), (8, None)])
def test_a_sheet_holds_every_image(count, columns):
    images = [np.full((4, 4, 3), 10 * k, np.uint8) for k in range(count)]
    whole = sheet(images, columns)
    assert whole.shape[0] % 4 == whole.shape[1] % 4 == 0
    assert sorted(set(whole[::4, ::4, 0].ravel()) - {255}) == [10 * k for k in range(count)]
    if columns:
        assert whole.shape[1] == 4 * columns


def test_png_keeps_every_value(rng):
    image = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(image)))), image)


def test_gif_has_every_frame():
    frames = [np.full((8, 8, 3), v, np.uint8) for v in (0, 120, 250)]
    gif = Image.open(io.BytesIO(gif_bytes(frames)))
    assert getattr(gif, "n_frames", 1) == 3
    assert gif.size == (8, 8)


def test_mp4_takes_odd_sizes(tmp_path):
    frames = [np.full((33, 35, 3), v, np.uint8) for v in (0, 120, 250)]
    write_mp4(tmp_path / "a.mp4", frames)
    assert b"ftyp" in (tmp_path / "a.mp4").read_bytes()[:32]
