"""nif extract: what its options do to the files, and what it says of bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from other_readers import polygons_of_others

from nif_cli import runs
from nif_cli.geometry.mesh import load_mesh
from nif_cli.geometry.writing import WRITABLE


@pytest.fixture(scope="module")
def ball_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of a ball of radius 20 around (100, -50, 7), as an array of values: quick, and nearly exact."""
    from nif_cli.cli import main

    folder = tmp_path_factory.mktemp("ball")
    mesh = trimesh.creation.icosphere(3, 20.0)
    mesh.apply_translation([100, -50, 7])
    mesh.export(folder / "ball.ply")
    train = [
        "model=sdf",
        "field=voxel",
        "field.resolution=40",
        f"data.path={folder}/ball.ply",
        "data.samples=20000",
    ]
    train += ["trainer.max_steps=1", "trainer.max_time=null", "callbacks=quiet", "logger=csv", "device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NIF_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as stopped:
            main(["train", *train, "output_dir=run"])
    assert stopped.value.code == 0
    return str(folder / "run")


def extracted(nif, run: str, *options: object, format: str = "ply") -> trimesh.Trimesh:
    done = nif("extract", f"run={run}", "output=out", f"format={format}", *options)
    assert done.code == 0, done.err
    return trimesh.load_mesh(f"out/ball.{format}", process=False)


def test_sparse_is_dense_and_says_what_it_cost(nif, ball_run):
    sparse = extracted(nif, ball_run, "resolution=64")
    dense = nif("extract", f"run={ball_run}", "output=dense", "resolution=64", "method=dense")
    assert "262,144 evaluations" in dense.out
    assert len(trimesh.load_mesh("dense/ball.ply", process=False).faces) == len(sparse.faces)
    assert np.allclose(sparse.bounds.mean(0), [100, -50, 7], atol=0.5)


def test_bounds_are_in_the_users_units(nif, ball_run):
    half = extracted(nif, ball_run, "resolution=40", "bounds=[70,-80,-20,100,-20,40]")
    assert half.is_watertight
    assert half.bounds[1][0] == pytest.approx(100, abs=1e-3)
    assert half.volume == pytest.approx(2 / 3 * np.pi * 20**3, rel=0.05)
    part = extracted(nif, ball_run, "resolution=40", "frame=normalised", "bounds=[-1,-1,-1,0,1,1]")
    assert part.bounds[1][0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("format", ["ply", "obj", "glb"])
def test_options_together(nif, ball_run, format):
    """Fewer faces, the largest part, vertices on the level set, normals that point outwards."""
    mesh = extracted(
        nif, ball_run, "resolution=48", "faces=500", "largest=true", "refine=2", "normals=true", format=format
    )
    assert len(mesh.faces) <= 500
    assert mesh.is_watertight
    normals = np.asarray(mesh.vertex_normals)
    assert "vertex_normals" in mesh._cache  # from the file
    outwards = (mesh.vertices - [100, -50, 7]) / 20
    assert (
        (normals * outwards).sum(1) > 0.3
    ).all()  # those of a coarse array: where two of its cells meet they differ
    assert np.median((normals * outwards).sum(1)) > 0.97


BAD = {
    "resolution=1": "resolution=1: at least 2",
    "coarse=0": "coarse=0: at least 1",
    "faces=3": "faces=3: at least 4",
    "refine=-1": "refine=-1: at least 0",
    "bounds=[1,2,3]": "six numbers",
    "bounds=[a,b,c,d,e,f]": "six numbers",
    "bounds=[0,0,0,1,-1,1]": "the lower corner comes first",
    "bounds=[0,0,0,1,1,1]": "bounds: outside of ball, which lies within [",
    "bounds=[.nan,0,0,1,1,1]": "bounds",
    "method=fast": "method=fast: must be sparse or dense",
    "format=fbx": "format=fbx: no mesh format",
    "level=9": "no surface",
    "resolution=200000": "GiB do not fit in memory; lower it",
}


@pytest.mark.parametrize(("option", "message"), BAD.items(), ids=BAD)
def test_bad_options_are_one_line(nif, ball_run, option, message):
    assert message in nif("extract", f"run={ball_run}", "output=out", option).error


def test_stl_holds_no_normals(nif, ball_run):
    assert (
        "normals: stl files hold none"
        in nif("extract", f"run={ball_run}", "normals=true", "format=stl").error
    )


@pytest.fixture(scope="module", params=[0.0, 5e5, 4e6], ids=["here", "projected", "earth"])
def building(request, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of a house of 12 x 9 x 7 m, as far from the origin as projected and geocentric places are."""
    from nif_cli.cli import main

    folder = tmp_path_factory.mktemp("building")
    mesh = trimesh.creation.box([12.0, 9.0, 7.0])
    mesh.vertices += request.param * np.array([1.0, 0.8, -0.1]) + [0.25, 0.5, 0.125]
    rows = "".join("v {!r} {!r} {!r}\n".format(*v) for v in mesh.vertices.tolist())
    faces = "".join("f {} {} {}\n".format(*f) for f in (mesh.faces + 1).tolist())
    (folder / "house.obj").write_text(rows + faces)
    train = ["model=sdf", "field=voxel", "field.resolution=24", f"data.path={folder}/house.obj"]
    train += ["data.samples=5000", "trainer.max_steps=1", "trainer.max_time=null", "callbacks=quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NIF_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as stopped:
            main(["train", *train, "logger=csv", "device=cpu", "output_dir=run"])
    assert stopped.value.code == 0
    return str(folder / "run")


def meant(path: Path, offset: object, scale: float) -> np.ndarray:
    """Triangles [F, 3, 3] of a file in normalised space, where they were meant."""
    return np.array(polygons_of_others(path)) / scale - np.asarray(offset)


@pytest.mark.parametrize("format", WRITABLE)
def test_another_reader_finds_a_building_where_it_stands(nif, building, format):
    """To 1e-6 of its size (and to what doubles hold), or a warning says how much is lost."""
    transform = next(iter(runs.load_model(Path(building)).instances.values())).transform
    own = ["resolution=24", "device=cpu", "method=dense"]
    assert nif("extract", f"run={building}", "frame=normalised", "format=off", "output=n", *own).code == 0
    done = nif("extract", f"run={building}", f"format={format}", "output=o", *own)
    assert done.code == 0, done.err
    truth = meant(Path("n/house.off"), transform.offset, transform.scale)
    found = np.array(polygons_of_others(Path(f"o/house.{format}")))
    size = float(np.ptp(truth, axis=(0, 1)).max())
    assert size == pytest.approx(12, rel=0.1)
    apart = np.abs(found - truth).max() / size
    assert (apart < 1e-6) == ("warning" not in done.out), (apart, done.out)
    own_reader = load_mesh(f"o/house.{format}")
    away = np.abs(np.asarray(own_reader.bounds) - [truth.min((0, 1)), truth.max((0, 1))]).max()
    assert away < 1e-6 * size
