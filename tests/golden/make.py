"""Golden runs: one small run of every family, as an earlier nif trained it, and the numbers that it gave of
them.

What is committed was made once and is never made again: it holds what old runs hold, class paths included. A
new family is added by a row of RUNS and

    python tests/golden/make.py <name>

from a clean checkout: it trains tests/golden/<name> and writes expected.json beside it. Training was too
short to mean anything; reading is what is tested. Runs older than the table need not be trainable today.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
import yaml

HERE = Path(__file__).parent
SHORT = [
    "trainer.max_time=null",
    "trainer.max_steps=300",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "output_dir=run",
]
FEW = ["data.samples=4000", "data.surface_samples=800", "data.batch_points=512"]
TOYS = ["data=toy_shapes", "data.count=3", "data.test=1", *FEW]
ONE = ["data=toy_shapes", "data.count=1", "data.test=0", *FEW]
VIEWS = ["data.views=3", "data.test=1", "data.size=16", "data.batch_rays=64"]
HASH = [
    "encoding.levels=3",
    "encoding.log2_table=7",
    "encoding.base=4",
    "encoding.finest=16",
    "field.width=8",
]

RUNS: dict[str, list[str]] = {
    "sdf": ["model=sdf", *ONE, "field=siren", "field.width=12", "field.layers=2"],
    "sdf_hash": ["model=sdf", *ONE, "field=hash", *HASH],
    "sdf_spline": ["model=sdf", *ONE, "field=spline", "field.resolution=10"],
    "sdf_voxel": ["model=sdf", *ONE, "field=voxel", "field.resolution=12"],
    "sdf_triplane": [
        "model=sdf",
        *ONE,
        "field=triplane",
        "encoding.resolution=8",
        "encoding.features=2",
        "field.width=8",
    ],
    "deepsdf": [
        "model=deepsdf",
        *TOYS,
        "field=positional",
        "field.width=16",
        "field.layers=2",
        "field.skips=[]",
        "model.code_size=4",
    ],
    "occupancy_planes": [
        "model=occupancy",
        *TOYS,
        "encoder=pointcloud_planes",
        "encoder.points=64",
        "encoder.resolution=8",
        "encoder.code_size=4",
        "encoder.width=8",
        "encoder.blocks=2",
        "encoder.unet_depth=2",
        "encoder.unet_width=4",
        "field.width=8",
        "field.blocks=2",
        "data.batch_shapes=2",
    ],
    "occupancy_points": [
        "model=occupancy",
        *TOYS,
        "encoder=pointcloud",
        "encoder.points=64",
        "encoder.code_size=8",
        "encoder.width=8",
        "encoder.blocks=2",
        "field=onet",
        "field.width=8",
        "field.blocks=2",
    ],
    "occupancy_vae": [
        "model=occupancy",
        *TOYS,
        "encoder=vae",
        "encoder.points=64",
        "encoder.code_size=4",
        "encoder.width=8",
        "encoder.blocks=2",
        "field=film",
        "field.width=8",
        "field.blocks=2",
        "model.threshold=0.1",
    ],
    "metasdf": [
        "model=metasdf",
        *TOYS,
        "field=siren_small",
        "field.width=12",
        "field.layers=2",
        "model.steps=3",
    ],
    "metasdf_image": [
        "model=metasdf",
        "data=image",
        "data.path=pictures",
        "data.test=1",
        "field=siren_small",
        "field.width=12",
        "field.layers=2",
        "model.steps=2",
        "data.batch_points=64",
        "data.batch_pictures=2",
    ],
    "nerf": [
        "model=nerf",
        "field=nerf",
        *VIEWS,
        "field.width=16",
        "field.layers=2",
        "field.skip=0",
        "field.frequencies=4",
        "model.coarse=8",
        "model.fine=8",
        "data.shapes=2",
        "data.materials=1",
        "model.shape_code=2",
        "model.appearance_code=2",
    ],
    "nerf_ngp": [
        "model=nerf",
        "field=ngp",
        *VIEWS,
        "field.width=8",
        "field.levels=3",
        "field.level_features=2",
        "field.log2_table=8",
        "field.base=4",
        "field.finest=16",
        "field.half=false",
        "model.resolution=16",
        "model.samples=2048",
        "model.first_samples=1024",
    ],
    "image": ["model=image", "field=hash", *HASH, "data.hold_out=0.1", "data.batch_points=1024"],
    "image_fourier": [
        "model=image",
        "field=fourier",
        "encoding.features=6",
        "field.width=12",
        "field.layers=2",
        "data.crop=[0,0,64,48]",
    ],
    "texture": ["model=texture", "field=hash", *HASH, *FEW],
    "curve": [
        "model=curve",
        "field.width=16",
        "field.layers=2",
        "data.samples=4000",
        "data.batch_points=1024",
        "field.omega=10",
        "field.first_omega=10",
        "trainer.max_steps=1500",
    ],
}


def nif(*arguments: str) -> str:
    """The command line in this process; what it prints. AssertionError unless it succeeds."""
    from nif_cli.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
            code: Any = 0
        except SystemExit as stopped:
            code = stopped.code
    assert not code, f"nif {' '.join(arguments)}: {code}\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue()


def measure(run: Path) -> dict[str, Any]:
    """What nif makes of a run: its fields' values, and what extract, render, evaluate and reconstruct
    write."""
    from nif_cli import runs

    model = runs.load_model(run)
    found: dict[str, Any] = {
        "instances": list(model.instances),
        "level": {},
        "values": {},
        "colors": {},
        "radiance": {},
    }
    for id in model.instances:
        field: Any = model.field(id)
        dimension = field.bounds.shape[1] if hasattr(field, "bounds") else 2
        # fixed points, of no random generator: a low-discrepancy sequence
        steps = np.array([0.7548776662, 0.5698402910, 0.3247179572])[:dimension]
        points = torch.from_numpy((np.arange(1, 25)[:, None] * steps) % 1 * 1.6 - 0.8).float()
        views = torch.nn.functional.normalize(points.flip(0), dim=-1) if dimension == 3 else None
        with torch.no_grad():
            if hasattr(field, "value"):
                found["values"][id] = field.value(points).flatten().tolist()
                found["level"][id] = float(field.level)
            if hasattr(field, "radiance"):
                density, rgb = field.radiance(points, views)
                found["radiance"][id] = [*density.flatten().tolist(), *rgb.flatten().tolist()]
            elif hasattr(field, "color"):
                found["colors"][id] = field.color(points).flatten().tolist()
    known = [f"run={run}", "device=cpu"]
    if any(found["values"].values()) and (kind := run.name) not in ("nerf",):
        nif("extract", *known, "resolution=24", "output=meshes", "instances=all")
        meshes = sorted(p for p in Path("meshes").rglob("*") if p.suffix == ".ply")
        found["meshes"] = {p.relative_to("meshes").as_posix(): _mesh(p) for p in meshes}
        found["curves"] = {p.name: _curves(p) for p in sorted(Path("meshes").rglob("*.svg"))}
        assert meshes or found["curves"], kind
    planar = run.name == "curve"
    rendered = (
        []
        if run.name.endswith("image") or run.name.startswith(("image", "curve"))
        else ["frames=2", "antialias=1"]
    )
    nif(
        "render",
        *known,
        *rendered,
        "size=24",
        f"format={'png' if planar else 'npy'}",
        "output=renders",
        "instances=all",
    )
    found["renders"] = {
        p.name: _pixels(p) for p in sorted(Path("renders").rglob("*.*")) if p.suffix in (".npy", ".png")
    }
    assert found["renders"]
    if run.name != "metasdf_image":  # its pictures are not in the repository
        # they know shapes that are held out
        new = ["split=test"] if run.name.startswith(("occupancy", "metasdf")) else []
        nif("evaluate", *known, *new, "resolution=24", "output=evaluation.json")
        report = json.loads(Path("evaluation.json").read_text())["protocol"]
        found["metrics"] = {name: part["mean"] for name, part in report.items()}
        assert any(found["metrics"].values()), run.name
    if run.name in ("deepsdf", "occupancy_planes", "occupancy_points", "metasdf"):
        steps = [] if run.name.startswith("occupancy") else ["steps=5"]
        trimesh.creation.box((3.0, 0.4, 2.0)).export("new.ply")
        nif("reconstruct", *known, "input=new.ply", "resolution=24", "points=400", *steps, "output=new")
        found["reconstruction"] = _mesh(Path("new/new.ply"))
    return found


def _mesh(path: Path) -> dict[str, float]:
    mesh: Any = trimesh.load(path)
    colors = (
        np.asarray(mesh.visual.vertex_colors)[:, :3].mean() / 255 if mesh.visual.kind == "vertex" else 0.0
    )
    return {
        "vertices": len(mesh.vertices),
        "area": float(mesh.area),
        "volume": float(mesh.volume),
        "color": float(colors),
    }


def _curves(path: Path) -> dict[str, float]:
    """How many, with how many points, and their area: the digits of a file may change, what it draws may
    not."""
    parts = re.search(r' d="([^"]*)"', path.read_text())[1].split("M")[1:]  # type: ignore[index]
    points = [np.array(re.findall(r"(-?[\d.e+-]+),(-?[\d.e+-]+)", part), float) for part in parts]
    areas = [
        0.5 * float(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) for p in points
    ]
    return {"curves": len(points), "points": sum(map(len, points)), "area": abs(sum(areas))}


def _pixels(path: Path) -> dict[str, Any]:
    if path.suffix == ".npy":
        values = np.load(path)
    else:
        from PIL import Image

        values = np.asarray(Image.open(path).convert("RGB")) / 255
    flat = values.reshape(-1).astype(float)
    return {
        "shape": list(values.shape),
        "mean": float(flat.mean()),
        "some": flat[:: max(1, len(flat) // 48)].tolist(),
    }


def main(names: list[str]) -> None:
    for name in names or RUNS:
        if (HERE / name).exists():
            print(f"{name}: there already, stays as it is")
            continue
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            os.environ["NIF_CACHE"] = place
            torch.set_num_threads(1)
            _pictures()
            nif("train", *SHORT, *RUNS[name])
            kept = Path(place) / name
            (kept / "checkpoints").mkdir(parents=True)
            shutil.copy("run/checkpoints/last.ckpt", kept / "checkpoints" / "last.ckpt")
            shutil.copy("run/config.yaml", kept / "config.yaml")
            (Path(place) / "work").mkdir()
            os.chdir("work")
            expected = measure(kept)
            (kept / "expected.json").write_text(json.dumps(expected, indent=None) + "\n")
            os.chdir(HERE)
            shutil.copytree(kept, HERE / name)
            size = sum(p.stat().st_size for p in (HERE / name).rglob("*"))
            print(
                name,
                size,
                {k: v for k, v in expected.items() if k in ("metrics", "meshes", "reconstruction")},
            )
            yaml.safe_load((HERE / name / "config.yaml").read_text())


def _pictures() -> None:
    from PIL import Image

    Path("pictures").mkdir()
    x, y = np.meshgrid(np.linspace(0, 3, 16), np.linspace(0, 3, 12))
    for k in range(3):
        values = np.stack([np.sin(x + k), np.cos(y - k), np.sin(x + y)], -1) * 100 + 120
        Image.fromarray(values.astype(np.uint8)).save(f"pictures/{k}.png")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))
    main(sys.argv[1:])
