"""nif prepare: what it writes, that it goes on where it stopped, and what it says when it cannot."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from narrowing import sure

from nif_cli import NifError, files
from nif_cli.commands import prepare
from nif_cli.commands.engine import Local
from nif_cli.data.shapes import preprocess
from nif_cli.data.shapes.formats import deepsdf
from nif_cli.data.shapes.formats.onet import OnetTree
from nif_cli.data.shapes.preprocess import Settings, ShapeJob, prepare_shape
from nif_cli.files import DiskError, write
from nif_cli.geometry.distance import MeshDistance
from nif_cli.schemas import Prepare

FEW = ["samples=3000", "surface_samples=600"]
MAJOR, MINOR = 1.0, 0.4


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A sphere of radius 20 and a torus, both far from the origin."""
    folder = tmp_path / "in"
    (folder / "round").mkdir(parents=True)
    sphere = trimesh.creation.icosphere(5, 20.0)
    torus = trimesh.creation.torus(MAJOR, MINOR, major_sections=256, minor_sections=128)
    for mesh, name in ((sphere, "round/sphere.ply"), (torus, "torus.obj")):
        mesh.apply_translation([100, -50, 7])
        mesh.export(folder / name)
    return folder


def exact(id: str, points: np.ndarray) -> np.ndarray:
    """The analytic signed distance of both, in the user's units, positive inside."""
    p = points - [100, -50, 7]
    if id.endswith("sphere"):
        return 20 - np.linalg.norm(p, axis=1)
    return MINOR - np.hypot(np.hypot(p[:, 0], p[:, 1]) - MAJOR, p[:, 2])


def test_round_trip_against_analytic_shapes(nif: Callable, inputs: Path, tmp_path: Path) -> None:
    """Prepared, read back and compared with the sphere and the torus, in the user's units."""
    result = nif(
        "prepare", f"input={inputs}", f"output={tmp_path / 'out'}", "format=[deepsdf,onet]", "workers=2", *FEW
    )
    assert result.code == 0, result.err
    assert "2 of 2 shapes" in result.out
    root = deepsdf.find_root(tmp_path / "out")
    entries = deepsdf.read_split(root)
    assert [e.id for e in entries] == ["in/torus", "round/sphere"]
    for entry in entries:
        shape = deepsdf.read(root, entry)
        distance, surface = sure(shape.distance), sure(shape.surface)
        scale = shape.transform.scale
        assert len(shape.points) == 3000
        assert np.linalg.norm(surface, axis=1).max() <= 1 / 1.03 + 1e-5
        want = exact(entry.id, shape.transform.to_original(shape.points)) * scale
        assert np.abs(distance - want).max() < 1e-3  # the meshes are polyhedra
        assert ((distance > 0) == (want > 0))[np.abs(want) > 1e-3].all()
        assert np.abs(exact(entry.id, shape.transform.to_original(surface))).max() * scale < 1e-3
        outward = shape.transform.to_original(surface + 0.01 * sure(shape.normals))
        assert (exact(entry.id, outward) < 0).all()
    tree = OnetTree(tmp_path / "out")
    for entry in tree.entries(split="train"):
        shape = tree.read(entry)
        surface = sure(shape.surface)
        want = exact(entry.id, shape.transform.to_original(shape.points)) * shape.transform.scale
        assert (shape.inside == (want > 0))[np.abs(want) > 2e-3].all()
        assert np.abs(np.ptp(surface, axis=0).max() - 1) < 0.01
        apart = np.abs(exact(entry.id, shape.transform.to_original(surface))).max()
        assert apart * shape.transform.scale < 2e-3
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {line["id"] for line in report["shapes"]} == {"in/torus", "round/sphere"}
    line = report["shapes"][0]
    assert line["watertight"]
    assert line["doubts"] == []
    sphere = next(line for line in report["shapes"] if line["id"] == "round/sphere")
    assert sphere["volume"] == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert sphere["thinnest"] > 30


def test_training_reads_it(nif: Callable, inputs: Path, tmp_path: Path, tiny: list[str]) -> None:
    nif(
        "prepare", f"input={inputs}", f"output={tmp_path / 'out'}", "format=[deepsdf,onet]", "workers=1", *FEW
    )
    few = [t for t in tiny if "samples" not in t]
    data = [f"data.root={tmp_path / 'out'}", f"data.observations={tmp_path / 'out'}"]
    result = nif("train", "model=deepsdf", "data=deepsdf", *data, *few, "model.code_size=4", "output_dir=run")
    assert result.code == 0, result.err
    assert "2 shapes, 6,000 points" in result.out
    onet = ["data=onet", f"data.root={tmp_path / 'out'}", *few]
    assert "needs distances; run nif prepare" in nif("train", "model=deepsdf", *onet).error
    one = ["data.instances=in/torus", "model.objective=eikonal", "output_dir=run2"]
    result = nif("train", "model=sdf", *onet, *one)
    assert result.code == 0, result.err


def arrays(root: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(root.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found |= {f"{path.relative_to(root)}/{name}": file[name] for name in file.files}
    return found


def test_the_same_whatever_the_number_of_workers(inputs: Path, tmp_path: Path, nif: Callable) -> None:
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        assert (
            nif(
                "prepare",
                f"input={inputs}",
                f"output={out}",
                "format=[deepsdf,onet]",
                f"workers={workers}",
                *FEW,
            ).code
            == 0
        )
    one, two = arrays(tmp_path / "out1"), arrays(tmp_path / "out2")
    assert one.keys() == two.keys()
    assert all((one[k] == two[k]).all() for k in one)
    assert nif("prepare", f"input={inputs}", f"output={tmp_path / 'out3'}", "seed=1", *FEW).code == 0
    three = arrays(tmp_path / "out3")
    assert any(
        (three[k].shape != one[k].shape) or (three[k] != one[k]).any() for k in three if k.endswith("/pos")
    )


def task(path: Path, output: Path, name: str = "a") -> ShapeJob:
    return ShapeJob(str(path), "set", "class", name, str(output))


SETTINGS = Settings(("deepsdf", "onet"), samples=500, surface_samples=100)


def test_finished_shapes_are_skipped_and_half_finished_ones_redone(inputs: Path, tmp_path: Path) -> None:
    here = task(inputs / "torus.obj", tmp_path / "out")
    first = prepare_shape(here, SETTINGS)
    before = arrays(tmp_path / "out")
    again = prepare_shape(here, SETTINGS)
    assert again["skipped"]
    assert {k: v for k, v in again.items() if k != "skipped"} == first
    # one of its files is gone: it was never finished
    (tmp_path / "out/onet/class/a/points.npz").unlink()
    assert "skipped" not in prepare_shape(here, SETTINGS)
    assert all((before[k] == v).all() for k, v in arrays(tmp_path / "out").items())
    # other settings, or another mesh: another shape
    assert "skipped" not in prepare_shape(
        here, Settings(("deepsdf", "onet"), samples=600, surface_samples=100)
    )
    (inputs / "torus.obj").write_bytes((inputs / "torus.obj").read_bytes() + b"\n# changed\n")
    assert "skipped" not in prepare_shape(here, SETTINGS)


def test_a_full_disk_leaves_finished_shapes_valid(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = task(inputs / "torus.obj", tmp_path / "out", "done")
    prepare_shape(done, SETTINGS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(DiskError, match="the disk is full"):
            prepare_shape(task(inputs / "torus.obj", tmp_path / "out", "next"), SETTINGS)
    assert not [p for p in (tmp_path / "out").rglob("*") if "next" in p.name and p.is_file()]
    assert prepare_shape(done, SETTINGS)["skipped"]


def dying(task: ShapeJob, settings: Settings) -> dict:
    """In place of prepare_shape, in a worker process."""
    if task.name == "killed":
        os._exit(9)
    if task.name == "full":
        raise DiskError("x.npz: cannot be written: the disk is full")
    return {"id": task.id, "doubts": []}


def test_a_worker_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape that kills its process is named; all others are done."""
    monkeypatch.setattr(preprocess, "prepare_shape", dying)
    tasks = [task(tmp_path, tmp_path, name) for name in ("a", "b", "killed", "c", "d")]
    lines = {line["id"]: line for line in prepare._work(tasks, SETTINGS, 2, Local())}
    assert len(lines) == 5
    assert [id for id, line in lines.items() if "error" in line] == ["class/killed"]
    assert "its process died" in lines["class/killed"]["error"]


def test_a_full_disk_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "prepare_shape", dying)
    tasks = [task(tmp_path, tmp_path, name) for name in ("a", "full")]
    with pytest.raises(NifError, match=r"the disk is full\. Finished shapes are valid"):
        list(prepare._work(tasks, SETTINGS, 1, Local()))


def test_bad_meshes_are_named_and_the_others_done(nif: Callable, inputs: Path, tmp_path: Path) -> None:
    (inputs / "empty.ply").write_bytes(b"")
    (inputs / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    trimesh.creation.icosphere(2).export(inputs / "half.ply")
    data = (inputs / "half.ply").read_bytes()
    (inputs / "half.ply").write_bytes(data[: len(data) // 2])
    result = nif("prepare", f"input={inputs}", f"output={tmp_path / 'out'}", "workers=1", *FEW)
    assert "3 of 5 shapes failed" in result.error
    for name in ("empty", "points", "half"):
        assert f"in/{name}: " in result.out
    assert "Traceback" not in result.out
    assert len(deepsdf.read_split(tmp_path / "out" / "deepsdf")) == 2


def test_what_was_turned_needs_no_repair(nif: Callable, tmp_path: Path) -> None:
    """Faces that reading has turned are said; repair= is named where it would mend more. What failed leaves
    the others ready, if there are any."""
    (tmp_path / "in").mkdir()
    ball = trimesh.creation.icosphere(2)
    ball.invert()
    ball.export(tmp_path / "in" / "turned.ply")
    result = nif("prepare", "input=in", "output=turned", *FEW)
    assert "inside out: turned" in result.out
    assert "repair=" not in result.out
    trimesh.Trimesh(ball.vertices, ball.faces[5:], process=False).export(tmp_path / "in" / "open.ply")
    assert "repair=fill" in nif("prepare", "input=in", "output=open", *FEW).out
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "empty.glb").touch()
    result = nif("prepare", "input=bad", "output=bad_out", *FEW)
    assert "empty.glb: not glTF: the file is empty" in result.out
    assert "1 of 1 shapes failed" in result.error
    assert "others" not in result.error


def test_open_meshes_are_doubtful_and_repaired(nif: Callable, tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(3)
    both = np.concatenate((ball.faces, ball.faces[:, ::-1]))
    (tmp_path / "in").mkdir()
    trimesh.Trimesh(ball.vertices, both, process=False).export(tmp_path / "in" / "doubled.ply")
    result = nif("prepare", "input=in", "output=none", *FEW)
    assert "1 of 1 shapes are doubtful" in result.out
    assert "no point is inside" in result.out
    assert "50% of the faces are there twice" in result.out
    for repair in ("fill", "solid"):
        result = nif(
            "prepare", "input=in", f"output={repair}", f"repair={repair}", "solid_resolution=64", *FEW
        )
        assert result.code == 0
        assert "doubtful" not in result.out
        line = json.loads((tmp_path / repair / "report.json").read_text())["shapes"][0]
        assert line["watertight"]
        assert line["before"]["doubled_faces"] == len(ball.faces)
        shape = deepsdf.read(tmp_path / repair / "deepsdf", deepsdf.DeepSdfEntry("in", "in", "doubled"))
        want = 1 / 1.03 - np.linalg.norm(shape.points, axis=1)
        assert np.abs(shape.distance - want).max() < 0.05


def test_distances_are_exact(inputs: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """Against float64 brute force over every triangle: at most 1e-6 off in the unit ball."""
    trimesh.creation.torus(1, 0.4, major_sections=16, minor_sections=9).export(tmp_path / "small.ply")
    prepare_shape(task(tmp_path / "small.ply", tmp_path / "out"), Settings(samples=400, surface_samples=10))
    root = tmp_path / "out" / "deepsdf"
    shape = deepsdf.read(root, deepsdf.DeepSdfEntry("set", "class", "a"))
    distance, mesh = sure(shape.distance), trimesh.load_mesh(tmp_path / "small.ply")
    triangles = shape.transform.to_normalised(mesh.triangles)
    points = shape.points.astype(np.float64)
    nearest = np.full(len(points), np.inf)
    for triangle in triangles:
        closest = trimesh.triangles.closest_point(np.broadcast_to(triangle, (len(points), 3, 3)), points)
        nearest = np.minimum(nearest, np.linalg.norm(points - closest, axis=1))
    assert np.abs(np.abs(distance) - nearest).max() < 1e-6
    # and the signs by the solid angles of all triangles, without any approximation
    a, b, c = (triangles[None] - points[:, None, None]).transpose(2, 0, 1, 3)
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    up = (a * np.cross(b, c)).sum(-1)
    down = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    winding = 2 * np.arctan2(up, down).sum(1) / (4 * np.pi)
    assert ((distance > 0) == (winding > 0.5)).all()
    assert MeshDistance(mesh.vertices, mesh.faces)  # the same class that training uses


def test_shapenet_names(tmp_path: Path) -> None:
    for name in ("x/1/models/model_normalized.obj", "x/2/model.obj", "y/3.ply"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        trimesh.creation.box().export(path)
    config = Prepare(input=str(tmp_path / "in"))
    _, tasks = prepare._tasks(config, tmp_path / "out")
    assert sorted(t.id for t in tasks) == ["x/1", "x/2", "y/3"]
    _, tasks = prepare._tasks(Prepare(input=f"{tmp_path}/in/x/*/model.obj"), tmp_path / "out")
    assert [t.id for t in tasks] == ["x/2"]


def test_splits(nif: Callable, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(12):
        trimesh.creation.box().export(tmp_path / "in" / f"{i}.ply")
    result = nif(
        "prepare",
        "input=in",
        "output=out",
        "samples=20",
        "surface_samples=9",
        "val=0.3",
        "test=0.3",
        "format=[deepsdf,onet]",
    )
    assert result.code == 0, result.err
    parts = [
        deepsdf.read_split(tmp_path / "out/deepsdf", f"split_{name}.json")
        for name in ("train", "val", "test")
    ]
    assert sum(map(len, parts)) == 12
    tree = OnetTree(tmp_path / "out")
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        assert [e.id for e in tree.entries(split=name)] == [e.id for e in part]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "input is missing: give input="),
        (["input=nowhere"], "no such file or folder: nowhere"),
        (["input='*.xyz'"], "no file matches"),
        (["input=in", "output=in"], "not empty, and not made by nif prepare"),
        (["input=in", "format=[depsdf]"], "did you mean 'deepsdf'"),
        (["input=in", "repair=glue"], "must be none, fill, solid"),
        (["input=in", "samples=0"], "samples=0: at least 2"),
        (["input=in", "workers=0"], "workers=0: at least 1"),
        (["input=in", "samples=many"], "samples"),
        (["input=in", "spread=x"], "spread"),
        (["input=in", "uniform=2"], "between 0 and 1"),
        (["input=in", "val=0.5", "test=0.5"], "nothing to train on"),
        (["input=in", "sample=3"], "did you mean 'samples'"),
        (["input=in", "output=/proc/nif"], "cannot be written"),
    ],
)
def test_wrong_keys(nif: Callable, inputs: Path, overrides: list[str], message: str) -> None:
    if not any(o.startswith("output=") for o in overrides):
        overrides = [*overrides, "output=out"]
    assert message in nif("prepare", *overrides).error


def test_two_meshes_of_one_name(nif: Callable, inputs: Path) -> None:
    trimesh.creation.box().export(inputs / "torus.ply")
    assert "two meshes would be called 'in/torus'" in nif("prepare", f"input={inputs}", "output=out").error


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match="the disk is full; what was there before is untouched"):
        write(path, fails)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.data
@pytest.mark.skipif("NIF_DATA" not in os.environ, reason="NIF_DATA is not set")
def test_a_real_bench_becomes_a_solid(tmp_path: Path) -> None:
    mesh = next((Path(os.environ["NIF_DATA"]).resolve() / "shapenet-benches-raw").glob("1b40*/models/*.obj"))
    none = prepare_shape(task(mesh, tmp_path / "none"), Settings(samples=2000, surface_samples=100))
    assert none["doubts"][0] == "no point is inside: a surface without volume"
    line = prepare_shape(
        task(mesh, tmp_path / "solid"),
        Settings(repair="solid", samples=2000, surface_samples=100, solid_resolution=96),
    )
    assert line["watertight"]
    assert line["inside"] > 0.1
    assert line["doubts"] == []
