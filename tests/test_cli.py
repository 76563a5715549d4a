"""The command line: help, exit codes, and each model from training to images."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml
from PIL import Image

import nif_cli
from nif_cli import conf_folder
from nif_cli.cli import COMMANDS
from nif_cli.geometry.mesh import WRITABLE, load_mesh
from nif_cli.geometry.transform import BALL_RADIUS

MODELS = {
    "deepsdf": ["data.count=2", "model.code_size=4"],
    "sdf": ["model=sdf"],
    "eikonal": ["model=sdf", "model.objective=eikonal", "field=siren", "field.width=16", "field.layers=2"],
}


def program(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nif_cli", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


class TestHelp:
    def test_help_loads_nothing_heavy(self):
        code = (
            "import sys\nfrom nif_cli.cli import main\nfor args in ([], ['--help'], ['train', '--help'], "
            "['--version'], ['extract', '-h']):\n    try: main(args)\n    except SystemExit as stop: assert "
            "not stop.code\nprint('heavy:', *[m for m in ('torch', 'hydra', 'pytorch_lightning', 'trimesh') "
            "if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].strip() == "heavy:"

    @pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
    def test_the_commands_are_listed_one_a_line(self, nif, args):
        done = nif(*args)
        assert done.code == 0
        for command in COMMANDS:
            assert sum(line.strip().startswith(command + " ") for line in done.out.splitlines()) == 1

    @pytest.mark.parametrize("command", [c for c in COMMANDS if c != "runs"])  # which is not Hydra's
    def test_a_commands_help_shows_every_key_and_choice(self, nif, command):
        text = nif(command, "--help").out
        assert text == nif("help", command).out
        settings = yaml.safe_load((conf_folder() / f"{command}.yaml").read_text())
        for key in settings:
            assert key == "defaults" or f"{key}=" in text
        if command == "train":
            for name in ("siren", "fourier", "toy_shapes", "sdf_igr", "halving"):
                assert name in text

    def test_version(self, nif):
        assert nif("--version").out.split() == ["nif", nif_cli.__version__]

    def test_the_configuration_is_shown(self, nif):
        shown = nif("train", "model.lr=0.125", "--cfg", "job")
        assert shown.code == 0
        assert yaml.safe_load(shown.out)["model"]["lr"] == 0.125

    def test_the_alias(self, nif):
        assert nif("extract-mesh", "--help").out == nif("extract", "--help").out


class TestCompletion:
    def complete(self, nif, monkeypatch, line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        done = nif("-sc", "query=bash")
        assert done.code == 0, done.err
        return done.out.split()

    def test_the_script_is_bash(self, nif):
        script = nif("-sc", "install=bash").out
        assert "complete -F" in script
        if shutil.which("bash"):
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)

    def test_commands(self, nif, monkeypatch):
        assert self.complete(nif, monkeypatch, "nif ") == list(COMMANDS)
        assert self.complete(nif, monkeypatch, "nif tr") == ["train"]

    def test_groups_choices_and_keys(self, nif, monkeypatch):
        assert "model=sdf" in self.complete(nif, monkeypatch, "nif train model=")
        assert "field=siren" in self.complete(nif, monkeypatch, "nif train model=sdf field=s")
        assert any(w.startswith("model") for w in self.complete(nif, monkeypatch, "nif train mod"))
        assert any(w.startswith("resolution") for w in self.complete(nif, monkeypatch, "nif extract res"))


class TestExitCodes:
    @pytest.mark.parametrize("args", [["bogus"], ["trian"], ["--bogus"], ["train", "--bogus"]])
    def test_usage_is_two(self, nif, args):
        done = nif(*args)
        assert done.code == 2
        assert "Traceback" not in done.err

    def test_did_you_mean(self, nif):
        assert "did you mean 'train'" in nif("trian").err

    def test_debugging_shows_where(self):
        """Of the program itself."""
        debug = program("extract", "run=nowhere", NIF_DEBUG="1")
        assert debug.returncode == 1
        assert "Traceback" in debug.stderr

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    @pytest.mark.parametrize("command", ["train", "extract", "render"])
    def test_a_gpu_that_is_not_there(self, nif, tiny, run, command):
        args = [*tiny, "device=cuda"] if command == "train" else ["device=cuda:1"]
        assert "there is no CUDA device here" in nif(command, *args).error

    def test_a_bug_is_a_line_that_asks_to_be_told(self, nif, monkeypatch, run):
        def broken(*_, **__):
            raise ZeroDivisionError("oh")

        monkeypatch.setattr("nif_cli.inference.meshes.extract_mesh", broken)
        done = nif("extract")
        assert done.code == 1
        assert "internal error" in done.err
        assert "ZeroDivisionError" in done.err
        assert "NIF_DEBUG=1" in done.err


@pytest.mark.parametrize("model", MODELS)
def test_train_extract_render(nif, tiny, sphere_file, model, tmp_path):
    """From data to a run folder, meshes and images, each command finding what the last one made."""
    data = [] if model == "deepsdf" else [f"data.path={sphere_file}"]
    trained = nif("train", *tiny, *MODELS[model], *data, "trainer.max_steps=20", "model.lr=0.01")
    assert trained.code == 0, trained.err
    (run,) = [p.parent for p in Path("outputs").rglob("config.yaml")]
    assert run.parent.name == ("deepsdf-toy_shapes" if model == "deepsdf" else "sdf-meshes")
    assert f"nif extract run={run}" in trained.out
    assert f"nif render run={run}" in trained.out
    for name in (
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "summary.json",
    ):
        assert (run / name).is_file(), name
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 20
    assert np.isfinite(json.loads((run / "summary.json").read_text())["val/loss"])

    made = nif("extract", "resolution=16")
    assert made.code == 0, made.err
    assert str(run) in made.out
    for path in (run / "meshes").rglob("*.ply"):
        assert load_mesh(path).volume > 0
    drawn = nif("render", "frames=2", "size=24")
    assert drawn.code == 0, drawn.err
    images = [
        run / "renders" / f"{id}.png"
        for id in (["chair/0000", "table/0000"] if model == "deepsdf" else ["ball"])
    ]
    assert all(p.is_file() for p in images)
    assert Image.open(images[0]).size == (48, 24)
    assert not [p for p in run.rglob("*") if p.name.startswith(".")]  # no temporary files


@pytest.fixture(scope="module")
def ball_run(tmp_path_factory, cache) -> Path:
    """A network that starts as a ball of radius 0.5 and hardly learns: what comes out of it is known."""
    from nif_cli.cli import main

    folder = tmp_path_factory.mktemp("ball")
    mesh = trimesh.creation.icosphere(2, 20.0)
    mesh.apply_translation([100, -50, 7])
    mesh.export(folder / "ball.ply")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NIF_CACHE", str(cache))
        arguments = [
            "model=sdf",
            "field=igr",
            "field.width=64",
            "field.layers=2",
            "field.skips=[]",
            "model.lr=1e-12",
        ]
        arguments += [
            "trainer.max_time=null",
            "trainer.max_steps=2",
            "callbacks=quiet",
            "logger=csv",
            "device=cpu",
        ]
        arguments += ["data.path=ball.ply", "data.samples=500", "data.surface_samples=100", "output_dir=run"]
        with pytest.raises(SystemExit) as stopped:
            main(["train", *arguments])
    assert stopped.value.code == 0
    return folder / "run"


class TestExtract:
    def mesh(self, nif, run: Path, *args: str) -> trimesh.Trimesh:
        done = nif("extract", f"run={run}", "resolution=32", "output=out", *args)
        assert done.code == 0, done.err
        (path,) = Path("out").iterdir()
        return load_mesh(path)

    def test_meshes_come_back_in_the_users_units(self, nif, ball_run):
        """The transform of the run is undone: from the ball of radius 0.5 around 0 to the file's place and
        size."""
        inside = self.mesh(nif, ball_run, "frame=normalised")
        shutil.rmtree("out")
        outside = self.mesh(nif, ball_run)
        scale = BALL_RADIUS / 20.0
        assert np.allclose(outside.vertices, inside.vertices / scale + [100, -50, 7], atol=1e-3)
        radius = np.linalg.norm(outside.vertices - [100, -50, 7], axis=1).mean()
        assert radius == pytest.approx(0.5 / scale, rel=0.35)
        assert abs(inside.vertices.mean(0)).max() < 0.2

    @pytest.mark.parametrize("format", WRITABLE)
    def test_every_format(self, nif, ball_run, format):
        mesh = self.mesh(nif, ball_run, f"format={format}")
        assert mesh.is_watertight
        assert mesh.volume > 0

    def test_a_level_moves_the_surface(self, nif, ball_run):
        outer = self.mesh(nif, ball_run, "level=-0.1")
        shutil.rmtree("out")
        assert self.mesh(nif, ball_run, "level=0.1").volume < outer.volume

    def test_no_surface_is_said(self, nif, ball_run):
        assert (
            "no surface" in nif("extract", f"run={ball_run}", "resolution=8", "output=out", "level=100").err
        )

    def test_instances(self, nif, run):
        done = nif("extract", "resolution=4", "instances=[lamp/*,chair/0001]", "level=-9", "frame=normalised")
        assert done.code == 0, done.err
        found = sorted(p.relative_to(run / "meshes").as_posix() for p in (run / "meshes").rglob("*.ply"))
        assert found == ["chair/0001.ply", "lamp/0000.ply", "lamp/0001.ply"]
        assert "3 of 6 instances" in done.out
        assert "did you mean 'chair/0001'" in nif("extract", "instances=cahir/0001").error

    def test_a_file_in_the_way_is_said(self, nif, ball_run):
        Path("out").write_text("")
        assert "out" in nif("extract", f"run={ball_run}", "resolution=8", "output=out").error


class TestRender:
    @pytest.mark.parametrize("format", ["png", "gif", "mp4"])
    def test_every_format(self, nif, ball_run, format):
        done = nif(
            "render", f"run={ball_run}", "frames=2", "size=33", f"format={format}", "output=out", "up=z"
        )
        assert done.code == 0, done.err
        (path,) = Path("out").iterdir()
        assert path.name == f"ball.{format}"
        assert path.stat().st_size > 100

    def test_channels(self, nif, ball_run):
        """A file each; depths are lengths along the ray in the user's units."""
        sets = ["frames=2", "size=24", "output=out", "elevation=0"]
        done = nif("render", f"run={ball_run}", *sets, "channels=[normal,depth,opacity]")
        assert done.code == 0, done.err
        assert sorted(p.name for p in Path("out").iterdir()) == [
            "ball_depth.png",
            "ball_normal.png",
            "ball_opacity.png",
        ]
        done = nif("render", f"run={ball_run}", *sets, "channels=[depth]", "format=npy")
        assert done.code == 0, done.err
        depth = np.load("out/ball_depth.npy")
        assert depth.shape == (2, 24, 24)
        assert np.isinf(depth[0, 0, 0])
        unit = 20.0 / BALL_RADIUS
        assert depth[:, 12, 12] == pytest.approx([2.45 * unit] * 2, rel=0.05)
        assert "did you mean 'rgb'" in nif("render", f"run={ball_run}", "channels=[rbg]").error
        assert "do not fit" in nif("render", f"run={ball_run}", "size=131072").error

    def test_the_ball_is_seen(self, nif, ball_run):
        nif("render", f"run={ball_run}", "frames=1", "size=32", "output=out")
        image = np.asarray(Image.open("out/ball.png"))
        assert (image[16, 16] < 250).any()
        assert (image[0, 0] == 255).all()


class TestTrain:
    def test_a_run_is_never_overwritten(self, nif, tiny, run):
        before = (run / "checkpoints/last.ckpt").read_bytes()
        assert f"resume={run}" in nif("train", *tiny, f"output_dir={run}").error
        assert (run / "checkpoints/last.ckpt").read_bytes() == before

    def test_weights_of_another_run(self, nif, tiny, run):
        """init_from takes the network and the codes of the shapes that both know, and nothing else."""
        theirs = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        sets = ["model.code_size=4", "model.lr=1e-12", "model.code_lr=1e-12", "trainer.max_steps=1"]
        done = nif("train", *tiny, *sets, "data.count=9", f"init_from={run}", "output_dir=tuned")
        assert done.code == 0, done.err
        ours = torch.load("tuned/checkpoints/last.ckpt", weights_only=True)
        assert ours["global_step"] == 1
        for name, value in ours["state_dict"].items():
            if name.startswith("network."):
                assert torch.allclose(value, theirs["state_dict"][name], atol=1e-9), name
        rows = {i["id"]: k for k, i in enumerate(ours["nif"]["instances"])}
        for k, instance in enumerate(theirs["nif"]["instances"]):
            code = ours["state_dict"]["codes.weight"][rows[instance["id"]]]
            assert torch.allclose(code, theirs["state_dict"]["codes.weight"][k], atol=1e-9)

    def test_weights_of_another_network_are_refused(self, nif, tiny, run):
        message = nif("train", *tiny, "model.code_size=4", "field.width=20", f"init_from={run}").error
        assert "init_from" in message
        assert "another network" in message

    def test_more_than_one_shape_for_a_model_of_one(self, nif, tiny):
        assert "model=deepsdf" in nif("train", *tiny, "model=sdf", "data=toy_shapes").error

    def test_eikonal_needs_normals(self, nif, tiny, sphere_file):
        sets = ["model=sdf", "model.objective=eikonal", f"data.path={sphere_file}", "data.surface_samples=0"]
        assert "normals" in nif("train", *tiny, *sets).error

    def test_the_same_seed_is_the_same_run(self, nif, tiny):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            assert nif("train", *tiny, f"seed={seed}", "data.count=2", f"output_dir={name}").code == 0
        a, b, c = (torch.load(f"{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in "abc")
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert not torch.equal(a["network.last.weight"], c["network.last.weight"])

    @pytest.mark.parametrize(
        "typed",
        [
            ["trainer.gradient_clip_val=1.0"],
            ["optimizer=adamw"],
            ["optimizer=sgd"],
            ["trainer.precision=bf16-mixed"],
        ],
    )
    def test_settings_that_any_training_takes(self, nif, tiny, typed):
        """They work with codes too, or are refused in a line that says what to do."""
        done = nif("train", *tiny, "data.count=2", *typed)
        assert done.code == 0 or done.error

    def test_a_diverged_training_says_so(self, nif, tiny):
        """However short: a run whose loss is not finite is an error, not a result."""
        message = nif("train", *tiny, "data.count=2", "model.lr=1e30").error
        assert "not finite" in message
        assert "model.lr" in message

    def test_a_dropout_goes_with_the_eikonal_objective(self, nif, tiny, sphere_file):
        """Or is refused in a line."""
        sets = ["model=sdf", "model.objective=eikonal", f"data.path={sphere_file}", "field.dropout=0.2"]
        done = nif("train", *tiny, *sets)
        assert done.code == 0 or done.error

    def test_previews_and_boards(self, nif, tiny):
        sets = [o for o in tiny if o not in ("callbacks=quiet", "logger=csv")]
        sets += [
            "callbacks.preview.resolution=8",
            "callbacks.preview.size=16",
            "data.count=2",
            "output_dir=run",
        ]
        done = nif("train", *sets)
        assert done.code == 0, done.err
        assert Image.open("run/preview.png").size[1] == 16
        assert list(Path("run").glob("events.out.tfevents*"))
        assert "Warning" not in done.err


class TestSweeps:
    def rows(self) -> list[dict[str, str]]:
        (table,) = Path("outputs/sweeps").rglob("sweep.csv")
        with table.open(newline="") as file:
            return list(csv.DictReader(file))

    def test_a_table_best_first(self, nif, tiny):
        done = nif(
            "train", "-m", *tiny, "model.lr=1e-12,3e-2", "seed=1,2", "data.count=2", "trainer.max_steps=30"
        )
        assert done.code == 0, done.err
        rows = self.rows()
        assert len(rows) == 4
        best = [float(r["val/loss best"]) for r in rows]
        assert best == sorted(best)
        assert [float(r["model.lr"]) for r in rows[:2]] == [0.03, 0.03]
        assert {r["seed"] for r in rows} == {"1", "2"}
        for row in rows:
            assert (Path(row["run"]) / "checkpoints/last.ckpt").is_file()
        assert "sweep.csv" in done.out
        assert nif("extract", "resolution=4", "instances=1", "level=-9").code == 0  # a sweep's jobs are runs

    def test_a_job_that_fails_does_not_stop_the_others(self, nif, tiny):
        done = nif("train", "-m", *tiny, "data.count=2", "model.clamp=-1,0.1")
        assert done.code == 1
        assert "1 of 2 jobs failed" in done.err
        rows = self.rows()
        assert len(rows) == 2
        assert "clamp" in rows[1]["error"]  # last: it has no result
        assert not rows[0]["error"]

    def test_jobs_side_by_side(self, tiny):
        """With the joblib launcher, in processes of their own."""
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
        sets = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model.lr=1e-3,1e-2", "data.count=2"]
        done = program("train", "-m", *tiny, *sets)
        assert done.returncode == 0, done.stderr
        assert len(self.rows()) == 2
