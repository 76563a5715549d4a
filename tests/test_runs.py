"""Runs on disk: found, written whole, and read as data: files of strangers run nothing."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from nif_cli import NifError, runs
from nif_cli.field import Field
from nif_cli.models.model import CHECKPOINT_FORMAT


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def spoil(run: Path, change) -> Path:
    """The run's checkpoint, after `change(checkpoint)`."""
    checkpoint = torch.load(last(run), weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, last(run))
    return run


class Touch:
    """A pickle that leaves a file behind when it is run."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch '{self.marker}'",))


class TestStrangers:
    @pytest.fixture(autouse=True)
    def _marker(self, tmp_path: Path):
        self.marker = tmp_path / "ran"
        yield
        assert not self.marker.exists(), "the checkpoint's code was run"

    def test_the_trap_works(self, tmp_path: Path):
        """The tests below would notice."""
        other = tmp_path / "trap"
        pickle.loads(pickle.dumps(Touch(other)))
        assert other.exists()

    @pytest.mark.parametrize("which", ["last", "best"])
    def test_code_in_a_pickle_is_refused(self, run: Path, which):
        checkpoint = torch.load(last(run), weights_only=True)
        torch.save({**checkpoint, "extra": Touch(self.marker)}, run / "checkpoints" / f"{which}.ckpt")
        with pytest.raises(NifError, match=rf"{which}\.ckpt: refused.*code"):
            runs.load_model(run, which)

    def test_code_in_a_bare_pickle_is_refused(self, run: Path):
        last(run).write_bytes(pickle.dumps(Touch(self.marker)))
        with pytest.raises(NifError, match=r"last\.ckpt"):
            runs.load_model(run)

    def test_code_in_an_old_torch_file_is_refused(self, run: Path):
        torch.save({"a": Touch(self.marker)}, last(run), _use_new_zipfile_serialization=False)
        with pytest.raises(NifError, match=r"last\.ckpt"):
            runs.load_model(run)

    @pytest.mark.parametrize("node", ["model", "field", "encoding", "optimizer", "scheduler"])
    @pytest.mark.parametrize(
        "target",
        ["os.system", "nif_cli.cli.os.system", "subprocess.Popen", "torch.hub.load", "builtins.eval"],
    )
    def test_a_configuration_that_would_run_code_is_refused(self, run: Path, node, target):
        spoil(
            run,
            lambda c: c["nif"]["config"].update(
                {node: {"_target_": target, "command": f"touch {self.marker}"}}
            ),
        )
        with pytest.raises(NifError, match=f"_target_={target}"):
            runs.load_model(run)

    def test_a_checkpoint_may_name_less_than_a_user(self, run: Path):
        """Loggers and trainers write where they are told: a checkpoint may not name them."""
        node = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(self.marker)}
        spoil(run, lambda c: c["nif"]["config"].update(optimizer=node))
        with pytest.raises(NifError, match="refused"):
            runs.load_model(run)

    def test_the_config_file_of_a_run_is_not_trusted_either(self, run: Path, nif):
        text = (run / "config.yaml").read_text().replace("nif_cli.optim.adam.Adam", "os.system")
        assert "os.system" in text
        (run / "config.yaml").write_text(text)
        assert "optimizer._target_=os.system" in nif("train", f"resume={run}").error

    def test_resuming_a_stranger_runs_nothing(self, run: Path, nif):
        torch.save({**torch.load(last(run), weights_only=True), "extra": Touch(self.marker)}, last(run))
        assert "refused" in nif("train", f"resume={run}", "trainer.max_steps=20").error
        assert "refused" in nif("train", f"init_from={run}", "model.code_size=4", "field=mlp").error

    @pytest.mark.parametrize("command", ["extract", "render"])
    def test_the_commands_say_it_in_a_line(self, run: Path, nif, command):
        torch.save({"nif": Touch(self.marker)}, last(run))
        assert "refused" in nif(command, f"run={run}").error


class TestWrongFiles:
    def message(self, run: Path) -> str:
        with pytest.raises(NifError) as error:
            runs.load_model(run)
        text = str(error.value)
        assert "last.ckpt" in text
        assert len(text.splitlines()) <= 2
        return text

    def test_a_newer_format(self, run: Path):
        spoil(run, lambda c: c["nif"].update(format=CHECKPOINT_FORMAT + 1, version="9.9"))
        assert "9.9" in self.message(run)

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
    def test_a_file_cut_short(self, run: Path, keep):
        data = last(run).read_bytes()
        last(run).write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
        assert "damaged" in self.message(run)

    def test_flipped_bytes(self, run: Path):
        """In the pickle that says what is where."""
        data = bytearray(last(run).read_bytes())
        where = data.index(b"state_dict")
        data[where : where + 200] = bytes(b ^ 0xFF for b in data[where : where + 200])
        last(run).write_bytes(data)
        self.message(run)

    def test_somebody_elses_checkpoint(self, run: Path):
        torch.save({"state_dict": {"a": torch.zeros(2)}}, last(run))
        assert "not one of nif" in self.message(run)
        torch.save(torch.zeros(3), last(run))
        assert "not one of nif" in self.message(run)

    def test_weights_that_do_not_fit(self, run: Path):
        spoil(run, lambda c: c["nif"]["config"]["field"].update(width=30))
        assert "do not fit" in self.message(run)

    def test_weights_that_are_missing(self, run: Path):
        spoil(run, lambda c: c["state_dict"].pop("codes.weight"))
        assert "do not fit" in self.message(run)

    def test_a_network_larger_than_memory_is_never_made(self, run: Path):
        """The weights decide: a configuration that asks for terabytes is refused without allocating them."""
        spoil(run, lambda c: c["nif"]["config"]["field"].update(width=10_000_000, layers=3))
        assert "do not fit" in self.message(run)

    @pytest.mark.parametrize(
        "change",
        [
            lambda nif: nif.pop("instances"),
            lambda nif: nif.update(instances=[1, 2]),
            lambda nif: nif.update(instances={"a": 1}),
            lambda nif: nif.update(instances=[{"id": "a"}]),
            lambda nif: nif.update(config={}),
            lambda nif: nif["config"].update(field=None),
            lambda nif: nif["config"].update(field=None, encoding=None),
            lambda nif: nif["config"].update(model=None),
            lambda nif: nif["config"].update(model=[1]),
            lambda nif: nif["config"].update(model="x"),
            lambda nif: nif["config"]["model"].pop("_target_"),
            lambda nif: nif["config"]["model"].update(_target_="torch.nn.Linear"),
            lambda nif: nif["config"]["field"].update(unknown=1),
            lambda nif: nif["config"]["field"].update(width="wide"),
            lambda nif: nif["config"]["field"].update(width=-3),
        ],
    )
    def test_nonsense_inside(self, run: Path, change):
        """Whatever a checkpoint's own entry holds, the answer is a line."""
        spoil(run, lambda c: change(c["nif"]))
        with pytest.raises(NifError):
            runs.load_model(run)

    def test_a_zip_bomb_is_refused_before_it_is_unpacked(self, run: Path):
        with zipfile.ZipFile(last(run), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({}))
            archive.writestr("archive/data/0", bytes(2**26))
        assert last(run).stat().st_size < 2**20
        assert "refused" in self.message(run)

    def test_no_best_yet(self, run: Path):
        (run / "checkpoints" / "best.ckpt").unlink(missing_ok=True)
        with pytest.raises(NifError, match=r"best\.ckpt: no such checkpoint"):
            runs.load_model(run, "best")
        with pytest.raises(NifError, match="checkpoint=first: must be last or best"):
            runs.load_model(run, "first")


def test_a_run_loads_from_anywhere(run: Path, tmp_path: Path):
    """Moved elsewhere, without its data, it gives the same fields."""
    points = torch.rand(50, 3)
    model = runs.load_model(run)
    before = model.field("chair/0001")
    elsewhere = Path(shutil.move(run, tmp_path / "else where"))
    again = runs.load_model(elsewhere)
    after = again.field("chair/0001")
    assert isinstance(before, Field)
    assert isinstance(after, Field)
    assert torch.equal(after.value(points), before.value(points))
    assert list(again.instances) == list(model.instances)
    assert again.instances == model.instances
    assert not again.training


def test_loading_leaves_no_parameter_behind(run: Path):
    """Everything is made from the checkpoint: nothing stays on the meta device."""
    model = runs.load_model(run)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.device.type == "cpu", name


class TestFind:
    def make(self, name: str, time: int, checkpoint: bool = True) -> Path:
        folder = Path("outputs") / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        os.utime(folder / "config.yaml", (time, time))
        if checkpoint:
            last(folder).write_bytes(b"")
        return folder

    def test_the_latest_started_with_a_checkpoint(self):
        self.make("sdf-meshes/b", 100)
        newest = self.make("deepsdf-toy_shapes/a", 300)
        self.make("sdf-meshes/z", 200)
        self.make("sdf-meshes/starting", 400, checkpoint=False)
        os.utime(last(Path("outputs/sdf-meshes/b")), (900, 900))  # still being written, but started earlier
        assert runs.find(None) == runs.find("latest") == newest

    def test_a_sweeps_jobs_are_runs(self):
        job = self.make("sweeps/2026/0", 100)
        assert runs.find(None) == job

    def test_nothing_to_find(self):
        with pytest.raises(NifError, match=r"no run.*nif train"):
            runs.find(None)
        with pytest.raises(NifError, match="run=nowhere: no such folder"):
            runs.find("nowhere")
        Path("empty").mkdir()
        with pytest.raises(NifError, match="run=empty: not a run"):
            runs.find("empty")
        Path("file").write_text("x")
        with pytest.raises(NifError, match="resume=file: not a run"):
            runs.find("file", "resume")


class TestSelect:
    known = (*(f"chair/{k}" for k in range(6)), *(f"lamp/{k}" for k in range(6)), "7")

    def select(self, spec):
        return runs.select(list(self.known), spec)

    def test_default_is_the_first_eight_and_all_is_all(self):
        assert self.select(None) == list(self.known[:8])
        assert self.select("all") == list(self.known)

    def test_a_count(self):
        assert self.select(3) == self.select("3") == list(self.known[:3])
        assert self.select(99) == list(self.known)

    def test_ids_and_globs_each_once_in_the_order_asked(self):
        assert self.select("lamp/2") == ["lamp/2"]
        assert self.select(["lamp/2", "chair/*", "lamp/?"])[:3] == ["lamp/2", "chair/0", "chair/1"]
        assert len(self.select(["lamp/2", "chair/*", "lamp/?"])) == 12
        assert self.select("7") == ["7"]  # an id, before it is a count

    @pytest.mark.parametrize("spec", ["cahir/1", "lamp/9", ["chair/0", "nothing*"], 0, -1, "0"])
    def test_what_is_not_there_is_named(self, spec):
        with pytest.raises(NifError, match="instances"):
            self.select(spec)

    def test_did_you_mean(self):
        with pytest.raises(NifError, match="did you mean 'chair/1'"):
            self.select("cahir/1")


class TestWrite:
    def test_content_of_every_kind(self, tmp_path: Path):
        for content in ("text", b"text", lambda path: path.write_text("text")):
            runs.write(tmp_path / "deep" / "er" / "a.txt", content)
            assert (tmp_path / "deep/er/a.txt").read_text() == "text"
        assert [p.name for p in (tmp_path / "deep/er").iterdir()] == ["a.txt"]

    def test_permissions_are_the_users(self, tmp_path: Path):
        (tmp_path / "plain").write_text("")
        runs.write(tmp_path / "ours", "")
        assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_loses_nothing(self, tmp_path: Path, number):
        path = tmp_path / "a.txt"
        path.write_text("before")

        def fill(temporary: Path) -> None:
            temporary.write_text("hal")
            raise OSError(number, os.strerror(number))

        with pytest.raises(NifError, match=r"a\.txt.*disk is full"):
            runs.write(path, fill)
        assert path.read_text() == "before"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

    def test_a_full_disk_while_bytes_are_written(self, tmp_path: Path, monkeypatch):
        def full(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(NifError, match="disk is full"):
            runs.write(tmp_path / "a.txt", "after")
        assert not list(tmp_path.iterdir())

    def test_any_other_end_leaves_no_temporary_file(self, tmp_path: Path):
        def stop(temporary: Path) -> None:
            temporary.write_text("hal")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runs.write(tmp_path / "a.txt", stop)
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_is_a_file(self, tmp_path: Path):
        (tmp_path / "a").write_text("")
        with pytest.raises(NifError, match=r"b\.txt: cannot be written"):
            runs.write(tmp_path / "a" / "b.txt", "x")


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", ".", "a//b", "a\\b", "a\0b", "chair/x y+1"]
)
def test_names_of_files_never_leave_the_folder(tmp_path: Path, id):
    path = (tmp_path / runs.safe_name(id)).resolve()
    assert path.is_relative_to(tmp_path)
    assert path != tmp_path
    assert "\0" not in str(path)


def test_plain_ids_are_their_own_names():
    assert runs.safe_name("chair/0001") == "chair/0001"
    assert runs.safe_name("my shape-2.v1") == "my shape-2.v1"


class TestDevice:
    def test_names(self):
        assert runs.device_for("cpu") == torch.device("cpu")
        assert runs.device_for("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    @pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "", "mps", "cuda:-1"])
    def test_other_names_are_refused(self, name):
        with pytest.raises(NifError, match="must be auto, cpu, cuda or cuda:n"):
            runs.device_for(name)

    @pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
    def test_a_device_that_is_not_there(self, name, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(NifError, match=f"device={name}: there is no CUDA device"):
            runs.device_for(name)
