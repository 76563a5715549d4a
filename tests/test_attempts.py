"""What a newcomer types first is done, or answered by how it is written."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from nif_cli import NifError
from nif_cli.attempts import Usage, meant
from nif_cli.data import recognise
from nif_cli.data.images.formats import pixels
from nif_cli.data.scenes.formats.naming import SUFFIXES
from nif_cli.data.shapes.formats import voxels
from nif_cli.geometry import mesh

BALL = trimesh.creation.icosphere(1)


def a_mesh(path: Path) -> None:
    BALL.export(path)


def a_cloud(path: Path) -> None:
    trimesh.PointCloud(BALL.vertices).export(path)


def a_image(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path)


def made(kind: str, here: Path) -> Path:
    """A small input of a kind, and the path that a user would type."""
    path = here / kind
    suffix = kind.rpartition(".")[2]
    if kind == "cloud.ply":
        a_cloud(path)
    elif suffix in ("ply", "obj", "stl", "off", "glb"):
        a_mesh(path)
    elif kind == "cloud.xyz":
        np.savetxt(path, BALL.vertices)
    elif kind == "cloud.npz":
        np.savez(path, points=BALL.vertices, normals=BALL.vertices)
    elif kind == "cloud.npy":
        np.save(path, BALL.vertices)
    elif kind == "image.npy":
        np.save(path, np.zeros((8, 9, 3), np.uint8))
    elif kind == "grid.npy":
        np.save(path, np.zeros((8, 9, 10), bool))
    elif kind == "grids.npz":
        np.savez(path, occupancy=np.zeros(128, np.uint8), shape=np.array([2, 8, 8, 8]))
    elif kind == "grid.npz":
        np.savez(path, grid=np.zeros((8, 8, 8), bool))
    elif kind == "grid.binvox":
        path.write_bytes(b"#binvox 1\n")
    elif suffix in ("png", "jpg", "tif"):
        a_image(path)
    elif suffix == "svg":
        path.write_text("<svg/>")
    elif suffix == "svgz":
        path.write_bytes(gzip.compress(b"<svg/>"))
    elif suffix == "json":
        path.write_text(json.dumps({"frames": []}))
    else:
        path.mkdir()
        _folder(kind, path)
    return path


def _folder(kind: str, path: Path) -> None:
    files = {
        "deepsdf": ["SdfSamples/a/b/c.npz"],
        "onet": ["chair/x/points.npz", "chair/x/img/000.png"],
        "blender": ["transforms_train.json", "transforms_test.json", "train/r_0.png"],
        "transforms": ["transforms.json", "images/0001.jpg", "images/0002.jpg"],
        "colmap": ["sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "images/1.jpg"],
        "colmap text": ["cameras.txt", "images.txt", "images/1.jpg"],
        "llff": ["poses_bounds.npy", "images/1.jpg"],
        "idr": ["cameras_sphere.npz", "image/000.png", "mask/000.png"],
        "meshes": ["a.obj", "b.ply", "b.png", "sub/c.stl"],
        "one mesh": ["a.obj", "a.mtl", "texture.png"],
        "voxels": ["a.binvox", "b.binvox"],
    }[kind]
    for name in files:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".obj", ".ply", ".stl"):
            a_mesh(file)
        elif file.suffix in (".png", ".jpg"):
            a_image(file)
        elif file.suffix == ".json":
            file.write_text(json.dumps({"frames": []}))
        else:
            file.write_bytes(b"x")


MESH = ["model=sdf", "data=meshes", "data.path="]
CLOUD = ["experiment=sdf_sal", "data=points", "data.path="]
IMAGE = ["model=image", "data=image", "data.path="]
CURVE = ["model=curve", "data=curve", "data.path="]
GRID = ["model=sdf", "data=voxels", "data.path="]
GRIDS = ["model=deepsdf", "data=voxels", "data.path="]
KINDS = {
    **dict.fromkeys(("a.ply", "a.obj", "a.stl", "a.off", "a.glb"), MESH),
    **dict.fromkeys(("cloud.ply", "cloud.xyz", "cloud.npz", "cloud.npy"), CLOUD),
    **dict.fromkeys(("a.png", "a b (1).jpg", "a.tif", "image.npy"), IMAGE),
    **dict.fromkeys(("a.svg", "a.svgz"), CURVE),
    **dict.fromkeys(("grid.npy", "grid.npz", "grid.binvox"), GRID),
    **dict.fromkeys(("grids.npz", "voxels"), GRIDS),
    "meshes": ["model=deepsdf", "data=meshes", "data.path="],
    "deepsdf": ["model=deepsdf", "data=deepsdf", "data.root="],
    "onet": ["model=occupancy", "data=onet", "data.root="],
    "blender": ["model=nerf", "data=blender", "data.root="],
    "transforms": ["model=nerf", "data=transforms", "data.root="],
    "transforms.json": ["model=nerf", "data=transforms", "data.root="],
    "colmap": ["model=nerf", "data=colmap", "data.root="],
    "colmap text": ["model=nerf", "data=colmap", "data.root="],
    "llff": ["model=nerf", "data=llff", "data.root="],
    "idr": ["model=neus", "data=idr", "data.root="],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_or_folder_is_recognised(tmp_path, capsys, kind):
    path = made(kind, tmp_path)
    model, data, key = KINDS[kind]
    assert meant("train", [str(path)]) == [model, data, f"{key}{path}"]
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert data in said
    assert model in said
    for words in (["data=auto", f"data.path={path}"], [f"data.path={path}"], [f"data.root={path}"]):
        assert meant("train", words) == [model, data, f"{key}{path}"]
    assert meant("train", [str(path), data]) == [f"{key}{path}", data], "what is given is kept"
    assert meant("train", [f"{key}{path}", data]) == [f"{key}{path}", data]
    if model.startswith("model="):
        assert meant("train", [str(path), model]) == [data, f"{key}{path}", model]


def test_a_model_chooses_how_its_file_is_read(tmp_path):
    path = made("a.obj", tmp_path)
    assert meant("train", [str(path), "model=texture"])[0] == "data=textured"
    assert meant("train", [str(path), "model=deepsdf"])[0] == "data=meshes"
    assert meant("train", [str(path), "experiment=sdf_fast"])[0] == "data=meshes"
    assert meant("train", [f"data.path={path}", "model=deepsdf"])[0] == "data=meshes"
    (tmp_path / "one mesh").mkdir()
    _folder("one mesh", tmp_path / "one mesh")
    assert meant("train", [str(tmp_path / "one mesh")])[-1] == f"data.path={tmp_path / 'one mesh' / 'a.obj'}"
    assert meant("train", [f"data.path={path}", "model=sdf"]) == [f"data.path={path}", "model=sdf"]


def test_what_is_ambiguous_is_a_question_with_the_answers(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        a_image(tmp_path / "photos" / name)
    path = tmp_path / "photos"
    with pytest.raises(NifError, match="which is meant") as asked:
        meant("train", [str(path)])
    said = str(asked.value)
    assert f"nif train model=metasdf data=image data.path={path}" in said
    assert f"nif train model=image data=image data.path={path / 'a.png'}" in said
    assert "COLMAP" in said
    assert meant("train", [str(path), "model=metasdf"])[:2] == ["data=image", f"data.path={path}"]
    _folder("llff", tmp_path / "photos")
    _folder("colmap", tmp_path / "photos")
    with pytest.raises(NifError, match=r"data=colmap.*data=llff"):
        meant("train", [str(path)])


def test_what_is_no_data(tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.docx").touch()
    cases = {
        "empty": "nothing in this folder",
        "x.docx": "not recognised",
        "no.obj": "no such file",
        "no/where": "no such file",
    }
    for name, said in cases.items():
        with pytest.raises(NifError, match=said):
            meant("train", [str(tmp_path / name)])
    for name in ("x.npz", "x.npy", "x.json", "x.ply"):  # damaged: named, whatever comes of it later
        (tmp_path / name).write_bytes(b"PK\x03\x04 \xff")
        with suppress(NifError):
            meant("train", [str(tmp_path / name)])
    with pytest.raises(NifError, match="resume="):
        meant("train", [str(run)])
    with pytest.raises(NifError, match="data=auto looks"):
        meant("train", ["data=auto"])


OPTIONS = {
    ("train", "--data", "x"): "nif has no --data; write data=x",
    ("extract", "--resolution", "64"): "nif has no --resolution; write resolution=64",
    ("extract", "--resolution=64"): "write resolution=64",
    ("render", "--output", "a b"): "write 'output=a b'",
    ("train", "--lr", "1e-3"): "write model.lr=1e-3",
    ("train", "--model.lr", "1e-3"): "write model.lr=1e-3",
    ("train", "--epochs", "9"): "write trainer.max_steps=9",
    ("train", "--output-dir", "x"): "write output_dir=x",
    ("train", "--bogus"): "key=value",
    ("train", "--resolution", "64"): "resolution=64 is written, for nif reconstruct, extract",
    ("train", "siren"): "write field=siren",
}


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_options_are_told_how_they_are_written(nif, words):
    done = nif(*words)
    assert done.code == 2
    assert OPTIONS[words] in done.err
    assert len(done.err.splitlines()) == 1


def test_hydras_own_flags_stay():
    for words in (
        ["-m", "seed=1,2"],
        ["--cfg", "job"],
        ["--multirun"],
        ["--config-dir=x"],
        ["-cd", "x"],
        ["~data"],
        ["--exp", "x.pickle"],
    ):
        assert meant("train", words) == words
    with pytest.raises(Usage):
        meant("train", ["--verbose"])


def test_a_word_alone_is_what_the_command_works_on(tmp_path, run):
    assert meant("extract", [str(run), "resolution=8"]) == [f"run={run}", "resolution=8"]
    assert meant("render", ["latest"]) == ["run=latest"]
    path = made("a.obj", tmp_path)
    other = made("a.ply", tmp_path)
    assert meant("reconstruct", [str(path)]) == [f"input={path}"]
    assert meant("prepare", [str(path), str(other), "output=x"]) == [
        f'input=["{path}","{other}"]',
        "output=x",
    ]
    assert meant("evaluate", [str(path), str(other)]) == [f"mesh={path}", f"reference={other}"]
    with pytest.raises(NifError, match="given too"):
        meant("extract", [str(run), "run=x"])


def test_hints_of_hydra_and_keys(nif, tiny):
    assert "-m" in nif("train", "seed=1,2").error
    assert "did you mean 'samples'" in nif("train", *tiny, "data.points=5").error
    said = nif("train", *tiny, "field=positional", "field.layers=5", "field.width=4").error
    assert "a width of at least" in said
    assert "NIF_ALLOW=mine." in nif("train", *tiny, "field._target_=mine.fields.Wavy").error
    assert "NIF_ALLOW" not in nif("train", *tiny, "field._target_=os.system").error
    assert "[optuna]'" in nif("train", "-m", "hydra/sweeper=optuna", "seed=1,2").error


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("10m", "00:00:10:00"),
        ("600", "00:00:10:00"),
        ("1h30m", "00:01:30:00"),
        ("00:00:02:00", "00:00:02:00"),
    ],
)
def test_times_as_people_write_them(nif, tiny, typed, written):
    done = nif("train", *tiny, f"trainer.max_time={typed}", "output_dir=timed")
    assert done.code == 0, done.err
    assert f"max_time: {written}" in Path("timed/config.yaml").read_text().replace("'", "")
    more = nif("train", "resume=timed", f"trainer.max_time={typed}", "trainer.max_steps=5")
    assert more.code == 0, more.err


def test_the_suffixes_are_those_that_are_read():
    assert set(recognise.MESHES) == set(mesh.READABLE)
    assert set(voxels.READABLE) == {*recognise.GRIDS, *recognise.ARRAYS}
    assert set(pixels.READABLE) | set(SUFFIXES) <= {*recognise.IMAGES, ".npy"}


def test_what_is_recognised_is_what_is_read():
    from nif_cli.data import recognise
    from nif_cli.data.images.formats import pixels
    from nif_cli.data.shapes.formats import voxels
    from nif_cli.geometry import mesh

    assert set(recognise.MESHES) == set(mesh.READABLE)
    assert {*recognise.IMAGES, ".npy"} == set(pixels.READABLE)
    assert {*recognise.GRIDS, *recognise.ARRAYS} == set(voxels.READABLE)
