"""nif reconstruct, nif evaluate, and the latent space in nif extract and nif render, through the command
line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from other_readers import polygons_of_others

from nif_cli.geometry.writing import WRITABLE

FEW = ["steps=3", "restarts=1", "points=200", "resolution=24", "device=cpu"]


@pytest.fixture
def round_run(run: Path) -> Path:
    """The run, with a decoder that knows balls: whatever a few steps of training made of it, it has a
    surface."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    state = checkpoint["state_dict"]
    width = state["network.hidden.0.weight"].shape[0]
    features = state["network.hidden.0.weight"].shape[1] - 4
    for name in state:
        if name.startswith("network."):
            state[name].zero_()
    # relu(+-x), relu(+-y), relu(+-z) sum to |x| + |y| + |z|: an octahedron whose size is the first number of
    # the code
    for k in range(6):
        state["network.hidden.0.weight"][k, features - 3 + k // 2 if features > 3 else k // 2] = (
            1 if k % 2 else -1
        )
    state["network.hidden.0.weight"][6, features] = 1
    state["network.hidden.0.bias"][6] = 1
    for k in range(7):
        state["network.hidden.1.weight"][k, k] = 1
    state["network.last.weight"][0, :6] = -0.5
    state["network.last.weight"][0, 6] = 0.3
    codes = state["codes.weight"]
    codes.zero_()
    codes[:, 0] = torch.linspace(-0.5, 0.5, len(codes))
    assert width >= 7
    torch.save(checkpoint, path)
    return run


@pytest.fixture
def octahedron(tmp_path: Path) -> Path:
    mesh = trimesh.creation.box(extents=(1, 1, 1))
    mesh = trimesh.Trimesh(
        np.concatenate((np.eye(3), -np.eye(3))) * 20 + [100, -50, 7],
        [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]],
    )
    assert mesh.is_watertight
    mesh.export(tmp_path / "given.ply")
    return tmp_path / "given.ply"


def test_the_fixture_has_surfaces(nif, round_run):
    out = nif("extract", f"run={round_run}", "resolution=24", "instances=all")
    assert out.code == 0, out.err
    assert out.out.count("closed") == 6


@pytest.mark.parametrize("observe", ["samples", "oriented", "points", "depth"])
def test_reconstruct_writes_mesh_and_report_in_the_users_units(nif, round_run, octahedron, observe):
    out = nif(
        "reconstruct", f"run={round_run}", f"input={octahedron}", f"observe={observe}", "steps=60", *FEW[1:]
    )
    assert out.code == 0, out.err
    folder = round_run / "reconstructions"
    mesh = trimesh.load_mesh(folder / "given.ply")
    assert np.allclose(mesh.bounds.mean(0), [100, -50, 7], atol=2)
    assert 10 < np.ptp(mesh.vertices, axis=0).max() < 60
    report = json.loads((folder / "given.json").read_text())
    assert report["steps"] == 60
    assert report["loss"] >= 0
    assert report["seconds"] > 0
    assert len(report["nearest"]) == 3
    assert (
        report["nearest"][0]["id"] in json.dumps(sorted(p.stem for p in folder.iterdir()))
        or report["nearest"][0]["distance"] >= 0
    )
    with np.load(folder / "given.npz") as state:
        assert state["code"].shape == (4,)


def test_a_folder_of_different_files(nif, round_run, octahedron, rng):
    folder = octahedron.parent / "inputs"
    (folder / "sub").mkdir(parents=True)
    points = trimesh.sample.sample_surface(trimesh.load_mesh(octahedron), 500, seed=0)[0]
    np.save(folder / "scan.npy", points)
    np.savetxt(folder / "sub" / "scan.xyz", points)
    grid = np.zeros((12, 12, 12), bool)
    grid[3:9, 3:9, 3:9] = True
    np.save(folder / "grid.npy", grid)
    out = nif("reconstruct", f"run={round_run}", f"input={folder}", *FEW)
    assert out.code == 0, out.err
    made = round_run / "reconstructions"
    assert (made / "scan.ply").is_file()
    assert (made / "sub" / "scan.ply").is_file()
    assert (made / "grid.ply").is_file()
    (folder / "broken.npy").write_bytes(b"nothing")
    out = nif("reconstruct", f"run={round_run}", f"input={folder}", "output=again", *FEW)
    assert out.code == 1  # said, and the others are made all the same
    assert "broken.npy" in out.out
    assert Path("again/scan.ply").is_file()


def test_completion_and_a_given_normalisation(nif, round_run, octahedron):
    args = [f"run={round_run}", f"input={octahedron}", "observe=oriented", *FEW]
    assert nif("reconstruct", *args, "keep=x+", "output=half").code == 0
    assert nif("reconstruct", *args, "frame=normalised", "picture=true", "output=n").code == 0
    assert np.abs(trimesh.load_mesh("n/given.ply").vertices).max() <= 1
    assert Path("n/given.png").is_file()
    assert nif("reconstruct", *args, f"normalise={octahedron}", "output=like").code == 0
    assert "normalise" in nif("reconstruct", *args, "normalise=nobody").error


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["input=nowhere.ply"], "nowhere.ply"),
        (["observe=image"], "samples, oriented"),
        (["observe=points", "keep=up"], "x+"),
        (["steps=0"], "positive"),
        (["points=0"], "points=0"),
        (["format=doc"], "format=doc"),
        (["noise=-1"], "noise"),
        (["resolutoin=3"], "resolution"),
    ],
)
def test_reconstruct_says_what_is_wrong(nif, round_run, octahedron, args, word):
    given = [] if any(a.startswith("input") for a in args) else [f"input={octahedron}"]
    few = [f for f in FEW if f.split("=")[0] not in [a.split("=")[0] for a in args]]
    assert word in nif("reconstruct", f"run={round_run}", *given, *few, *args).error


def test_a_model_of_one_shape_says_that_it_infers_none(nif, tiny, sphere_file):
    one = nif("train", "model=sdf", f"data.path={sphere_file}", "output_dir=one", *tiny)
    assert one.code == 0, one.err
    assert "deepsdf" in nif("reconstruct", "run=one", f"input={sphere_file}").error


def test_evaluate_known_and_new_shapes(nif, round_run):
    out = nif(
        "evaluate",
        f"run={round_run}",
        "protocol=[deepsdf,onet]",
        "resolution=24",
        "instances=2",
        "device=cpu",
    )
    assert out.code == 0, out.err
    assert "chamfer_l1" in out.out
    report = json.loads((round_run / "evaluation.json").read_text())
    part = report["protocol"]["onet"]
    assert len(part["instances"]) == 2
    values = [m["chamfer_l1"] for m in part["instances"].values()]
    assert part["mean"]["chamfer_l1"] == pytest.approx(np.mean(values))
    assert part["median"]["chamfer_l1"] == pytest.approx(np.median(values))
    assert part["instances"][part["worst"]["chamfer_l1"]]["chamfer_l1"] == max(values)
    assert part["units"]["chamfer_l1"]
    assert report["inferred"] == {}
    again = nif(
        "evaluate",
        f"run={round_run}",
        "protocol=[onet,deepsdf]",
        "resolution=24",
        "instances=2",
        "output=b.json",
        "device=cpu",
    )
    assert again.code == 0
    assert json.loads(Path("b.json").read_text())["protocol"] == report["protocol"]  # the seed decides
    new = nif("evaluate", f"run={round_run}", "split=test", "instances=2", "output=c.json", *FEW)
    assert new.code == 0, new.err
    report = json.loads(Path("c.json").read_text())
    assert list(report["inferred"]) == list(report["protocol"]["onet"]["instances"])
    assert all("test" in id for id in report["inferred"])


def test_evaluate_leaves_out_what_cannot_be_read_and_ends_with_one(nif, round_run, octahedron):
    Path("folder").mkdir()
    octahedron.rename("folder/good.ply")
    Path("folder/bad.ply").write_bytes(Path("folder/good.ply").read_bytes()[:-30])
    Path("folder/._good.obj").write_bytes(b"\0\5\26\7")  # no input: macOS leaves them
    data = ["data=meshes", "data.path=folder", "data.samples=500", "data.surface_samples=100", "split=all"]
    out = nif("evaluate", f"run={round_run}", *data, "protocol=onet", "output=a.json", *FEW)
    assert out.code == 1
    assert "bad: left out: " in out.out
    assert "1 of 2 shapes were left out" in out.error
    report = json.loads(Path("a.json").read_text())
    assert report["left_out"] == ["bad"]
    assert list(report["protocol"]["onet"]["instances"]) == ["good"]
    Path("folder/good.ply").unlink()
    out = nif("evaluate", f"run={round_run}", *data, "protocol=onet", "output=b.json", *FEW)
    assert out.code == 1
    assert "bad.ply" in out.error  # the only one says why by itself
    Path("folder/worse.ply").write_bytes(Path("folder/bad.ply").read_bytes())
    out = nif("evaluate", f"run={round_run}", *data, "protocol=onet", "output=b.json", *FEW)
    assert out.code == 1
    assert "none of the 2 shapes" in out.error


def test_evaluate_counts_empty_meshes(nif, round_run):
    path = round_run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["codes.weight"][0, 0] = -1.0  # of a shape that has no size left
    checkpoint["nif"]["config"]["model"]["code_norm"] = 10.0
    torch.save(checkpoint, path)
    out = nif(
        "evaluate",
        f"run={round_run}",
        "protocol=[onet,deepsdf]",
        "resolution=24",
        "instances=2",
        "device=cpu",
    )
    assert out.code == 0, out.err
    assert "1 without a surface" in out.out
    report = json.loads((round_run / "evaluation.json").read_text())["protocol"]
    assert report["onet"]["count"]["chamfer_l1"] == 2
    assert report["deepsdf"]["count"]["chamfer"] == 1
    assert max(m["chamfer_l1"] for m in report["onet"]["instances"].values()) == pytest.approx(10 * 3**0.5)


def test_two_meshes_are_compared_directly(nif, tmp_path):
    trimesh.creation.icosphere(3, 1.0).export(tmp_path / "a.ply")
    trimesh.creation.icosphere(3, 1.1).export(tmp_path / "b.ply")
    out = nif("evaluate", "mesh=a.ply", "reference=b.ply", "protocol=[two_way,onet]", "output=e.json")
    assert out.code == 0, out.err
    report = json.loads(Path("e.json").read_text())["protocol"]
    assert report["two_way"]["mean"]["distance"] == pytest.approx(0.1 / 1.1 / 1.03, rel=0.02)
    assert report["onet"]["mean"]["iou"] == pytest.approx((1 / 1.1) ** 3, abs=0.01)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["protocol=onte"], "did you mean 'onet'"),
        (["mesh=a.ply"], "reference is missing"),
        (["mesh=a.ply", "reference=b.ply"], "a.ply: no such file"),
        (["split=tets"], "split"),
        (["instances=nobody"], "nobody"),
        (["+data.path=x"], "path"),
    ],
)
def test_evaluate_says_what_is_wrong(nif, round_run, args, word):
    assert word in nif("evaluate", f"run={round_run}", *args).error


def test_interpolation_begins_and_ends_at_the_learned_shapes(nif, round_run):
    ids = list(torch.load(round_run / "checkpoints" / "last.ckpt", weights_only=True)["nif"]["instances"])
    a, b = ids[0]["id"], ids[-1]["id"]
    assert nif("extract", f"run={round_run}", f"instances=[{a},{b}]", "resolution=24").code == 0
    out = nif("extract", f"run={round_run}", f"instances=[{a},{b}]", "interpolate=3", "resolution=24")
    assert out.code == 0, out.err
    folder = round_run / "meshes" / "interpolation" / f"{a}--{b}".replace("/", "_")
    volumes = [abs(trimesh.load_mesh(folder / f"{k:03d}.ply").volume) for k in range(3)]
    ends = [abs(trimesh.load_mesh(round_run / "meshes" / f"{id}.ply").volume) for id in (a, b)]
    assert volumes[0] == pytest.approx(ends[0], rel=1e-5)
    assert volumes[2] == pytest.approx(ends[1], rel=1e-5)
    assert min(ends) < volumes[1] < max(ends)
    out = nif("render", f"run={round_run}", f"instances=[{a},{b}]", "interpolate=3", "size=16", "format=gif")
    assert out.code == 0, out.err
    assert (round_run / "renders" / "interpolation" / f"{a}--{b}.gif".replace("/", "_")).is_file()


def test_shapes_drawn_at_random(nif, round_run):
    assert nif("extract", f"run={round_run}", "sample=2", "resolution=24").code == 0
    made = sorted((round_run / "meshes" / "samples").glob("*.ply"))
    assert len(made) == 2
    before = made[0].read_bytes()
    assert nif("extract", f"run={round_run}", "sample=1", "resolution=24").code == 0
    assert made[0].read_bytes() == before
    assert nif("extract", f"run={round_run}", "sample=1", "seed=1", "resolution=24").code == 0
    assert len(list((round_run / "meshes" / "samples").glob("*.ply"))) == 3


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["interpolate=1", "instances=2"], "at least 2"),
        (["interpolate=3", "instances=3"], "two instances"),
        (["interpolate=3", "sample=2"], "one of them"),
        (["sample=0"], "at least 1"),
    ],
)
def test_latent_space_says_what_is_wrong(nif, round_run, args, word):
    assert word in nif("extract", f"run={round_run}", *args).error


@pytest.mark.skipif("NIF_DATA" not in os.environ, reason="NIF_DATA is not set")
def test_samples_of_real_planes_are_reconstructed(nif, round_run):
    folder = Path(os.environ["NIF_DATA"]).resolve() / "shapenet-planes-deepsdf" / "SdfSamples"
    out = nif("reconstruct", f"run={round_run}", f"input={folder}", *FEW)
    assert out.code == 0, out.err
    reports = list((round_run / "reconstructions").rglob("*.json"))
    assert len(reports) == 5
    assert json.loads(reports[0].read_text())["transform"]["scale"] != 1  # of the tree that they lie in


@pytest.mark.parametrize("away", [0.0, 5e5, 4e6], ids=["here", "projected", "earth"])
def test_another_reader_finds_a_reconstruction_where_its_input_stands(nif, round_run, away):
    """To 1e-6 of its size in every format, or a warning says how much is lost."""
    mesh = trimesh.creation.box([12.0, 9.0, 7.0])
    mesh.vertices += away * np.array([1.0, 0.8, -0.1])
    mesh.export("house.off", digits=17)
    own = [f"run={round_run}", "input=house.off", *FEW]
    assert nif("reconstruct", *own, "frame=normalised", "format=off", "output=n").code == 0
    moved = json.loads(Path("n/house.json").read_text())["transform"]
    truth = np.array(polygons_of_others(Path("n/house.off"))) / moved["scale"] - moved["offset"]
    size = float(np.ptp(truth, axis=(0, 1)).max())
    assert np.abs(truth.mean((0, 1)) - mesh.bounds.mean(0)).max() < size
    for format in WRITABLE:
        done = nif("reconstruct", *own, f"format={format}", "output=o")
        assert done.code == 0, done.err
        apart = np.abs(np.array(polygons_of_others(Path(f"o/house.{format}"))) - truth).max() / size
        assert (apart < 1e-6) == ("warning" not in done.out), (format, apart, done.out)
