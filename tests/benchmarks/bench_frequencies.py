"""Which representation shows fine detail, and how fast? A photograph and meshes, on the command's own clock.

    NIF_DATA=<folder> python tests/benchmarks/bench_frequencies.py [fox] [bytes] [sdf_fast] [minutes=2]
    [device=auto]

fox: a 512 x 512 crop of the first fox photograph (its head), a quarter of the pixels held out, at most 1 MiB
of parameters, `minutes` for each field; beside it bicubic (Clough-Tocher) interpolation of the trained
pixels. bytes: the same crop and the armadillo with every field at 1e5 and 1e6 bytes. sdf_fast: two-way
distance of four meshes after 15 and 60 seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from machine import record
from scipy.interpolate import CloughTocher2DInterpolator

from nif_cli import conf_folder, runs
from nif_cli.config import check, register
from nif_cli.data.images.datamodule import ImageData
from nif_cli.field import Field
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.mesh import load_mesh
from nif_cli.metrics.shape import two_way_distance

DATA = Path(os.environ.get("NIF_DATA", ".")).resolve()
MESHES = ("stanford-bunny", "spot", "rocker-arm", "armadillo")
CROP = [420, 350, 512, 512]
FOX = [
    "model=image",
    f"data.path={DATA}/nerf/fox/images/0001.jpg",
    f"data.crop={CROP}".replace(" ", ""),
    "data.hold_out=0.25",
]
FIELDS = {  # field: what makes it larger, and between which values
    "relu": ("field.width", 4, 1024),
    "positional": ("field.width", 64, 1024),
    "fourier": ("field.width", 4, 1024),
    "siren": ("field.width", 4, 1024),
    "hash": ("encoding.log2_table", 6, 20),
    "dense_grid": ("encoding.finest", 9, 1024),
    "triplane": ("encoding.resolution", 4, 1024),
    "spline": ("field.detail=0 field.resolution", 4, 1024),
    "voxel": ("field.resolution", 4, 1024),
}


def train(overrides: list[str], minutes: float, device: str) -> dict:
    """A run's summary, and with a mesh the two-way distance of what it extracts at 256."""
    clock = time.strftime("00:%H:%M:%S", time.gmtime(60 * minutes))
    command = ["train", *overrides, f"trainer.max_time={clock}", "callbacks=quiet", f"device={device}"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "nif_cli", *command, "output_dir=run"], cwd=folder, check=True)
        wall = time.monotonic() - began
        found = json.loads((Path(folder) / "run/summary.json").read_text())
        found = {k: v for k, v in found.items() if not k.startswith(("overrides", "train/", "val/"))}
        found |= {
            "seconds before and after training": round(wall - found["seconds"], 1),
            "command": "nif " + " ".join(command).replace(str(DATA), "$NIF_DATA"),
        }
        mesh = next(
            (o.split("=", 1)[1] for o in overrides if o.startswith("data.path=") and o.endswith(".obj")), None
        )
        if mesh:
            model = runs.load_model(Path(folder) / "run")
            ((id, instance),) = model.instances.items()
            field = model.field(id)
            assert isinstance(field, Field)
            made = extract_mesh(field, 256)
            made.vertices = (
                instance.transform.to_original(made.vertices) if len(made.faces) else made.vertices
            )
            found["two-way distance"] = round(two_way_distance(made, load_mesh(mesh)), 6)
    print(overrides, found, flush=True)
    return found


def bicubic() -> float:
    """PSNR on the held-out pixels of the trained ones' interpolation."""
    data = ImageData(FOX[1].split("=")[1], CROP, hold_out=0.25)
    pixels, held = data.pixels() / 255, data.held()
    y, x = np.nonzero(~held)
    made = CloughTocher2DInterpolator(np.stack((x, y), 1), pixels[~held])(np.argwhere(held)[:, ::-1])
    # a pixel at a corner may lie outside all the others
    error = (made - pixels[held])[np.isfinite(made).all(1)]
    return float(-10 * np.log10(np.square(error.clip(-1, 1)).mean()))


def fox(minutes: float, device: str) -> dict:
    results: dict = {"bicubic interpolation": {"psnr held-out": round(bicubic(), 2)}}
    for field in ("relu", "positional", "fourier", "siren", "hash", "spline", "voxel"):
        results[field] = train([*FOX, f"field={field}"], minutes, device)
        assert results[field]["bytes"] <= 2**20
    return results


def at_most(bytes: int, field: str, base: list[str]) -> list[str]:
    """The overrides that make the field as large as `bytes` allow."""
    key, low, high = FIELDS[field]

    def size(value: int) -> int:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = vars(
                check(compose("train", [*base, f"field={field}", *f"{key}={value}".split()]), "train")
            )
        return sum(p.nbytes for p in runs.make_model(config).parameters())

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= bytes else (low, middle)
    return f"{key}={low}".split()


def at_equal_bytes(minutes: float, device: str) -> dict:
    register()
    results: dict = {}
    for source, base in {
        "fox": FOX,
        "armadillo": ["model=sdf", f"data.path={DATA}/meshes/armadillo.obj"],
    }.items():
        for bytes in (100_000, 1_000_000):
            for field in FIELDS:
                size = at_most(bytes, field, base)
                results.setdefault(source, {}).setdefault(bytes, {})[field] = train(
                    [*base, f"field={field}", *size], minutes, device
                )
    return results


def sdf_fast(minutes: float, device: str) -> dict:
    results: dict = {}
    for name in MESHES:
        for seconds in (15, 60):
            base = ["experiment=sdf_fast", f"data.path={DATA}/meshes/{name}.obj"]
            results.setdefault(name, {})[f"{seconds} s"] = train(base, seconds / 60, device)
    return results


if __name__ == "__main__":
    given = dict(a.split("=") for a in sys.argv[1:] if "=" in a)
    minutes, device = float(given.get("minutes", 2)), given.get("device", "auto")
    chosen = [a for a in sys.argv[1:] if "=" not in a] or ["fox", "sdf_fast"]  # bytes takes an hour
    for name in chosen:
        measured = {"fox": fox, "bytes": at_equal_bytes, "sdf_fast": sdf_fast}[name](minutes, device)
        record(f"frequencies_{name}", {"minutes": minutes, name: measured})
