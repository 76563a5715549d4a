"""The comparison that makes itself: a table of figures and a sheet of all results beside the truth."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image

from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.images import mesh_image, surface_image

QUICK = ["experiment=frequencies", "trainer.max_time=null", "trainer.max_steps=3", "logger=csv", "device=cpu"]


def rows_of(folder: str) -> list[dict[str, str]]:
    (table,) = Path(folder).rglob("sweep.csv")
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_fields_are_compared_on_an_image(nif):
    sweep = ["hydra.sweep.dir=sweep", "data.batch_points=200", "data.hold_out=0.25", "data.crop=[0,0,40,30]"]
    result = nif("train", "-m", *QUICK, "field=relu,voxel", *sweep)
    assert result.code == 0, result.err
    rows = rows_of("sweep")
    assert [row["field"] for row in rows] == ["voxel", "relu"]  # best first
    assert float(rows[0]["psnr held-out"]) > float(rows[1]["psnr held-out"])
    assert int(rows[0]["bytes"]) == 256**2 * 3 * 4
    sheet = np.asarray(Image.open("sweep/contact.png"))
    # the truth and both, labelled
    assert sheet.shape == (2 * (30 + 20), 2 * 40, 3) or sheet.shape == (
        30 + 20,
        3 * 40,
        3,
    )
    assert sheet[:30, :40].std() > 10


def test_fields_are_compared_on_a_mesh(nif, sphere_file):
    small = [
        "data.samples=3000",
        "data.surface_samples=100",
        f"data.path={sphere_file}",
        "hydra.sweep.dir=sweep",
    ]
    result = nif("train", "-m", *QUICK, "model=sdf", "field=voxel", "field.resolution=12,24", *small)
    assert result.code == 0, result.err
    found = {row["field.resolution"]: float(row["two-way distance"]) for row in rows_of("sweep")}
    assert found["24"] < 0.05
    assert Path("sweep/contact.png").is_file()


def test_a_mesh_and_its_field_look_the_same(ball):
    import trimesh

    pose = turntable(1)[0]
    a = mesh_image(trimesh.creation.icosphere(4, 0.6), pose, 48).astype(int)
    b = surface_image(ball(0.6), pose, 48).astype(int)
    assert np.abs(a - b).mean() < 2


def test_a_sweep_that_was_cut_off_goes_on(nif, tiny, monkeypatch):
    """By the same command: what is finished is not done again, what was cut off goes on, and what failed is
    tried again."""
    import json

    from nif_cli.training.callbacks import Checkpoints

    command = ["train", "-m", *tiny, "data.count=2", "model.code_size=2,3,-1", "hydra.sweep.dir=s"]
    ordinary, at_exit = Checkpoints.on_train_batch_end, []

    def stop(self, trainer, *args):
        ordinary(self, trainer, *args)
        if trainer.default_root_dir.endswith("1") and trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", stop)
        patch.setattr("atexit.register", at_exit.append)
        assert nif(*command).code == 128 + signal.SIGTERM
    for last in at_exit:
        last()  # as at the end of a process: the sweep's folder is free
    before = Path("s/0/checkpoints/last.ckpt").stat().st_mtime_ns
    begun = json.loads(Path("s/1/run.json").read_text())["started"]
    done = nif(*command)
    assert done.code == 1  # the third has a code of -1 numbers
    assert "1 of 3 jobs failed" in done.err
    assert done.out.count("done before") == 1
    assert Path("s/0/checkpoints/last.ckpt").stat().st_mtime_ns == before
    about = json.loads(Path("s/1/run.json").read_text())
    assert about["started"] == begun
    assert len(about["resumed"]) == 1
    assert json.loads(Path("s/1/summary.json").read_text())["steps"] == 12
    rows = rows_of("s")
    assert len(rows) == 3
    assert [bool(row["error"]) for row in rows] == [False, False, True]
