"""TensorBoard, Weights & Biases, MLflow: what they get and where they write; nothing is sent unasked."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import TINY, TINY_MLP

from nif_cli import NifError
from nif_cli.training.boards import hyperparameters
from nif_cli.training.lightning_parts import kept_inside

SHOWN = [o for o in (*TINY, *TINY_MLP) if o not in ("callbacks=quiet", "logger=csv")]
SMALL = ["callbacks.preview.size=16", "callbacks.preview.resolution=8", "callbacks.preview.shapes=1"]
TRAIN = [
    "train",
    *SHOWN,
    *SMALL,
    "model.code_size=4",
    "data.count=2",
    "output_dir=run",
    "trainer.max_steps=3",
]


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty home, in which nothing is to be left; no keys, no addresses."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in [n for n in os.environ if n.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    return folder


def names(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


def test_hparams_of_tensorboard_stand_in_the_run(nif):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]

    assert nif(*TRAIN).code == 0
    found, scalars = {}, {}
    for path in sorted(Path("run").rglob("events.out.tfevents.*")):
        assert path.parent == Path("run")  # no second run
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == "_hparams_/session_start_info":
                    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    found = dict(data.session_start_info.hparams)
                elif value.tensor.float_val:
                    scalars[value.tag] = value.tensor.float_val[0]
    summary = json.loads(Path("run/summary.json").read_text())
    assert found["field.width"].number_value == 24
    assert found["model._target_"].string_value.endswith("DeepSdf")
    assert scalars["val/loss"] == pytest.approx(summary["val/loss"], rel=1e-5)
    assert scalars["val/loss best"] == pytest.approx(summary["val/loss best"], rel=1e-5)


def test_settings_are_numbers_and_words():
    config = {"seed": 1, "paths": {"x": 1}, "field": {"skips": [1, 2], "a": None, "on": True}, "tag": "x"}
    assert hyperparameters(config) == {"seed": 1, "field.skips": "[1, 2]", "field.on": True}


@pytest.mark.slow
def test_wandb_stays_in_the_run_and_sends_nothing(nif, home, tmp_path):
    pytest.importorskip("wandb")
    done = nif(*TRAIN, "logger=wandb")
    assert done.code == 0, done.err
    assert "starting wandb" in done.out
    assert "anonymous" not in done.err
    (written,) = Path("run/wandb").glob("offline-run-*")
    left = names(written)
    assert any(name.endswith(".png") for name in left)
    assert any(name.endswith(".obj") for name in left)
    (record,) = written.glob("*.wandb")
    assert b"field.width" in record.read_bytes()
    assert not names(home)
    assert {p.name for p in tmp_path.iterdir()} == {"home", "run"}
    assert nif("runs", "rm", "run", "yes=true").code == 0
    assert "login" in nif(*TRAIN, "logger=wandb", "logger.wandb.offline=false").error


@pytest.mark.slow
def test_mlflow_stays_in_the_run_and_sends_nothing(nif, home, tmp_path):
    pytest.importorskip("mlflow")
    done = nif(*TRAIN, "logger=mlflow")
    assert done.code == 0, done.err
    with sqlite3.connect("run/mlflow.db") as base:
        hyperparameters = dict(base.execute("select key, value from params"))
        numbers = {key for (key,) in base.execute("select key from metrics")}
    assert hyperparameters["field.width"] == "24"
    assert {"train/loss", "final/val/loss"} <= numbers
    left = names(Path("run/mlartifacts"))
    assert any(name.endswith(".png") for name in left)
    assert any(name.endswith(".obj") for name in left)
    assert not names(home)
    assert {p.name for p in tmp_path.iterdir()} == {"home", "run"}
    assert nif("runs", "rm", "run", "yes=true").code == 0


@pytest.mark.parametrize(
    "said", [{}, {"offline": "yes"}, {"offline": True, "mode": "online"}, {"offline": True, "settings": {}}]
)
def test_a_run_that_says_send_is_asked_about(nif, run, said):
    """The key would be the user's, the project a stranger's."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    wandb = "pytorch_lightning.loggers.WandbLogger"
    config["logger"]["w"] = {"_target_": wandb, "project": "theirs", **said}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "logger.w.offline=false" in nif("train", f"resume={run}", "trainer.max_steps=14").error
    assert nif("train", f"resume={run}", "trainer.max_steps=14", "logger=csv").code == 0


@pytest.mark.parametrize("loggers", [1e308, float("-inf"), "csv", [1], True])
def test_loggers_that_are_none_are_refused(nif, run, loggers):
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"logger": loggers}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    told = nif("train", f"resume={run}", "trainer.max_steps=14")
    assert told.code == 1
    assert "internal error" not in told.err
    assert "logger" in told.err or "configuration" in told.err


@pytest.mark.parametrize("uri", ["sqlite:////tmp/x.db", "sqlite:///../x.db", "file:///tmp/x", "file:../x"])
def test_a_data_base_elsewhere_is_refused(uri, tmp_path):
    node = {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "tracking_uri": uri}
    with pytest.raises(NifError, match="leads out of the run"):
        kept_inside(node, "logger.x", tmp_path)
