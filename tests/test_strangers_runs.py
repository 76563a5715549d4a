"""A stranger's run at resume=, extract, evaluate: its configuration is its own, and its writes stay in its
folder."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
import yaml

import nif_cli.run_paths
import nif_cli.runs
from nif_cli import NifError
from nif_cli.config import started
from nif_cli.training.lightning_parts import kept_inside, told


def change(run: Path, **values: object) -> None:
    """Set keys (dots as __) of a run's config.yaml."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in values.items():
        node = config
        *path, last = key.split("__")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("name", ["meshes", "checkpoints", "metrics.csv", "meshes/chair"])
def test_a_link_out_of_a_run_is_not_written_through(nif, run, tmp_path, name):
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.mkdir()
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(outside)
    before = sorted(p.name for p in outside.rglob("*"))
    for words in (
        ["train", f"resume={run}"],
        ["extract", f"run={run}"],
        ["evaluate", f"run={run}"],
        ["render", f"run={run}"],
    ):
        assert name in nif(*words).error
    assert sorted(p.name for p in outside.rglob("*")) == before


def test_a_link_inside_a_run_is_its_own(nif, run):
    (run / "again").symlink_to(run / "checkpoints")
    assert nif("extract", f"run={run}", "resolution=4", "level=-9", "instances=1").code == 0


def test_no_secret_comes_in(nif, run, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "swordfish")
    change(run, seed="${oc.env:SECRET}")
    assert "swordfish" not in nif("train", f"resume={run}", "trainer.max_steps=14").error
    change(run, seed=0, data__instances=["${oc.env:SECRET}"])
    done = nif("train", f"resume={run}", "trainer.max_steps=14")
    assert "swordfish" not in done.out + done.err
    assert not [p for p in run.rglob("*") if p.is_file() and b"swordfish" in p.read_bytes()]


def test_more_processes_than_the_machine_has(nif, run):
    change(run, trainer__devices=4000)
    assert "trainer.devices=4000" in nif("train", f"resume={run}", "trainer.max_steps=14").error


def test_data_that_nobody_walks_unasked(nif, run, tmp_path, monkeypatch):
    monkeypatch.setattr(nif_cli.run_paths, "MANY_FILES", 40)
    wide = tmp_path / "wide"
    wide.mkdir()
    for k in range(50):
        (wide / f"{k}.txt").touch()
    change(run, data={"_target_": "nif_cli.data.shapes.meshes.MeshData", "path": str(wide)})
    assert "data.path" in nif("train", f"resume={run}", "trainer.max_steps=14").error
    assert (
        "so says the run"
        not in nif("train", f"resume={run}", "trainer.max_steps=14", f"data.path={wide}").error
    )


@pytest.mark.parametrize(
    ("key", "node"),
    [
        ("logger__csv", {"_target_": "pytorch_lightning.loggers.CSVLogger", "name": "../../out"}),
        ("logger__csv", {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "sub_dir": "../../out"}),
        (
            "logger__csv",
            {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "tracking_uri": "file:../../out"},
        ),
        (
            "trainer__profiler",
            {"_target_": "pytorch_lightning.profilers.SimpleProfiler", "dirpath": "../out", "filename": "x"},
        ),
        (
            "trainer__profiler",
            {"_target_": "pytorch_lightning.profilers.SimpleProfiler", "filename": "/tmp/out/x"},
        ),
        ("callbacks__x", {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": "/tmp/out"}),
    ],
)
def test_nothing_is_written_outside_the_run(nif, run, tmp_path, key, node):
    change(run, **{key: node})
    message = nif("train", f"resume={run}", "trainer.max_steps=14").error
    assert key.replace("__", ".") in message
    assert "leads out of the run" in message
    assert not list(tmp_path.rglob("out"))


def test_nothing_is_sent_to_where_the_run_says(nif, run):
    """An address in its loggers is the user's own only if they type it."""
    node = {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "tracking_uri": "http://10.0.0.1:5000"}
    change(run, logger__far=node)
    resume = ("train", f"resume={run}", "trainer.max_steps=14")
    assert "logger.far.tracking_uri=http://10.0.0.1:5000: so says the run" in nif(*resume).error
    typed = nif(*resume, "logger.far.tracking_uri=http://10.0.0.1:5000")
    assert "so says the run" not in typed.error
    assert nif(*resume, "logger=csv").code == 0


def test_a_package_that_a_logger_lacks_is_named():
    for error, name in (
        (ModuleNotFoundError("The 'mlflow>=1.0.0' distribution was not found"), "mlflow"),
        (ModuleNotFoundError("No module named 'wandb.sdk'"), "wandb"),
        (ImportError("You want `x`. Run `pip install -U comet-ml` first"), "comet-ml"),
    ):
        said = f"^logger.x: a package is missing; pip install {name}$"
        with pytest.raises(NifError, match=said), told("logger.x"):
            raise error


def test_parts_stand_under_a_name(nif, tiny):
    for part in ("logger", "callbacks"):
        said = nif("train", *tiny, f"{part}._target_=pytorch_lightning.loggers.MLFlowLogger").error
        assert f"+{part}.<name>._target_=" in said


def test_a_callback_of_ones_own_is_asked_at_the_last_look(nif, tiny, tmp_path, monkeypatch):
    text = """
        import pytorch_lightning as pl
        class Look(pl.Callback):
            def on_validation_end(self, trainer, module):
                print("looked at step", trainer.global_step, float(trainer.callback_metrics["val/loss"]))
    """
    (tmp_path / "looks_of_mine.py").write_text(dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NIF_ALLOW", "looks_of_mine.")
    done = nif("train", *tiny, "+callbacks.x._target_=looks_of_mine.Look", "output_dir=made")
    assert done.code == 0, done.err
    assert done.out.count("looked at step") == 1


def test_data_that_never_was_where_it_is_said_to_be():
    """Where a run's data lay is said; not of a path that was typed just now."""
    data = {"path": "nowhere.obj"}
    for before, said in ((None, False), ({"typed": "nowhere.obj", "absolute": "/gone/nowhere.obj"}, True)):
        config = {"data": data, "paths": {"data.path": before} if before else {}}
        config["paths"] = nif_cli.runs.paths_of(config)
        with pytest.raises(NifError, match=r"^data.path=nowhere.obj: no such file or folder") as error:
            nif_cli.runs.located(config)
        assert ("it was /gone/nowhere.obj" in str(error.value)) == said == ("it was" in str(error.value))


PARTS = {
    "callbacks.x=ModelCheckpoint": [
        "+callbacks.x._target_=pytorch_lightning.callbacks.ModelCheckpoint",
        "+callbacks.x.save_last=true",
    ],
    "callbacks.x=EarlyStopping": [
        "+callbacks.x._target_=pytorch_lightning.callbacks.EarlyStopping",
        "+callbacks.x.monitor=val/loss",
    ],
    "callbacks.x=EarlyStopping of nothing": [
        "+callbacks.x._target_=pytorch_lightning.callbacks.EarlyStopping",
        "+callbacks.x.monitor=nothing",
    ],
    "logger.x=MLFlowLogger": ["+logger.x._target_=pytorch_lightning.loggers.MLFlowLogger"],
    "logger.x=CSVLogger": ["+logger.x._target_=pytorch_lightning.loggers.CSVLogger"],
    "trainer.profiler": [
        "+trainer.profiler._target_=pytorch_lightning.profilers.SimpleProfiler",
        "+trainer.profiler.filename=p",
    ],
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_lightning_work_or_say_why(nif, tiny, tmp_path, name):
    done = nif("train", *tiny, "data.count=2", *PARTS[name], "output_dir=made")
    assert done.code == 0 or done.error
    if name in (
        "callbacks.x=ModelCheckpoint",
        "logger.x=CSVLogger",
        "callbacks.x=EarlyStopping",
        "trainer.profiler",
    ):
        assert done.code == 0, done.err
    assert {p.name for p in tmp_path.iterdir()} <= {"made"}
    if done.code == 0:
        assert nif("train", "resume=made", "trainer.max_steps=14").code == 0


def test_keys_are_those_of_the_run(nif, tiny, sphere_file, tmp_path):
    """Of its own field and data, not of the default groups; what no class knows is named."""
    sets = [
        *tiny[:-3],
        "model=sdf",
        "field=siren",
        "field.width=16",
        "field.layers=2",
        f"data.path={sphere_file}",
    ]
    done = nif("train", *sets, "output_dir=made")
    assert done.code == 0, done.err
    (tmp_path / "moved (1)").mkdir()
    moved = sphere_file.rename(tmp_path / "moved (1)" / sphere_file.name)
    done = nif(
        "train",
        "resume=made",
        "trainer.max_steps=14",
        f"data.path={moved}",
        "model.surface_weight=2.5",
        "field.omega=30",
    )
    assert done.code == 0, done.err
    for typed in ("field.omego=3", "model.code_size=3", "data.count=2", "trainer.max_step=9"):
        assert f"no key '{typed.partition('=')[0]}'" in nif("train", "resume=made", typed).error
    done = nif("evaluate", "run=made", f"data.path={moved}", "resolution=8")
    assert done.code in (0, 1)
    assert "internal error" not in done.err
    assert "no key" not in done.err
    assert "no key" in nif("evaluate", "run=made", "data.pahts=x").error


def test_groups_that_a_resumed_run_takes_anew(nif, run):
    """A run of logger=csv, callbacks=quiet, resumed with others: those are taken, with the keys typed beside
    them."""
    done = nif(
        "train",
        f"resume={run}",
        "trainer.max_steps=14",
        "callbacks=default",
        "callbacks.preview.size=24",
        "logger=default",
    )
    assert done.code == 0, done.err
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["callbacks"]["preview"]["size"] == 24
    assert "tensorboard" in config["logger"]
    assert list(run.glob("events.out.tfevents*"))
    done = nif("train", f"resume={run}", "trainer.max_steps=16", "callbacks=quiet", "logger=csv")
    assert done.code == 0, done.err
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert "preview" not in config["callbacks"]
    assert "tensorboard" not in config["logger"]


def test_what_is_allowed_is_settled_at_the_start(monkeypatch):
    from nif_cli.config import own_prefixes

    monkeypatch.setenv("NIF_ALLOW", "mine.")
    with started():
        monkeypatch.setenv("NIF_ALLOW", "os.")
        assert own_prefixes() == ("mine.",)
    assert own_prefixes() == ("os.",)


@pytest.mark.parametrize("value", [None, "x", [1], {"a": 1}, True, float("nan"), 10**40])
@pytest.mark.parametrize("key", ["seed", "device", "trainer", "data", "model"])
def test_a_root_key_of_another_type(nif, run, key, value):
    """A line, or a training that can do with it; a key that is missing is as by default."""
    change(run, **{key: value})
    done = nif("train", f"resume={run}", "trainer.max_steps=14")
    assert done.code == 0 or done.error


def test_early_stopping_stops(nif, tiny):
    node = [
        "_target_=pytorch_lightning.callbacks.EarlyStopping",
        "monitor=val/loss",
        "patience=1",
        "min_delta=10",
    ]
    sets = [
        *(f"+callbacks.x.{word}" for word in node),
        "+trainer.val_check_interval=10",
        "trainer.max_steps=200",
    ]
    done = nif("train", *tiny, "data.count=2", *sets, "output_dir=made")
    assert done.code == 0, done.err
    assert "\n20 steps" in done.out


@pytest.mark.parametrize("steps", [12, 25])
def test_the_closing_look_is_everybodys(nif, tiny, tmp_path, steps):
    """A training that ends before, or between, looks at the held-out data: what judges by it is asked once
    more."""
    sets = [
        *tiny,
        "data.count=2",
        f"trainer.max_steps={steps}",
        *(["+trainer.val_check_interval=10"] if steps == 25 else []),
    ]
    node = "+callbacks.x._target_=pytorch_lightning.callbacks"
    done = nif(
        "train",
        *sets,
        f"{node}.ModelCheckpoint",
        "+callbacks.x.monitor=val/loss",
        "+callbacks.x.save_top_k=-1",
    )
    assert done.code == 0, done.err
    kept = {path.name.partition("step=")[2] for path in tmp_path.rglob("model_checkpoints/*.ckpt")}
    assert kept == ({"12.ckpt"} if steps == 12 else {"10.ckpt", "20.ckpt", "25.ckpt"})
    for name in ("ModelCheckpoint", "EarlyStopping"):
        done = nif("train", *sets, f"{node}.{name}", "+callbacks.x.monitor=val/los", f"output_dir={name}")
        assert "val/los" in done.error
        # nothing is lost of what was trained
        assert steps == 25 or (tmp_path / name / "checkpoints" / "last.ckpt").is_file()


def test_the_closing_look_has_every_metric(nif, tiny, tmp_path):
    sets = [*tiny[:-3], "model=occupancy", "data=toy_shapes", "data.count=2"]
    node = "+callbacks.x._target_=pytorch_lightning.callbacks.ModelCheckpoint"
    done = nif(
        "train", *sets, node, "+callbacks.x.monitor=val/iou", "+callbacks.x.mode=max", "output_dir=made"
    )
    assert done.code == 0, done.err
    assert list(tmp_path.glob("made/model_checkpoints/*.ckpt"))


@pytest.mark.parametrize(
    "filename",
    [
        "{step:c}./{step:c}./x",
        "{epoch:zz}",
        "{step:9999999999}",
        "{val/loss:d}",
        "{",
        "}",
        "{}",
        "{0}",
        "{step!r}",
        "{a:.99f}",
        "x" * 300,
    ],
)
def test_a_filename_is_short_and_has_fields_of_numbers(tmp_path, filename):
    """Lightning hands it to str.format: `c` makes dots and slashes, a width gigabytes."""
    node = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "filename": filename}
    with pytest.raises(NifError, match="filename"):
        kept_inside({"x": node}, "callbacks", tmp_path)


@pytest.mark.parametrize(
    "filename",
    [
        "plain",
        "{epoch}-{step}",
        "{step:06d}",
        "{epoch:02d}-{val/loss:.3f}",
        "{val/loss:.1e}",
        "{nothing:.2f}",
    ],
)
def test_filenames_that_work(nif, tiny, tmp_path, filename):
    node = "+callbacks.x._target_=pytorch_lightning.callbacks.ModelCheckpoint"
    done = nif("train", *tiny, "data.count=1", node, f"+callbacks.x.filename='{filename}'", "output_dir=made")
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("made/model_checkpoints/**/*.ckpt"))) == 1


def test_rows_are_flushed_every_so_often(nif, tiny):
    node = "+logger.x._target_=pytorch_lightning.loggers.CSVLogger"
    assert "at least 1" in nif("train", *tiny, node, "+logger.x.flush_logs_every_n_steps=0").error
    for every in ("[50]", "often", "0", "2.5", ".nan"):
        assert "logger.every is" in nif("train", *tiny, f"logger.every={every}").error
