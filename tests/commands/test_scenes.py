"""nif train, render and evaluate of scenes seen by cameras, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nif_cli.metrics.image import psnr

TINY = [
    "model=nerf",
    "field=nerf",
    "field.width=16",
    "field.layers=2",
    "field.skip=0",
    "model.coarse=8",
    "model.fine=8",
    "data.batch_rays=64",
    "trainer.max_time=null",
    "trainer.max_steps=4",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
]
TOY = ["data.views=3", "data.test=2", "data.size=16"]


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four scenes, two shapes in two materials. Not to be written to: see `scenes`."""
    from nif_cli.cli import main

    folder = tmp_path_factory.mktemp("seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        codes = ["model.shape_code=2", "model.appearance_code=3", "data.shapes=2", "data.materials=2"]
        with pytest.raises(SystemExit) as stopped:
            main(["train", *TINY, *TOY, *codes, "output_dir=run"])
    assert stopped.value.code == 0
    return folder / "run"


@pytest.fixture
def scenes(seen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(seen, tmp_path / "outputs" / "copy"))


def made(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_turntable_of_each_scene_without_its_data(nif, scenes):
    out = nif("render", f"run={scenes}", "frames=2", "size=12", "device=cpu")
    assert out.code == 0, out.err
    assert made(scenes / "renders") == [
        f"{s}/{m}.png" for s in ("chair_00", "table_01") for m in ("chequered", "striped")
    ]
    assert np.asarray(Image.open(scenes / "renders" / "chair_00" / "striped.png")).shape == (12, 24, 3)


def test_channels_and_values(nif, scenes):
    keys = ["instances=1", "frames=2", "size=8", "camera=spiral", "device=cpu"]
    out = nif(
        "render", f"run={scenes}", *keys, "channels=[rgb,depth,opacity,normal]", "format=npy", "output=out"
    )
    assert out.code == 0, out.err
    arrays = {
        n: np.load(f"out/chair_00/chequered{s}.npy")
        for n, s in (("rgb", ""), ("depth", "_depth"), ("normal", "_normal"))
    }
    assert arrays["rgb"].shape == (2, 8, 8, 3)
    assert arrays["depth"].shape == (2, 8, 8)
    assert arrays["depth"].dtype == np.float32
    lengths = np.linalg.norm(arrays["normal"], axis=-1)
    assert np.all((np.abs(lengths - 1) < 1e-4) | (lengths == 0))


def test_films_and_held_out_views(nif, scenes):
    out = nif(
        "render",
        f"run={scenes}",
        "instances=1",
        "frames=3",
        "size=8",
        "camera=spiral",
        "format=gif",
        "device=cpu",
    )
    assert out.code == 0, out.err
    with Image.open(scenes / "renders" / "chair_00" / "chequered.gif") as film:
        assert getattr(film, "n_frames", 1) >= 1
    out = nif("render", f"run={scenes}", "instances=1", "camera=test", "output=views", "device=cpu")
    assert out.code == 0, out.err
    assert made(Path("views")) == [f"chair_00/chequered/test/{k:03d}.png" for k in range(2)]
    assert Image.open("views/chair_00/chequered/test/001.png").size == (16, 16)


def test_a_path_through_given_poses(nif, scenes):
    poses = [[[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]] for x in (-0.2, 0.2)]
    listed = [{"camera_to_world": [n for row in p for n in row], "fov": 30} for p in poses]
    Path("path.json").write_text(json.dumps({"camera_path": listed}))
    keys = [f"run={scenes}", "instances=1", "camera=path", "size=8", "device=cpu"]
    out = nif("render", *keys, "path=path.json", "frames=5")
    assert out.code == 0, out.err
    assert "5 views (path)" in out.out
    assert "path=<file>" in nif("render", *keys).error
    Path("path.json").write_text(json.dumps({"frames": [{"transform_matrix": np.zeros((4, 4)).tolist()}]}))
    assert "frame 0: its pose is singular" in nif("render", *keys, "path=path.json").error
    Path("path.json").write_text("{}")
    assert "neither 'frames' nor 'camera_path'" in nif("render", *keys, "path=path.json").error


def test_shape_and_appearance_from_different_instances(nif, scenes):
    keys = [f"run={scenes}", "frames=1", "size=16", "device=cpu", "format=npy"]
    out = nif("render", *keys, "shape=chair_00/striped", "appearance=table_01/chequered", "output=mixed")
    assert out.code == 0, out.err
    assert nif("render", *keys, "instances=[chair_00/chequered]", "output=known").code == 0
    (mixed,) = Path("mixed").rglob("*.npy")
    (known,) = Path("known").rglob("*.npy")
    assert mixed.stem == "chair_00_striped--table_01_chequered"
    assert np.array_equal(np.load(mixed), np.load(known))  # the same two codes, by other instances
    assert "shape=chair: no such instance in this run" in nif("render", *keys, "shape=chair").error


def test_evaluation_can_be_measured_again_from_the_images(nif, scenes):
    """Quantised to 8 bits: the PNGs beside the truth are what the numbers are of."""
    out = nif("evaluate", f"run={scenes}", "device=cpu")
    assert out.code == 0, out.err
    assert "blender@16x16, 8 views" in out.out
    assert "left out: lpips" in out.out
    part = json.loads((scenes / "evaluation.json").read_text())["protocol"]["blender"]
    found = {}
    for id, views in part["views"].items():
        for name, metrics in views.items():
            a, b = (
                torch.from_numpy(
                    np.asarray(Image.open(scenes / "evaluation" / id / f"{name}{s}.png")) / 255.0
                )
                for s in ("", "_truth")
            )
            assert metrics["psnr"] == pytest.approx(psnr(a, b), abs=1e-4)
            found.setdefault(id, []).append(metrics["psnr"])
    for id, values in found.items():
        assert part["instances"][id]["psnr"] == pytest.approx(np.mean(values))
    assert part["mean"]["psnr"] == pytest.approx(np.mean([np.mean(v) for v in found.values()]))
    assert -1 < part["mean"]["ssim"] < 1
    assert (scenes / "evaluation" / "chair_00" / "striped" / "overview.png").is_file()


def test_evaluation_on_training_views_of_some_scenes(nif, scenes):
    out = nif(
        "evaluate",
        f"run={scenes}",
        "device=cpu",
        "split=train",
        "instances=1",
        "protocol=[blender,llff]",
        "output=e.json",
    )
    assert out.code == 0, out.err
    protocols = json.loads(Path("e.json").read_text())["protocol"]
    assert {n: len(p["views"]["chair_00/chequered"]) for n, p in protocols.items()} == {
        "blender": 3,
        "llff": 3,
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["render", "camera=orbit"], "camera=orbit: there is turntable, spiral, test"),
        (["render", "channels=[rbg]"], "did you mean 'rgb'"),
        (["render", "frames=0"], "frames=0"),
        (["render", "crop=[0,0,8,8]"], "crop: is for shapes and images"),
        (["render", "size=131072"], "size: an image of 131072 x 131072 pixels"),
        (["render", "size=60000"], "60000 x 60000 pixels do not fit in memory"),
        (["render", "camera=spiral", "frames=0"], "frames=0"),
        (["render", "format=exr"], "format=exr"),
        (["evaluate", "protocol=onet"], "this run is of views: blender, llff, mip360"),
        (["evaluate", "protocol=blendr"], "did you mean 'blender'"),
        (["evaluate", "split=val"], "split=val: a scene has train and test views"),
        (["evaluate", "+data.root=x"], "no key 'data.root'"),
    ],
)
def test_wrong_keys(nif, scenes, arguments, says):
    command, *keys = arguments
    assert says in nif(command, f"run={scenes}", "device=cpu", *keys).error


def test_shapes_have_no_views(nif, run):
    assert "the others are for scenes" in nif("render", f"run={run}", "camera=spiral").error
    assert "shape: is for scenes learned from views" in nif("render", f"run={run}", "shape=a").error
    assert "protocol=blender: for views" in nif("evaluate", f"run={run}", "protocol=blender").error


# photographs from files


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Nine photographs with transforms.json."""
    from nif_cli.rendering.camera_paths import turntable

    root = tmp_path / "fox"
    (root / "images").mkdir(parents=True)
    frames = []
    for k, pose in enumerate(turntable(9, up="z")):
        Image.fromarray(np.full((8, 12, 3), 20 * k, np.uint8)).save(root / "images" / f"{k}.png")
        frames.append({"file_path": f"images/{k}.png", "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]]})
    (root / "transforms.json").write_text(
        json.dumps({"fl_x": 12.0, "k1": 0.01, "aabb_scale": 2, "frames": frames})
    )
    return root


def test_from_photographs_to_numbers(nif, photographs):
    out = nif("train", *TINY, "data=transforms", f"data.root={photographs}", "output_dir=run")
    assert out.code == 0, out.err
    assert "9 images of 12 x 8 pixels (f 12, k1 undone); box +-2" in out.out
    assert "7 views to train on and 2 held out" in out.out
    moved = photographs.rename(photographs.with_name("elsewhere"))
    # a run needs nothing from outside
    assert nif("render", "run=run", "frames=1", "size=8", "device=cpu").code == 0
    assert "data.root=" in nif("evaluate", "run=run", "device=cpu").error
    out = nif("evaluate", "run=run", "device=cpu", f"+data.root={moved}")
    assert out.code == 0, out.err
    assert "llff@12x8, 2 views" in out.out


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["data=transforms", "data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["data=blender", "data.root={root}"], "data=transforms reads its transforms.json"),
        (["data=llff", "data.root={root}"], "poses_bounds.npy: no such file"),
        (["data=colmap", "data.root={root}"], "no COLMAP model"),
        (["data=blender", "data.root={root}", "data.near=7"], "near=7, far=6.0: near must be"),
        (["data=transforms", "data.root={root}", "data.aabb_scale=-1"], "aabb_scale=-1"),
        (["data=transforms", "data.root={root}", "data.near=90"], "data.near=90: fox ends at"),
        (["data=transforms", "data.root={root}", "data.background=green"], "data.background='green'"),
        (["data=transforms", "data.root={root}", "data.downscale=0"], "downscale=0"),
        (["data=transforms"], "data.root"),
    ],
)
def test_wrong_data(nif, photographs, keys, says):
    assert says in nif("train", *TINY, *(k.format(root=photographs) for k in keys)).error


def test_images_of_other_proportions(nif, photographs):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(photographs / "images" / "3.png")
    file = json.loads((photographs / "transforms.json").read_text())
    (photographs / "transforms.json").write_text(json.dumps({**file, "w": 12, "h": 8}))
    said = nif("train", *TINY, "data=transforms", f"data.root={photographs}").error
    assert "3.png: 9 x 9 pixels, but its camera has 12 x 8" in said


def test_a_damaged_image_leaves_no_run_behind(nif, photographs):
    path = photographs / "images" / "5.png"
    path.write_bytes(path.read_bytes()[:-30])
    said = nif("train", *TINY, "data=transforms", f"data.root={photographs}", "output_dir=run").error
    assert "5.png: cannot be read as an image" in said
    assert not Path("run").exists()


def test_the_preview_is_a_held_out_view(nif):
    keys = [k for k in TINY if k != "callbacks=quiet"]
    out = nif("train", *keys, *TOY, "callbacks.preview.size=12", "output_dir=run")
    assert out.code == 0, out.err
    assert Image.open("run/preview.png").size == (12, 12)
