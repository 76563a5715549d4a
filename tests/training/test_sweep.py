"""The comparison that makes itself: a table of figures and a sheet of all results beside the truth."""

import csv
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
