"""nif runs: what is on the disk is found, told, compared, made smaller and removed; whatever its state is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nif_cli import NifError, runs
from nif_cli.files import Claim
from nif_cli.geometry.mesh import load_mesh
from nif_cli.run_folders import all_runs, opened
from nif_cli.run_search import best, matching, passes_filters
from nif_cli.training.provenance import commit, fingerprint

CONFIG = (
    "model:\n  _target_: nif_cli.models.sdf.Sdf\ndata:\n  _target_: nif_cli.data.shapes.meshes.MeshData\n"
)


def make(where: str, /, *, begun: object = 1.7e9, loss: float | None = 0.1, **about) -> Path:
    """A folder that looks like a run."""
    folder = Path("outputs") / where
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "checkpoints/last.ckpt").write_bytes(b"PK\3\4" + bytes(100) + b"PK\5\6" + bytes(18))
    (folder / "metrics.csv").write_text("step,train/loss\n0,0.5\n10,0.25\n")
    if loss is not None:
        summary = {"overrides": [], "steps": 10, "seconds": 2.5, "val/loss": loss, "val/loss best": loss}
        (folder / "summary.json").write_text(json.dumps(summary))
    content = {"format": 1, "nif": "0.1.0", "model": "sdf", "data": "meshes", "begun": begun, "end": "done"}
    content |= {"settings": {"model": {"lr": 0.001}}, **about}
    (folder / "run.json").write_text(json.dumps(content))
    return folder


class TestList:
    def test_ten_thousand_runs_in_two_seconds(self, tmp_path):
        for k in range(10_000):
            make(f"sdf-{k % 7}/{k:05d}", begun=1.7e9 + k)
        began = os.times()
        done = subprocess.run(
            [sys.executable, "-m", "nif_cli", "runs"], capture_output=True, text=True, check=True
        )
        ended = os.times()
        spent = ended.children_user + ended.children_system - began.children_user - began.children_system
        assert spent < 2.0
        lines = done.stdout.splitlines()
        assert lines[1].startswith("outputs/sdf-3/09999 ")
        assert "9,970 older" in lines[-1]

    def test_neither_torch_nor_yaml_is_loaded(self):
        make("a")
        code = (
            "import sys; from nif_cli.commands.runs import main; main([]); "
            "print([m for m in ('torch', 'yaml', 'hydra') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    def test_newest_first_with_what_one_wants_to_know(self, nif, run):
        make("old", begun=1e9)
        lines = nif("runs").out.splitlines()
        assert lines[0].split()[:5] == ["run", "model", "data", "when", "time"]
        assert lines[1].startswith("outputs/copy ")
        for word in ("deepsdf", "toy_shapes", "12", "val/loss best", "kB", "done"):
            assert word in lines[1]
        assert lines[2].startswith("outputs/old ")

    def test_a_run_from_before_run_json(self, nif, run):
        (run / "run.json").unlink()
        assert "deepsdf" in nif("runs").out.splitlines()[1]
        assert "done" in nif("runs", "model=deepsdf").out

    @pytest.mark.parametrize(
        ("break_it", "said"),
        [
            (lambda r: (r / "config.yaml").unlink(), "config.yaml is missing"),
            (lambda r: (r / "config.yaml").write_text(""), "config.yaml is empty"),
            (lambda r: shutil.rmtree(r / "checkpoints"), "checkpoints are missing"),
            (lambda r: (r / "checkpoints/last.ckpt").write_bytes(b"PK\3\4" + bytes(99)), "cut short"),
            (lambda r: (r / "checkpoints/last.ckpt").write_bytes(b""), "cut short"),
            (lambda r: (r / "summary.json").write_text("{"), "summary.json cannot be read"),
            (lambda r: (r / "summary.json").write_bytes(b"\xff\0" * 99), "summary.json cannot be read"),
            (lambda r: (r / "run.json").write_text("[" * 100_000), "run.json cannot be read"),
            (lambda r: (r / "run.json").write_text("[1]"), "run.json cannot be read"),
        ],
    )
    def test_damaged_ones_are_listed_as_damaged(self, nif, break_it, said):
        break_it(make("bad"))
        make("good", begun=1e9)
        done = nif("runs", "n=all")
        assert done.code == 0, done.err
        (bad,) = [line for line in done.out.splitlines() if line.startswith("outputs/bad ")]
        assert "damaged" in bad
        assert said in bad
        assert nif("runs", "show", "outputs/bad").code == 0

    def test_a_pipe_is_not_waited_for(self, nif):
        folder = make("pipe")
        (folder / "summary.json").unlink()
        os.mkfifo(folder / "summary.json")
        assert "damaged" in nif("runs").out

    def test_nonsense_in_the_small_files(self, nif):
        make(
            "odd",
            begun="soon",
            model=["x"],
            data=None,
            name={"a": 1},
            tags="t",
            end=7,
            settings=[],
            machine=3,
            paths={"data.path": 1},
            resumed=[1, {"when": "x"}],
        )
        (Path("outputs/odd") / "summary.json").write_text(
            '{"steps": "many", "seconds": 1e400, "overrides": 3, "val/loss": NaN, "psnr": [1], "x": 1e999}'
        )
        (Path("outputs/odd") / "metrics.csv").write_bytes(b"step\0,\xff\n1,2,3\nx")
        for words in ([], ["show", "odd"], ["model.lr=1"], ["best"], ["tag=t"]):
            done = nif("runs", *words)
            assert "Traceback" not in done.err
            assert "internal error" not in done.err

    def test_one_of_a_newer_nif(self, nif):
        make("new", format=99, nif="9.9")
        assert "newer nif (9.9)" in nif("runs").out

    def test_states(self, nif):
        make("killed", end=None, loss=None)
        make("stopped", end="stopped by SIGTERM")
        failed = make("failed", end="failed: out of memory")
        running = make("running", end=None, loss=None)
        claim = Claim(running, "x")
        try:
            found = {r.path.name: r.state for r in all_runs()}
            assert found == {
                "killed": "unfinished",
                "stopped": "stopped",
                "failed": "failed",
                "running": "running",
            }
            assert nif("runs", "state=failed").out.splitlines()[1].startswith(str(failed))
            row = nif("runs", "state=running").out.splitlines()[1]
            assert "train/loss 0.25" in row
        finally:
            claim.release()

    def test_globs_keys_and_settings(self, nif):
        make("a", tags=["paper", "x"], begun=3e8)
        make("b", name="bunny", settings={"model": {"lr": 0.01, "flag": True, "none": None}})

        def listed(*words: str) -> list[str]:
            return [line.split()[0] for line in nif("runs", *words).out.splitlines()[1:]]

        assert listed("tag=paper") == ["outputs/a"]
        assert listed("name=bun*") == listed("bunny") == listed("outputs/b") == ["outputs/b"]
        assert listed("model.lr=1e-2") == listed("model.flag=true") == listed("model.none=null")
        assert listed("model.lr=1e-2") == ["outputs/b"]
        assert listed("model=sdf,deepsdf") == ["outputs/b", "outputs/a"]
        assert listed("model.flag=1") == []
        assert nif("runs", "nobody").error.startswith("nobody: no run")
        assert nif("runs", "n=0").error.startswith("n=0")
        assert "no run that fits" in nif("runs", "model=nerf").out

    def test_nothing_there(self, nif):
        done = nif("runs")
        assert (done.code, "nif train" in done.out) == (0, True)


class TestFind:
    def test_a_name_a_glob_latest_and_best(self):
        a = make("sdf-meshes/a", begun=2e9 - 1e8, loss=0.2, name="bunny")
        b = make("sdf-meshes/b", begun=1e9, loss=0.1)
        make("image-image/c", begun=5e8, loss=0.01, model="image")
        assert runs.find("bunny") == runs.find("sdf-meshes/a") == runs.find("*/a") == a
        assert runs.find(None) == all_runs()[0].path
        assert runs.find("best") == b  # of the kind that the latest is
        with pytest.raises(NifError, match="2 runs are called so"):
            runs.find("sdf-meshes/*")
        with pytest.raises(NifError, match="no such folder, and no run"):
            runs.find("sdf-meshes/x*")

    def test_best_needs_a_finished_run(self):
        make("a", loss=None)
        with pytest.raises(NifError, match="no finished run"):
            runs.find("best")

    def test_more_is_better_of_some_metrics(self):
        for name, value in (("a", 30.0), ("b", 31.0), ("c", 29.0)):
            (make(name) / "summary.json").write_text(json.dumps({"psnr": value, "distance error": value}))
        found = all_runs()
        assert best(found, "psnr") is next(r for r in found if r.path.name == "b")
        assert best(found, "distance error") is next(r for r in found if r.path.name == "c")
        assert best(found, "iou") is None

    def test_a_sweep_is_its_best_job(self, nif, tiny):
        done = nif("train", "-m", *tiny, "model.lr=1e-3,1e-30", "name=s", "tag=[u,v]", "model.code_size=4")
        assert done.code == 0, done.err
        (sweep,) = Path("outputs/sweeps").iterdir()
        assert runs.find(str(sweep)) == sweep / "0"
        assert runs.find(f"{sweep.parent}/20*") == sweep / "0"
        assert runs.find("s-1") == sweep / "1"
        assert Image.open(sweep / "sweep.png").size[0] > 300
        for job in ("0", "1"):
            (sweep / job / "summary.json").write_text('{"error": "x"}')
        with pytest.raises(NifError, match="none of whose 2 jobs"):
            runs.find(str(sweep))
        nif("runs", "rm", sweep, "yes=true")
        assert not sweep.exists()


class TestTraining:
    def test_a_folder_of_the_data_may_have_the_name_of_a_run(self, nif, tiny, sphere_file):
        assert nif("train", *tiny, "model=sdf", f"data.path={sphere_file}", "name=chairs").code == 0
        Path("chairs").mkdir()
        assert "outputs/chairs" in nif("runs", "chairs").out
        assert nif("runs", "show", "chairs").code == 0
        extracted = nif("extract", "run=chairs", "resolution=16", "device=cpu")
        assert extracted.code == 0, extracted.err

    def test_what_a_run_says_of_itself(self, nif, tiny, sphere_file):
        words = [*tiny, "model=sdf", f"data.path={sphere_file}", "name=bunny", "tag=paper"]
        done = nif("train", *words)
        assert done.code == 0, done.err
        run = Path("outputs/bunny")
        about = json.loads((run / "run.json").read_text())
        assert (about["model"], about["data"]) == ("sdf", "meshes")
        assert (about["name"], about["tags"], about["end"]) == ("bunny", ["paper"], "done")
        assert about["paths"]["data.path"]["absolute"] == str(sphere_file)
        assert about["paths"]["data.path"]["files"] == 1
        assert about["torch"] == torch.__version__
        assert json.loads((run / "summary.json").read_text())["overrides"][: len(tiny)] == tiny
        log = (run / "train.log").read_text()
        assert "run: outputs/bunny" in log
        assert "12 steps in" in log
        assert "\x1b" not in log
        for told in ("command", "nif train", "torch", "machine", "sha256", str(sphere_file), "val/loss"):
            assert told in nif("runs", "show", "bunny").out

        assert "outputs/bunny has it" in nif("train", *words).error
        assert nif("extract", "run=bunny", "resolution=8").code == 0
        more = nif("train", "resume=bunny", "trainer.max_steps=14", "tag=[paper,more]")
        assert more.code == 0, more.err
        again = json.loads((run / "run.json").read_text())
        assert (again["command"], again["tags"]) == (about["command"], ["paper", "more"])
        assert "trainer.max_steps=14" in again["resumed"][0]["command"]
        assert "14 steps in" in (run / "train.log").read_text()
        assert "name" in nif("train", "resume=bunny", "name=other").error

    @pytest.mark.parametrize("name", ["latest", "best", "../x", "a/b", "", ".x", "-x", "x" * 101])
    def test_names_that_are_none(self, nif, tiny, name):
        assert "name" in nif("train", *tiny, f"name={name!r}").error
        assert not Path("outputs").exists() or not list(Path("outputs").iterdir())

    def test_a_name_is_unique_wherever_its_run_lies(self, nif, tiny):
        make("elsewhere/deep", name="bunny")
        assert "outputs/elsewhere/deep has it" in nif("train", *tiny, "name=bunny").error
        Path("outputs/taken").mkdir()
        assert "there is a folder" in nif("train", *tiny, "name=taken").error

    def test_how_a_failed_one_ended(self, nif, tiny):
        assert "not finite" in nif("train", *tiny, "model.lr=1e30", "output_dir=outputs/x", "seed=1").error
        run = opened(Path("outputs/x"))
        assert run is not None
        assert run.state == "failed"
        assert "not finite" in run.about["end"]
        assert "not finite" in (run.path / "train.log").read_text()

    def test_a_refused_resume_leaves_what_was_there(self, nif, run):
        before = (run / "run.json").read_bytes()
        assert nif("train", f"resume={run}", "field.width=99").code == 1
        assert (run / "run.json").read_bytes() == before

    def test_the_commit(self, tmp_path):
        sha, other = "a" * 40, "b" * 40
        git = tmp_path / "repo/.git"
        (git / "refs/heads").mkdir(parents=True)
        (tmp_path / "repo/sub").mkdir()
        assert commit(tmp_path / "repo/sub") is None
        (git / "HEAD").write_text(sha)
        assert commit(tmp_path / "repo/sub") == sha
        (git / "HEAD").write_text("ref: refs/heads/main\n")
        (git / "packed-refs").write_text(f"# pack\n{other} refs/heads/main\n")
        assert commit(tmp_path / "repo") == other
        (git / "refs/heads/main").write_text(sha)
        assert commit(tmp_path / "repo") == sha
        (git / "HEAD").write_text("ref: ../../../etc/passwd")
        assert commit(tmp_path / "repo") is None

    def test_a_fingerprint_knows_changed_data(self, tmp_path):
        (tmp_path / "d/sub").mkdir(parents=True)
        (tmp_path / "d/sub/a").write_text("a")
        own = {"absolute": str(tmp_path / "d")}
        first = fingerprint(own)
        assert (first["files"], first["bytes"]) == (1, 1)
        (tmp_path / "d/b").write_text("bb")
        assert fingerprint(own)["sha256"] != first["sha256"]
        assert fingerprint({"absolute": str(tmp_path / "gone")}) == {}


class TestPrune:
    def test_the_same_mesh_in_fewer_bytes(self, nif, run):
        assert nif("extract", f"run={run}", "resolution=16", "instances=1", "output=before").code == 0
        size = (run / "checkpoints/last.ckpt").stat().st_size
        done = nif("runs", "prune", "copy", "yes=true")
        assert done.code == 0, done.err
        assert (run / "checkpoints/last.ckpt").stat().st_size < 0.7 * size
        assert nif("extract", f"run={run}", "resolution=16", "instances=1", "output=after").code == 0
        (a,), (b,) = (list(Path(f).rglob("*.ply")) for f in ("before", "after"))
        np.testing.assert_array_equal(load_mesh(a).vertices, load_mesh(b).vertices)
        assert "pruned" in nif("runs").out
        assert "was pruned" in nif("train", f"resume={run}", "trainer.max_steps=20").error
        assert nif("runs", "prune", "copy", "yes=true").code == 0
        started = nif("train", f"init_from={run}", "model.code_size=4", "data.count=6", *_tiny(run))
        assert started.code == 0, started.err

    def test_one_that_is_being_written_is_left_alone(self, nif, run):
        before = (run / "checkpoints/last.ckpt").read_bytes()
        with_lock = Claim(run, "x")
        try:
            assert "in use" in nif("runs", "prune", run, "yes=true").error
            assert "in use" in nif("runs", "rm", run, "yes=true").error
        finally:
            with_lock.release()
        assert (run / "checkpoints/last.ckpt").read_bytes() == before

    def test_damaged_ones_are_named_and_stay(self, nif, run):
        data = (run / "checkpoints/best.ckpt").read_bytes()[:2000]
        (run / "checkpoints/best.ckpt").write_bytes(data)
        last = (run / "checkpoints/last.ckpt").read_bytes()
        assert "best.ckpt" in nif("runs", "prune", run, "yes=true").error
        assert (run / "checkpoints/last.ckpt").read_bytes() == last

    def test_nobody_is_asked_without_a_terminal(self, nif, run):
        assert "yes=true" in nif("runs", "prune", run).error
        assert "yes=true" in nif("runs", "rm", run).error
        assert "yes=maybe" in nif("runs", "rm", run, "yes=maybe").error
        assert (run / "preview.png").exists() or (run / "config.yaml").exists()


def _tiny(run: Path) -> list[str]:
    from conftest import TINY, TINY_MLP

    return [*TINY, *TINY_MLP]


class TestRemove:
    def test_a_run_goes_whole(self, nif, run):
        (run / "meshes/sub").mkdir(parents=True)
        outside = Path("outside")
        outside.mkdir()
        (outside / "precious").touch()
        (run / "meshes/link").symlink_to(outside.resolve())
        make("other")
        done = nif("runs", "rm", run, "yes=true")
        assert done.code == 0, done.err
        assert not run.exists()
        assert (outside / "precious").exists()
        assert sorted(os.listdir("outputs")) == ["other"]

    @pytest.mark.parametrize(
        ("prepare", "said"),
        [
            (lambda f: None, "not a run"),
            (lambda f: (f / "config.yaml").write_text("a: 1"), "nif has not made it"),
            (lambda f: (f / "checkpoints").mkdir() or (f / "checkpoints/last.ckpt").touch(), "has not made"),
        ],
    )
    def test_what_is_no_run_is_refused(self, nif, tmp_path, prepare, said):
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "thesis.tex").touch()
        prepare(folder)
        assert said in nif("runs", "rm", folder, "yes=true").error
        assert (folder / "thesis.tex").exists()

    def test_a_run_among_other_files_is_refused(self, nif, run):
        (run / ".git").mkdir()
        assert ".git" in nif("runs", "rm", run, "yes=true").error
        assert (run / "config.yaml").exists()

    def test_folders_of_runs_links_and_where_one_is(self, nif, run, monkeypatch):
        assert "not a run" in nif("runs", "rm", "outputs", "yes=true").error
        assert "takes runs" in nif("runs", "rm", "yes=true").error
        Path("link").symlink_to(run)
        assert "a link" in nif("runs", "rm", "link", "yes=true").error
        assert "no run" in nif("runs", "rm", "nobody*", "yes=true").error
        monkeypatch.chdir(run)
        assert "working folder" in nif("runs", "rm", ".", "yes=true").error
        assert (run / "config.yaml").exists()

    def test_half_deleted_ones_can_be_removed(self, nif, run):
        (run / "config.yaml").unlink()
        (run / "run.json").unlink()
        assert nif("runs", "rm", run, "yes=true").code == 0
        assert not run.exists()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_disk_that_is_read_only(self, nif, run):
        run.parent.chmod(0o500)
        run.chmod(0o500)
        try:
            for what in ("rm", "prune"):
                assert str(run) in nif("runs", what, run, "yes=true").error
            assert nif("runs").code == nif("runs", "show", run).code == 0
        finally:
            run.parent.chmod(0o700)
            run.chmod(0o700)


class TestCompare:
    def test_settings_metrics_and_curves(self, nif):
        make("a", settings={"model": {"lr": 0.1, "n": 1}, "output_dir": "x"}, loss=0.25)
        make("b", settings={"model": {"lr": 0.2, "n": 1}, "output_dir": "y"}, loss=0.5)
        done = nif("runs", "compare", "b", "a", "output=c.png")
        assert done.code == 0, done.err
        lines = [line.split() for line in done.out.splitlines()]
        assert ["b", "a"] in lines
        assert ["model.lr", "0.2", "0.1"] in lines
        assert ["val/loss", "0.5", "0.25"] in lines
        assert not any(line and line[0] in ("model.n", "output_dir") for line in lines)
        assert np.asarray(Image.open("c.png")).std() > 0
        assert "2 to" in nif("runs", "compare", "a").error
        assert "metrics.csv" in nif("runs", "compare", "a", "b", "metric=psnr").error

    def test_the_best_of_each_kind(self, nif):
        make("a", loss=0.2)
        make("b", loss=0.1)
        make("c", loss=5.0, model="image")
        rows = [line.split()[0] for line in nif("runs", "best").out.splitlines()[1:]]
        assert sorted(rows) == ["outputs/b", "outputs/c"]
        assert "there is" in nif("runs", "best", "metric=iou").error


def test_matching_prefers_the_exact_name():
    make("x/run")
    make("run*", name="plain")
    assert [r.path.name for r in matching("run*", all_runs())] == ["run*"]
    assert passes_filters(all_runs()[0], {})
    assert time.time() > all_runs()[0].begun


class TestSnapshots:
    def test_the_weights_on_the_way(self, nif, tiny):
        words = [*tiny, "model.code_size=4", "output_dir=run", "callbacks.snapshots.every_steps=3"]
        done = nif("train", *words, "callbacks.snapshots.keep=2")
        assert done.code == 0, done.err
        run = Path("run")
        assert sorted(p.name for p in (run / "checkpoints").glob("step-*")) == ["step-12.ckpt", "step-9.ckpt"]
        last, then = runs.load_model(run).state_dict(), runs.load_model(run, 12).state_dict()
        assert all(torch.equal(last[k], then[k]) for k in last)
        before = runs.load_model(run, 9).state_dict()
        assert any(not torch.equal(last[k], before[k]) for k in last)
        size = (run / "checkpoints/last.ckpt").stat().st_size
        assert (run / "checkpoints/step-9.ckpt").stat().st_size < 0.7 * size
        assert nif("extract", "run=run", "checkpoint=9", "resolution=8", "instances=1").code == 0
        assert "there are 9, 12" in nif("extract", "run=run", "checkpoint=5").error
        assert "checkpoint" in nif("extract", "run=run", "checkpoint=-1").error
        assert "last" in nif("extract", "run=run", "checkpoint=first").error
        assert "every_steps" in nif("train", *tiny, "callbacks.snapshots.every_steps=0").error
        assert nif("runs", "rm", "run", "yes=true").code == 0

    def test_they_change_nothing(self, nif, tiny):
        for name, more in (("a", []), ("b", ["callbacks.snapshots.every_steps=2"])):
            assert nif("train", *tiny, "model.code_size=4", f"output_dir={name}", *more).code == 0
        a, b = (runs.load_model(Path(name)).state_dict() for name in ("a", "b"))
        assert all(torch.equal(a[k], b[k]) for k in a)
