"""A run is never lost and a setting never ignored: what kills, full disks, neighbours and moved files do to
one."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from nif_cli import NifError
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.spool import Spool
from nif_cli.files import Claim, DiskError, _swept, write
from nif_cli.training.callbacks import Checkpoints, distance
from nif_cli.training.csv_logger import CsvLogger


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ShapeData, "epoch_batches", 8)


@pytest.fixture
def train(tiny: list[str]) -> list[str]:
    """A training of 20 steps with dropout: random numbers count."""
    return [
        "train",
        *(o for o in tiny if "max_steps" not in o),
        *("data.count=5", "data.batch_shapes=2", "model.code_size=4", "field.dropout=0.3"),
        *("trainer.max_steps=20", "logger.every=2"),
    ]


def state(run: str | Path, which: str = "last") -> dict:
    return torch.load(Path(run) / "checkpoints" / f"{which}.ckpt", weights_only=True)


def rows(run: str | Path) -> list[dict[str, str]]:
    """metrics.csv, without the clock."""
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/seconds"} for row in csv.DictReader(file)]


def assert_same(a: str, b: str) -> None:
    one, other = state(a), state(b)
    assert one["global_step"] == other["global_step"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    assert rows(a) == rows(b)


def files(folder: str | Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


class Killed(BaseException):
    """Stands for the end of the process: nothing of nif catches it."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch):
    """`killed_at(step, save=...)`: the next training dies after this step, and had been saved after the step
    `save`."""

    def run(step: int, save: int | None = None) -> None:
        ordinary = Checkpoints.on_train_batch_end
        armed = [True]

        def batch_end(self, trainer, *args):
            if trainer.global_step == save and armed:
                self._wait = -1.0
            ordinary(self, trainer, *args)
            if trainer.global_step == step and armed:
                armed.clear()
                raise Killed

        monkeypatch.setattr(Checkpoints, "on_train_batch_end", batch_end)

    return run


def kill(arguments: list[str]) -> None:
    from nif_cli.cli import main

    with pytest.raises(Killed):
        main(arguments)


class TestResumeAfterAKill:
    @pytest.mark.parametrize(
        ("step", "save"), [(5, 3), (13, 8), (13, 9), (19, 16)]
    )  # 8 and 16: ends of epochs
    def test_from_last(self, nif, train, killed_at, step, save):
        """Bit for bit, and every row of metrics.csv once."""
        assert nif(*train, "output_dir=whole").code == 0
        killed_at(step, save)
        kill([*train, "output_dir=parts"])
        assert nif("train", "resume=parts").code == 0
        assert_same("whole", "parts")

    def test_from_best(self, nif, train, killed_at):
        assert nif(*train, "output_dir=whole").code == 0
        killed_at(13)
        kill([*train, "output_dir=parts"])
        assert not Path("parts/checkpoints/last.ckpt").exists()
        assert nif("extract", "run=parts", "resolution=4", "instances=1", "level=-9").code == 0
        done = nif("train", "resume=parts")
        assert done.code == 0, done.err
        assert "best.ckpt" in done.out
        assert_same("whole", "parts")

    def test_from_the_configuration_alone(self, nif, train, killed_at):
        """Before the first checkpoint there is one story: resume begins again; the others say so."""
        assert nif(*train, "output_dir=whole").code == 0
        killed_at(3)
        kill([*train, "output_dir=parts"])
        assert not (Path("parts") / "checkpoints").exists()
        assert "resume=parts" in nif("extract", "run=parts").error
        assert "resume=parts" in nif(*train, "output_dir=parts").error
        done = nif("train", "resume=parts")
        assert done.code == 0, done.err
        assert "begins again" in done.out
        assert_same("whole", "parts")

    @pytest.mark.parametrize("took", [0.01, 1.0, 100.0])
    def test_the_first_save_comes_early_and_distances_grow(self, took):
        """After two seconds, then whenever it has trained half as long again, at most every five minutes; and
        saving takes little of the time, unless five minutes are too little for it."""
        now, saved = 0.0, [0.0]
        while now < 3000:
            now += distance(now, took if now else 0.0, 300)
            saved.append(now)
        gaps = np.diff(saved)
        assert saved[1] == 2
        assert all(g <= max(2, 0.5 * t, 50 * took) + 1e-9 for g, t in zip(gaps, saved, strict=False))
        assert gaps.max() <= 300
        assert len(gaps) * took < 0.05 * now or took > 5

    @pytest.mark.slow
    @pytest.mark.parametrize("moment", [0.0, 0.3, 1.5])  # seconds after config.yaml is there
    def test_a_real_kill(self, train, cache, moment):
        command = [
            *(o for o in train if "max_steps" not in o),
            "trainer.max_steps=300",
            "callbacks.checkpoint.every_minutes=0.005",
        ]
        environment = {**os.environ, "NIF_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "nif_cli", *command, "output_dir=parts"], env=environment
        )
        try:
            while not Path("parts/config.yaml").exists():
                assert process.poll() is None
                time.sleep(0.02)
            time.sleep(moment)
        finally:
            process.kill()
            process.wait()
        process = subprocess.run(
            [sys.executable, "-m", "nif_cli", "train", "resume=parts"], env=environment, check=True
        )
        # with the epochs of a process of its own
        long = [
            sys.executable,
            "-m",
            "nif_cli",
            *command,
            "output_dir=again",
        ]
        subprocess.run(long, env=environment, check=True)
        assert_same("again", "parts")
        assert not list(Path("parts").rglob(".*"))


class TestSettings:
    def resumed(self, nif, train, *changes: str) -> tuple[dict, dict]:
        """The optimizer's options before and after a resume with changes; the schedule is constant."""
        assert nif(*train, "scheduler=constant", "output_dir=run").code == 0
        before = state("run")
        done = nif("train", "resume=run", "trainer.max_steps=24", *changes)
        assert done.code == 0, done.err
        return before, state("run")

    def test_rates_and_decay(self, nif, train):
        changes = [
            "model.lr=5e-4",
            "model.code_lr=2e-3",
            "optimizer.betas=[0.8,0.99]",
            "optimizer.weight_decay=0.01",
        ]
        before, after = self.resumed(nif, train, *changes)
        for old, new in zip(
            before["optimizer_states"][0]["param_groups"],
            after["optimizer_states"][0]["param_groups"],
            strict=True,
        ):
            assert new["lr"] in (5e-4, 2e-3)
            assert new["lr"] != old["lr"]
            assert (list(new["betas"]), new["weight_decay"]) == ([0.8, 0.99], 0.01)
        assert "lr: 0.0005" in Path("run/config.yaml").read_text()

    def test_a_schedule_goes_on_from_another_height(self, nif, train):
        """Twice the rate under the same cosine: each step's rate is twice what it would have been."""
        assert nif(*train, "trainer.max_steps=12", "output_dir=a").code == 0
        shutil.copytree("a", "b")
        assert nif("train", "resume=a", "trainer.max_steps=20").code == 0
        assert (
            nif("train", "resume=b", "trainer.max_steps=20", "model.lr=2e-3", "model.code_lr=2e-3").code == 0
        )
        one, other = ({r["step"]: float(r["train/lr"]) for r in rows(x) if r["train/lr"]} for x in "ab")
        assert one.keys() == other.keys()
        assert all(other[s] == pytest.approx(one[s] * (1 if int(s) < 12 else 2), rel=1e-4) for s in one)

    def test_the_schedules_own_values(self, nif, train):
        assert nif(*train, "trainer.max_steps=12", "output_dir=a").code == 0
        assert nif("train", "resume=a", "trainer.max_steps=20", "scheduler.final=1.0").code == 0
        assert float(rows("a")[-2]["train/lr"] or rows("a")[-1]["train/lr"]) == pytest.approx(1e-3)

    def test_batches_clip_loss_and_logger(self, nif, train):
        before, after = self.resumed(
            nif,
            train,
            "data.batch_points=64",
            "trainer.gradient_clip_val=1e-12",
            "model.clamp=0.05",
            "logger.every=1",
        )
        assert after["global_step"] == 24
        weights = "network.layers.0.weight"
        name = (
            weights
            if weights in before["state_dict"]
            else next(k for k in before["state_dict"] if k.startswith("network"))
        )
        assert before["state_dict"][name].shape == after["state_dict"][name].shape
        assert {"20", "21", "22", "23"} <= {r["step"] for r in rows("run")}

    def test_groups_of_callbacks_and_loggers(self, nif, train):
        self.resumed(nif, train, "callbacks=quiet", "logger=csv")

    @pytest.mark.parametrize(
        ("typed", "word"),
        [
            ("field.width=64", "field.width"),
            ("field.layers=3", "field.layers"),
            ("model.code_size=8", "model.code_size"),
            ("data._target_=nif_cli.data.meshes.Voxels", "data"),
            ("model._target_=nif_cli.models.sdf.Sdf", "model"),
            ("seed=7", "seed"),
            ("model.lr=0", "lr"),
        ],
    )
    def test_what_cannot_change_is_refused_by_name_and_nothing_is_written(self, nif, run, typed, word):
        before = files(run)
        assert word in nif("train", f"resume={run}", "trainer.max_steps=16", typed).error
        assert files(run) == before
        assert nif("train", f"resume={run}", "trainer.max_steps=16").code == 0  # and the run goes on

    def test_a_run_whose_changes_fail_later_keeps_its_configuration(self, nif, run, monkeypatch):
        """The first step runs out of memory, say."""
        before = files(run)

        def fail(*_):
            raise MemoryError

        monkeypatch.setattr(Checkpoints, "on_train_batch_end", fail)
        assert nif("train", f"resume={run}", "trainer.max_steps=16", "data.batch_points=4096").code == 1
        after = files(run)
        assert after[run / "config.yaml"] == before[run / "config.yaml"]


class TestFolders:
    def test_two_trainings_into_one_folder(self, nif, run, tiny):
        claim = Claim(run, "test")
        before = files(run)
        for command in (["train", f"resume={run}"], ["train", *tiny, f"output_dir={run}"]):
            assert f"process {os.getpid()}" in nif(*command).error
        assert files(run) == before
        claim.release()
        assert nif("train", f"resume={run}").code == 0
        assert not (run / ".lock").exists()

    def test_a_dead_owner_has_nothing(self, run, nif):
        (run / ".lock").write_text("process 1 on elsewhere")
        assert nif("train", f"resume={run}").code == 0

    def test_many_at_once_get_a_folder_each(self, tmp_path):
        """Of those who want the same new folder one gets it; of those who want any, each another."""
        results: list[object] = []
        barrier = threading.Barrier(8)

        def want() -> None:
            barrier.wait()
            try:
                results.append(Claim(tmp_path / "a" / "run", "x", new=True))
            except (FileExistsError, DiskError) as error:
                results.append(error)

        threads = [threading.Thread(target=want) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        (won,) = (r for r in results if isinstance(r, Claim))
        won.release()

    def test_three_in_the_same_second(self, nif, tiny, monkeypatch):
        import datetime

        class Still(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2026, 1, 1)

        monkeypatch.setattr("nif_cli.training.new_folder.datetime", Still)
        for _ in range(3):
            assert nif("train", *tiny, "data.count=2", "trainer.max_steps=2").code == 0
        assert len(list(Path("outputs").rglob("last.ckpt"))) == 3

    def test_nothing_is_left_of_a_training_that_never_began(self, nif, tiny):
        assert (
            nif("train", *tiny, "model=sdf", "data=meshes", "data.path=nowhere.ply", "output_dir=a/b").code
            == 1
        )
        assert not Path("a").exists()

    def test_two_prepares_into_one_folder(self, nif, sphere_file):
        claim = Claim(Path("out"), "test")
        command = [
            "prepare",
            f"input={sphere_file}",
            "output=out",
            "samples=500",
            "surface_samples=100",
            "workers=1",
        ]
        assert "in use" in nif(*command).error
        claim.release()
        assert nif(*command).code == 0
        assert not Path("out/.lock").exists()


class TestLeftovers:
    def test_temporary_files_of_dead_writers_go_and_those_of_living_ones_stay(self, tmp_path):
        script = (
            "import os, sys; from pathlib import Path; from nif_cli.files import write\n"
            "write(Path(sys.argv[1]), lambda p: (p.write_bytes(b'x' * 1000), os.kill(os.getpid(), 9)))"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "mesh.ply")])
        (left,) = tmp_path.glob(".mesh*")
        other = tmp_path / ".mesh.ply.mine"
        other.touch()
        _swept.clear()

        def while_writing(path: Path) -> None:
            _swept.clear()
            write(tmp_path / "b.txt", "b")  # sweeps
            assert path.exists()
            path.write_text("a")

        write(tmp_path / "a.txt", while_writing)
        assert not left.exists()
        assert sorted(p.name for p in tmp_path.iterdir()) == [".mesh.ply.mine", "a.txt", "b.txt"]

    def test_samples_of_dead_processes_go(self, cache):
        script = (
            "import os; from nif_cli.data.shapes.spool import Spool; s = Spool(0); print(s.folder); "
            "os._exit(9)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        left = Path(done.stdout.strip())
        assert left.is_dir()
        mine = Spool(0)
        assert not left.exists()
        other = Spool(0)
        assert mine.folder.is_dir()
        assert other.folder.is_dir()

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
    def test_workers_of_prepare_go_with_their_parent(self, sphere_file, number):
        command = [
            sys.executable,
            "-m",
            "nif_cli",
            "prepare",
            f"input={sphere_file}",
            "output=out",
            "samples=20000000",
            "workers=1",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        workers: list[str] = []
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            for _ in range(600):
                workers = [
                    c
                    for c in children.read_text().split()
                    if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()
                ]
                if workers:
                    break
                time.sleep(0.05)
            time.sleep(2)  # until it works
            process.send_signal(number)
            assert process.wait(60) in (-number, 128 + number)
        finally:
            process.kill()
        for _ in range(200):
            if not any(
                Path(f"/proc/{w}").exists() and "Z" not in Path(f"/proc/{w}/stat").read_text().split()[2]
                for w in workers
            ):
                return
            time.sleep(0.05)
        raise AssertionError("a worker lives on")


class TestMetrics:
    GOOD = "step,train/loss\r\n0,1.5\r\n2,1.25\r\n"

    @pytest.mark.parametrize(
        "content",
        [
            GOOD.encode() + b"\0" * 4096,
            GOOD.encode("utf-16"),
            GOOD.encode() + b"4,1,2,3\r\n",
            GOOD.encode() + b"5\r\n6,0.5\r\n",
            b"\xff\xfe\x00",
            b"",
            b"step,step\r\n1,2\r\n",
            b'step,"a\r\n1,2\r\n',
            b"hello",
            GOOD.encode() + b"x,y\r\n",
        ],
    )
    def test_a_damaged_file_stops_no_resume(self, nif, run, content):
        """It is kept aside unless only its end, which is made again, is damaged."""
        (run / "metrics.csv").write_bytes(content)
        done = nif("train", f"resume={run}", "trainer.max_steps=16", "logger.every=1")
        assert done.code == 0, done.err
        after = rows(run)
        assert {"12", "13", "14", "15"} <= {r["step"] for r in after}
        kept = list(run.glob("metrics.damaged-*.csv"))
        if kept:
            assert kept[0].read_bytes() == content
            assert kept[0].name in done.out

    def test_rows_are_counted(self, tmp_path):
        """What the checkpoint knows stays, also of its own step; what came after goes."""
        logger = CsvLogger(str(tmp_path))
        for step in (0, 10, 20):
            logger.log_metrics({"train/loss": step}, step)
        known = logger.flush()
        logger.log_metrics({"val/loss": 20}, 20)
        again = CsvLogger(str(tmp_path))
        again.forget_after(20, known)
        again.log_metrics({"val/loss": 20}, 20)
        again.log_metrics({"train/loss": 30}, 30)
        assert [r["step"] for r in rows(tmp_path)] == ["0", "10", "20", "20", "30"]


class TestPlaces:
    @pytest.fixture
    def of_a_file(self, nif, tiny, sphere_file) -> Path:
        Path("work").mkdir()
        shutil.copy(sphere_file, "work/ball.ply")
        os.chdir("work")
        assert (
            nif("train", *tiny, "model=sdf", "data=meshes", "data.path=ball.ply", "output_dir=run").code == 0
        )
        os.chdir("..")
        return Path("work/run")

    def test_both_ways_are_written_down(self, of_a_file):
        text = (of_a_file / "config.yaml").read_text()
        assert "path: ball.ply" in text
        assert str((Path("work") / "ball.ply").resolve()) in text

    def test_from_another_working_folder(self, nif, of_a_file):
        assert nif("train", f"resume={of_a_file}", "trainer.max_steps=14").code == 0
        assert nif("evaluate", f"run={of_a_file}", "resolution=16").code == 0

    def test_not_another_file_of_the_same_name(self, nif, of_a_file):
        Path("ball.ply").write_text("something else")
        assert nif("train", f"resume={of_a_file}", "trainer.max_steps=14").code == 0

    def test_a_path_typed_anew_is_seen_from_here(self, nif, of_a_file):
        """Also when it is typed as before, and the first file is still there."""
        shutil.copy("work/ball.ply", "ball.ply")
        assert nif("train", f"resume={of_a_file}", "trainer.max_steps=14", "++data.path=ball.ply").code == 0
        assert str(Path("ball.ply").resolve()) in (of_a_file / "config.yaml").read_text()
        Path("ball.ply").write_text("something else")
        assert "ball.ply" in nif("evaluate", f"run={of_a_file}", "data.path=ball.ply", "resolution=16").error

    def test_moved_together(self, nif, of_a_file):
        Path("work").rename("elsewhere")
        os.chdir("elsewhere")
        done = nif("train", "resume=run", "trainer.max_steps=14")
        assert done.code == 0, done.err
        assert "data.path" in done.out

    def test_moved_apart(self, nif, of_a_file):
        """The key is named, and taken."""
        Path("work/ball.ply").rename("ball.ply")
        Path("data").mkdir()
        Path("ball.ply").rename("data/ball.ply")
        before = files(of_a_file)
        for command in (
            ["train", f"resume={of_a_file}", "trainer.max_steps=14"],
            ["evaluate", f"run={of_a_file}", "resolution=16"],
        ):
            assert "give data.path=" in nif(*command).error
            assert files(of_a_file) == before
        assert nif("evaluate", f"run={of_a_file}", "resolution=16", "data.path=data/ball.ply").code == 0
        assert nif("render", f"run={of_a_file}", "size=16", "frames=1").code == 0


@contextmanager
def mounted(folder: Path, *options: str):
    """A small file system of its own, where this user may mount one."""
    folder.mkdir(exist_ok=True)
    if not hasattr(os, "getuid") or os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs to mount a file system")
    if subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class TestDisks:
    def test_full_at_every_moment(self, nif, train, tmp_path):
        """Wherever the disk fills up, it is one line; what was saved before goes on when there is room."""
        said = set()
        for free in (0, 1, 4, 12, 40, 100):  # KiB
            with mounted(tmp_path / "disk", "-o", "size=1m") as disk:
                done = nif(*train, f"output_dir={disk / 'first'}", "trainer.max_steps=2")
                assert done.code == 0, done.err
                room = os.statvfs(disk)
                (disk / "fill").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - free * 1024)))
                done = nif(*train, f"output_dir={disk / 'run'}")
                if done.code:
                    said.add(done.error)
                    assert "full" in done.error
                (disk / "fill").unlink()
                done = nif("train", f"resume={disk / 'first'}", "trainer.max_steps=4")
                assert done.code == 0, done.err
        assert said

    def test_a_read_only_place(self, nif, tiny, run, sphere_file, tmp_path):
        with mounted(tmp_path / "disk") as disk:
            shutil.copytree(run, disk / "run")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            began = time.monotonic()
            for command in (
                ["train", *tiny, f"output_dir={disk / 'new'}"],
                ["train", f"resume={disk / 'run'}", "trainer.max_steps=20"],
                ["prepare", f"input={sphere_file}", f"output={disk / 'out'}", "samples=100000000"],
                ["train", "-m", *tiny, "model.lr=1e-3,2e-3", f"hydra.sweep.dir={disk / 'sweep'}"],
            ):
                assert "cannot be written to: Read-only file system" in nif(*command).error
            assert time.monotonic() - began < 60
            os.chdir(disk)
            try:
                assert "Read-only file system" in nif("train", *tiny).error
                assert "Read-only file system" in nif("train", "-m", *tiny, "model.lr=1e-3,2e-3").error
            finally:
                os.chdir(tmp_path)


class TestSweeps:
    def test_failed_jobs_are_told_by_the_exit_code(self, nif, tiny):
        done = nif("train", "-m", *tiny, "data.count=2", "model.code_size=-1,4,0", "hydra.sweep.dir=s")
        assert done.code == 1
        assert "2 of 3 jobs failed" in done.err
        assert Path("s/1/checkpoints/last.ckpt").is_file()
        done = nif("train", "-m", *tiny, "data.count=2", "model.code_size=-1,0", "hydra.sweep.dir=t")
        assert done.code == 1
        assert "all 2 jobs failed" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_stops_all_of_it(self, nif, tiny, monkeypatch, number):
        ordinary = Checkpoints.on_train_batch_end

        def stop(self, trainer, *args):
            ordinary(self, trainer, *args)
            if trainer.global_step == 5:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Checkpoints, "on_train_batch_end", stop)
        done = nif("train", "-m", *tiny, "data.count=2", "model.lr=1e-3,2e-3", "hydra.sweep.dir=s")
        assert done.code == 128 + number
        assert state("s/0")["global_step"] == 5
        assert not Path("s/1/checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_data_are_read_leaves_nothing(nif, tiny, monkeypatch, number):
    ordinary = ShapeData.prepare

    def prepare(self):
        os.kill(os.getpid(), number)
        return ordinary(self)

    monkeypatch.setattr(ShapeData, "prepare", prepare)
    assert nif("train", *tiny, "output_dir=a/b").code == 128 + number
    assert not Path("a").exists()


def test_what_a_disk_says_names_the_file(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(NifError, match="a/b"):
        write(tmp_path / "a" / "b", "x")


def test_an_image_of_nothing(ball):
    """A field whose surface is nowhere: white, nowhere hit, whatever the number of rays a pixel."""
    from nif_cli.rendering.camera_paths import turntable
    from nif_cli.rendering.surface_view import surface_view

    for antialias in (1, 2):
        view = surface_view(ball(-1.0), turntable(1)[0], 16, antialias=antialias)
        assert float(view.opacity.max()) == 0
        assert not torch.isfinite(view.depth).any()


def test_no_home_and_an_unknown_user(monkeypatch):
    """As in many containers: what can be made again is kept in the system's temporary folder."""
    from nif_cli.data.memory import cache_folder

    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NIF_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    assert cache_folder().is_absolute()


def test_a_python_without_semaphores(nif, sphere_file, monkeypatch):
    def lacks(*_):
        raise ImportError("this build lacks multiprocessing.synchronize")

    monkeypatch.setattr("nif_cli.commands.engine.ProcessPoolExecutor", lacks)
    assert "worker processes" in nif("prepare", f"input={sphere_file}", "output=out", "samples=500").error
