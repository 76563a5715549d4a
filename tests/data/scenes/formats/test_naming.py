"""Names of other systems and machines lead to the images that are there, and to no others."""

from pathlib import Path

import pytest

from nif_cli import NifError
from nif_cli.data.scenes.formats.naming import found, label, whereabouts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/a.png", "images/B.JPG", "images/._c.png", "deep/er/d.tif", "../out/e.png"):
        (tmp_path / "scene" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scene" / name).write_bytes(b"x")
    return tmp_path / "scene"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images/a.png", "images/a.png"),
        ("./images/a.png", "images/a.png"),
        ("images/a", "images/a.png"),
        ("images\\a.png", "images/a.png"),
        (".\\images\\a", "images/a.png"),
        ("C:\\Users\\x\\scene\\images\\a.png", "images/a.png"),
        ("D:/scene/images/a.png", "images/a.png"),
        ("/home/other/scene/images/a.png", "images/a.png"),
        ("/somewhere/a.png", "images/a.png"),
        ("a.png", "images/a.png"),
        ("images/b.jpg", "images/B.JPG"),
        ("images/b", "images/B.JPG"),
        ("IMAGES/../images/B", "images/B.JPG"),
        ("data/deep/er/d.tif", "deep/er/d.tif"),
        ("../out/e.png", "../out/e.png"),
        ("images/c.png", None),
        ("images/nothing.png", None),
        ("x" * 900, None),
    ],
)
def test_a_name_leads_to_its_file(folder, name, file):
    there = found(name, folder)
    assert (None if there is None else there.resolve()) == (
        None if file is None else (folder / file).resolve()
    )


def test_labels():
    assert (
        label("./images/a.png")
        == label("images\\a.png")
        == label("images/a")
        == label("../images/a.PNG")
        == "images/a"
    )
    assert label("..") == "image"
    assert label(".hidden/a.b") == ".hidden/a.b"


def test_what_lies_outside_is_said_and_one_file_is_not_two_images(folder):
    inside, out = folder / "images" / "a.png", folder / ".." / "out" / "e.png"
    assert whereabouts([("images/a.png", inside)], folder, folder) == ""
    assert "1 of them outside of its folder (the first: " in whereabouts(
        [("x", inside), ("../out/e.png", out)], folder, folder
    )
    with pytest.raises(NifError, match=r"cam1/a\.png and cam2/a\.png are two images"):
        whereabouts([("cam1/a.png", inside), ("cam2/a.png", inside)], folder, folder / "images.bin")
