"""Every kind of image comes as what it is; everything else is one line that names the file."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nif_cli import NifError
from nif_cli.data.images.formats.pixels import read_image

GREY = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8
RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
RGBA = np.random.default_rng(1).integers(0, 256, (6, 5, 4), np.uint8)


def png16(path: Path, pixels: np.ndarray) -> None:
    """A 16-bit PNG, written by hand: Pillow writes none in colour. Each row has another filter."""
    height, width, channels = pixels.shape
    raw = pixels.astype(">u2").tobytes()
    stride, rows = width * channels * 2, []
    for y in range(height):
        row = np.frombuffer(raw[y * stride : (y + 1) * stride], np.uint8).astype(int)
        before = (
            np.frombuffer(raw[(y - 1) * stride : y * stride], np.uint8).astype(int)
            if y
            else np.zeros(stride, int)
        )
        left = np.concatenate((np.zeros(2 * channels, int), row[: -2 * channels]))
        kind = y % 3  # none, sub, up
        rows.append(
            bytes([kind])
            + ((row - [0, left, before][kind]) % 256 if kind else row).astype(np.uint8).tobytes()
        )

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("pixels", [GREY[..., None], RGB, RGBA], ids=["grey", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
def test_eight_bits(tmp_path, pixels, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels.squeeze()).save(path)
    found = read_image(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay(tmp_path, channels):
    pixels = np.random.default_rng(2).integers(0, 65536, (6, 5, channels), np.uint16)
    png16(tmp_path / "a.png", pixels)
    found = read_image(tmp_path / "a.png")
    assert found.dtype == np.uint16
    assert np.array_equal(found, pixels)


def test_palettes_masks_and_cmyk_become_colours(tmp_path):
    image = Image.fromarray(RGB)
    for name, made in {
        "p.png": image.quantize(64),
        "1.png": image.convert("1"),
        "c.tif": image.convert("CMYK"),
    }.items():
        made.save(tmp_path / name)
        expected = np.asarray(made.convert("L" if made.mode == "1" else "RGB"))
        assert np.array_equal(read_image(tmp_path / name).squeeze(), expected)
    grey = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(GREY)))
    grey.save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").shape == (6, 5, 4)


def test_photographs_stand_upright(tmp_path):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6  # turned a quarter
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(RGB, -1))


def bomb(path: Path) -> None:
    """20,000 x 20,000 white pixels in 50 kB."""
    Image.new("1", (20_000, 20_000), 1).save(path, optimize=True)


BAD = {
    "missing.png": (lambda p: None, "no such file"),
    "folder.png": (lambda p: p.mkdir(), "one image is needed"),
    "text.png": (lambda p: p.write_text("hello"), "cannot be read as an image"),
    "half.png": (
        lambda p: (Image.fromarray(RGB).save(p), p.write_bytes(p.read_bytes()[:-40])),
        "cannot be read as an image",
    ),
    "bomb.png": (bomb, "refused"),
    "float.tif": (lambda p: Image.fromarray(GREY / 255.0).save(p), "floating-point"),
    "objects.npy": (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "Python objects"),
    "floats.npy": (lambda p: np.save(p, GREY / 255), "uint8 or uint16"),
    "five.npy": (lambda p: np.save(p, np.zeros((4, 4, 5), np.uint8)), r"\[4, 4, 5\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_named(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(NifError, match=message) as error:
        read_image(tmp_path / name)
    assert name in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_sixteen_bits_of_grey_with_alpha_and_of_tiff(tmp_path):
    """The bytes of LA pixels are those of RGBA of 8 bits; a TIFF is made out of its few tags."""
    pixels = np.random.default_rng(3).integers(0, 65536, (6, 5, 2), np.uint16)
    png16(tmp_path / "la.png", pixels)
    assert np.array_equal(read_image(tmp_path / "la.png"), pixels[..., [0, 0, 0, 1]])
    rgb = np.random.default_rng(4).integers(0, 65536, (6, 5, 3), np.uint16)
    for order, sign in (("<", b"II"), (">", b"MM")):
        tags = [
            (256, 5),
            (257, 6),
            (258, 122),
            (259, 1),
            (262, 2),
            (273, 128),
            (277, 3),
            (278, 6),
            (279, rgb.nbytes),
        ]
        entries = b"".join(
            struct.pack(order + "HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value)
            for tag, value in tags
        )
        head = sign + struct.pack(order + "HIH", 42, 8, len(tags)) + entries + struct.pack(order + "I", 0)
        head = head.ljust(122, b"\0") + struct.pack(order + "HHH", 16, 16, 16)
        (tmp_path / "a.tif").write_bytes(head + rgb.astype(order + "u2").tobytes())
        assert np.array_equal(read_image(tmp_path / "a.tif"), rgb)


def test_programs_pipes_and_films_are_no_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    os.mkfifo(tmp_path / "b.png")
    for name, message in (("a.png", "cannot be read as an image"), ("b.png", "not a regular file")):
        with pytest.raises(NifError, match=message):
            read_image(tmp_path / name)
    Image.fromarray(RGB).save(tmp_path / "c.tif", save_all=True, append_images=[Image.fromarray(RGB[::-1])])
    with pytest.warns(UserWarning, match="2 images in one file"):
        assert np.array_equal(read_image(tmp_path / "c.tif"), RGB)
