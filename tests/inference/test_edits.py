"""New shapes of learned ones, through the command line: balls, whose volumes are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from nif_cli.geometry.mesh import load_mesh

# of the larger one, in its own units; 1 / 1.03 in normalised space. Facets and cells make it 2 % smaller
RADIUS = 20.0


@pytest.fixture(scope="module")
def balls(tmp_path_factory, cache) -> dict[str, Path]:
    """Two runs of balls around (100, -50, 7), of RADIUS and half of it: arrays of distances, filled and
    hardly trained."""
    from nif_cli.cli import main

    folder = tmp_path_factory.mktemp("balls")
    sets = [
        "field=voxel",
        "field.resolution=40",
        "model.lr=1e-12",
        "model.clamp=0.2",
        "data.surface_samples=100",
        "data.samples=100000",
    ]
    sets += [
        "trainer.max_time=null",
        "trainer.max_steps=2",
        "callbacks=quiet",
        "logger=csv",
        "device=cpu",
        "data.samples=30000",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NIF_CACHE", str(cache))
        for name, radius in (("large", RADIUS), ("small", RADIUS / 2)):
            mesh = trimesh.creation.icosphere(3, radius)
            mesh.apply_translation([100, -50, 7])
            mesh.export(folder / f"{name}.ply")
            with pytest.raises(SystemExit) as stopped:
                main(["train", "model=sdf", f"data.path={name}.ply", f"output_dir={name}", *sets])
            assert stopped.value.code == 0
    return {name: folder / name for name in ("large", "small")}


def cap(a: float, b: float, apart: float) -> float:
    """The volume that two balls share."""
    if apart >= a + b:
        return 0.0
    return math.pi * (a + b - apart) ** 2 * (apart**2 + 2 * apart * (a + b) - 3 * (a - b) ** 2) / (12 * apart)


def volume(radius: float) -> float:
    return 4 / 3 * math.pi * radius**3


@pytest.fixture
def compose(nif, balls):
    def run(*args: str, run: str | None = None) -> trimesh.Trimesh:
        """The one mesh that `nif extract` makes of the large ball and the small one moved by RADIUS along
        x."""
        done = nif(
            "extract", run or f"run=[{balls['large']},{balls['small']}]", "resolution=32", "output=out", *args
        )
        assert done.code == 0, done.err
        (path,) = [p for p in Path("out").rglob("*.ply") if str(p) in done.out]
        return load_mesh(path)

    return run


MOVED = f"place=[null,{{move:[{RADIUS},0,0]}}]"


def test_sets_in_the_users_units(compose):
    """Volumes of two balls of different runs, which lie together as their files say."""
    shared = cap(RADIUS, RADIUS / 2, RADIUS)
    expected = {
        "union": volume(RADIUS) + volume(RADIUS / 2) - shared,
        "intersection": shared,
        "difference": volume(RADIUS) - shared,
    }
    for how, wanted in expected.items():
        mesh = compose(f"compose={how}", MOVED)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(wanted, rel=0.06), how
    smooth = compose("compose=smooth_union", MOVED, "blend=1")
    assert smooth.volume > compose("compose=union", MOVED).volume
    assert Path("out/smooth_union/large--small.ply").is_file()


def test_the_normalised_frame_makes_them_alike(compose):
    """Both are balls of 1 / 1.03 there: one fills the other."""
    assert compose("compose=intersection", "frame=normalised").volume == pytest.approx(
        volume(1 / 1.03), rel=0.06
    )
    half = compose(
        "compose=union", "frame=normalised", "place=[null,{scale:0.5,turn:[0,90,0],move:[1.6,0,0]}]"
    )
    assert half.volume == pytest.approx(volume(1 / 1.03) + volume(0.5 / 1.03), rel=0.06)
    assert len(half.split()) == 2
    assert half.bounds[1, 0] == pytest.approx(1.6 + 0.5 / 1.03, abs=0.02)


def test_offset_and_shell_are_lengths_of_the_user(compose, balls):
    one = f"run={balls['large']}"
    # farther than these distances reach, 0.2 of the ball: they are measured
    thick = compose("offset=6", run=one)
    assert thick.volume == pytest.approx(volume(RADIUS + 6), rel=0.06)
    plain = compose(run=one).volume
    thin = compose("offset=-1.5", run=one).volume
    assert thin == pytest.approx(volume(RADIUS - 1.5), rel=0.08)
    assert compose("shell=1.5", run=one).volume == pytest.approx(plain - thin, rel=0.05)  # a wall of a cell
    assert Path("out/offset/large.ply").is_file()
    both = compose("compose=union", MOVED, "shell=1.5", "offset=0.5")
    assert both.volume < 0.7 * compose("compose=union", MOVED, "offset=0.5").volume


def test_a_morph_and_all_of_its_way(nif, balls):
    runs = f"run=[{balls['large']},{balls['small']}]"
    done = nif("extract", runs, "compose=morph", "interpolate=3", "resolution=32", "output=way")
    assert done.code == 0, done.err
    volumes = [load_mesh(Path(f"way/morph/large--small/{k:03d}.ply")).volume for k in range(3)]
    assert np.cbrt(volumes) == pytest.approx(np.cbrt([volume(RADIUS * k) for k in (1, 0.75, 0.5)]), rel=0.05)
    film = nif(
        "render", runs, "compose=morph", "share=0.5", "size=24", "format=png", "frames=1", "output=film"
    )
    assert film.code == 0, film.err
    assert (np.asarray(Image.open("film/morph/large--small.png"))[12, 12] < 250).any()


def test_images_of_composed_shapes_show_all_of_them(nif, balls):
    """The camera steps back from what no longer fits."""
    done = nif(
        "render", f"run=[{balls['large']},{balls['small']}]", "compose=union", "place=[null,{move:[80,0,0]}]",
        "frames=1", "size=64", "output=out", "channels=[opacity]", "elevation=0",
    )  # fmt: skip
    assert done.code == 0, done.err
    seen = np.asarray(Image.open("out/union/large--small_opacity.png"))[..., 0] > 128
    assert not np.concatenate((seen[0], seen[-1], seen[:, 0], seen[:, -1])).any()
    columns = np.flatnonzero(seen.any(0))
    assert (np.diff(columns) > 3).sum() == 1  # two balls, apart


def test_instances_of_one_run(nif, run):
    done = nif(
        "extract",
        f"run={run}",
        "instances=[chair/0000,lamp/0001]",
        "compose=union",
        "resolution=16",
        "level=-0.05",
    )
    assert done.code in (0, 1)
    assert "internal" not in done.err
    assert (run / "meshes/union/chair_0000--lamp_0001.ply").is_file() or "no surface" in done.err


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["compose=onion"], "did you mean 'union'"),
        (["compose=union"], "two shapes or more"),
        (["compose=union", "blend=0.1"], "smooth_union"),
        (["share=0.5"], "compose=morph"),
        (["place=[null]"], "compose="),
        (["compose=union", "sample=2"], "one of them"),
        (["compose=union", "interpolate=3"], "morph"),
        (["interpolate=3"], "two instances"),
        (["shell=-1"], "must be positive"),
        (["run=[a,b]"], "compose=union"),
        (["run=[a,b]", "compose=union"], "a: no such folder"),
        (["run=BOTH", "compose=union", "place=[null]"], "one entry a shape"),
        (["run=BOTH", "compose=union", "place=[null,{mvoe:1}]"], "move:"),
        (["run=BOTH", "compose=union", "place=[null,{move:1}]"], "three numbers"),
        (["run=BOTH", "compose=union", "place=[null,{scale:-1}]"], "positive"),
        (["run=BOTH", "compose=intersection", "place=[null,{move:[900,0,0]}]"], "apart"),
        (["run=BOTH", "compose=union", "instances=2"], "one instance of each"),
        (["run=BOTH", "compose=union", "instances=[large,big]"], "no 'big'"),
        (["run=BOTH", "compose=morph", "share=2"], "between 0"),
        (["run=BOTH", "compose=smooth_union", "blend=-1"], "at least 0"),
    ],
)
def test_mistakes_are_a_line(nif, balls, args, word):
    both = f"run=[{balls['large']},{balls['small']}]"
    args = [both if a == "run=BOTH" else a for a in args]
    if not any(a.startswith("run=") for a in args):
        args.append(f"run={balls['large']}")
    assert word in nif("extract", "resolution=8", *args).error
