"""What `nif prepare` costs and how right it is, and what a pool larger than its memory takes.

    NIF_DATA=<folder> python tests/benchmarks/bench_prepare.py [throughput] [signs] [distances] [memory]

throughput: the command on six meshes with two workers, against libigl's own signed distance of the same
points, with all its threads and nothing else (no reading, no writing); three rounds, in turns, the best of
each. MESH_TO_SDF=<python of an environment with the PyPI package mesh-to-sdf> adds that package;
PYOPENGL_PLATFORM=egl lets it run without a display. signs: repair=solid on ShapeNet's benches, against the
solid voxelisation shipped beside them, at centres of voxels farther than a voxel from the surface; and closed
meshes against the exact winding number. distances: against float64 brute force. memory: how much more a
training takes with 1 GiB of samples under data.memory=400MiB than with next to none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import igl
import numpy as np
import trimesh
from machine import RESULTS, record

from nif_cli.data.shapes.formats import deepsdf
from nif_cli.data.shapes.formats.voxels import read_binvox
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.mesh import load_mesh
from nif_cli.geometry.repair import oriented, solid
from nif_cli.geometry.transform import Transform, unit_ball

MESHES = ("penguin", "rocker-arm", "wingnut", "spot", "armadillo", "stanford-bunny")
SOLID = 192  # cells: the default of nif prepare
SAMPLES = 500_000


def nif(*args: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "nif_cli", *args], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def throughput(data: Path) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "in"
        source.mkdir()
        for name in MESHES:
            (source / f"{name}.obj").symlink_to(data / "meshes" / f"{name}.obj")
        ours, theirs = [], []
        for turn in range(3):
            out = Path(temporary) / f"out{turn}"
            ours.append(nif("prepare", f"input={source}", f"output={out}", "workers=2", f"samples={SAMPLES}"))
            root, seconds = out / "deepsdf", 0.0
            for entry in deepsdf.read_split(root):
                shape = deepsdf.read(root, entry)
                mesh = load_mesh(source / f"{entry.name}.obj")
                vertices = shape.transform.to_normalised(mesh.vertices)
                faces, points = np.asarray(mesh.faces, np.int64), shape.points.astype(np.float64)
                began = time.monotonic()
                igl.signed_distance(points, vertices, faces, igl.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER)
                seconds += time.monotonic() - began
            theirs.append(seconds)
        total = SAMPLES * len(MESHES)
        figures = {
            "meshes": MESHES,
            "points": total,
            "nif prepare, points/s": round(total / min(ours)),
            "libigl alone, points/s": round(total / min(theirs)),
            "ratio of the best": round(min(theirs) / min(ours), 2),
            "ratio, turn by turn": [round(b / a, 2) for a, b in zip(ours, theirs, strict=True)],
            "load of the machine": round(os.getloadavg()[0], 1),
        }
        python = os.environ.get("MESH_TO_SDF")
        if python:
            code = (
                "import sys, time, trimesh, mesh_to_sdf; t = time.time()\n"
                "for path in sys.argv[2:]:\n"
                "    mesh_to_sdf.sample_sdf_near_surface(trimesh.load(path), "
                "number_of_points=int(sys.argv[1]))\n"
                "print(int(sys.argv[1]) * len(sys.argv[2:]) / (time.time() - t))"
            )
            command = [python, "-c", code, str(SAMPLES), *map(str, sorted(source.iterdir()))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                speed = float(done.stdout.split()[-1])
                figures |= {
                    "mesh-to-sdf, points/s": round(speed),
                    "times mesh-to-sdf": round(total / min(ours) / speed, 1),
                }
            else:
                figures["mesh-to-sdf"] = "does not run here: " + done.stderr.strip().splitlines()[-1]
        return figures


def signs(data: Path) -> dict:
    benches = {}
    for path in sorted((data / "shapenet-benches-raw").glob("*/models/*.obj")):
        grid, transform = read_binvox(path.with_name(f"{path.stem}.solid.binvox"))
        raw = load_mesh(path)
        made = solid(raw, SOLID)
        rng = np.random.default_rng(0)
        voxel = 1 / transform.scale
        full, empty = np.argwhere(grid), np.argwhere(~grid)
        centres = transform.to_original(
            np.concatenate((rng.permutation(full)[:30_000], rng.permutation(empty)[:60_000]))
        )
        truth = np.arange(len(centres)) < min(30_000, len(full))
        far = MeshDistance(raw.vertices, raw.faces).distance(centres) > voxel
        centres, truth = centres[far], truth[far]
        found = MeshDistance(made.vertices, made.faces).winding_number(centres) > 0.5
        line = {
            "inside": int(truth.sum()),
            "inside found inside": round(float(found[truth].mean()), 4) if truth.any() else None,
            "outside found outside": round(float((~found[~truth]).mean()), 5),
        }
        missed = centres[truth & ~found]
        if len(missed):
            line["missed"] = explain(oriented(raw), missed)
        benches[path.parent.parent.name] = line
    closed = {}
    for name in MESHES[:5]:
        mesh = load_mesh(data / "meshes" / f"{name}.obj")
        vertices, faces = (
            unit_ball(mesh.vertices).to_normalised(mesh.vertices),
            np.asarray(mesh.faces, np.int64),
        )
        rng = np.random.default_rng(1)
        near = trimesh.Trimesh(vertices, faces, process=False).triangles_center
        points = near[rng.integers(len(near), size=3000)] + rng.normal(size=(3000, 3)) * rng.choice(
            [0.07, 0.005, 1e-4], (3000, 1)
        )
        exact = np.asarray(igl.winding_number(vertices, faces, points)) > 0.5
        closed[name] = {
            "points": len(points),
            "right": float(((MeshDistance(vertices, faces).signed(points) > 0) == exact).mean()),
        }
    return {"solid_resolution": SOLID, "benches": benches, "closed meshes": closed}


def explain(mesh: trimesh.Trimesh, points: np.ndarray) -> dict:
    """Missed points: the part that no axis-parallel ray leads out of the mesh from (which a voxeliser that
    looks along the axes takes for solid), and the winding number there (0: no closed surface surrounds
    them)."""
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64)
    points = points[:2000]
    tree = igl.AABB()
    tree.init(vertices, faces)
    hidden = np.ones(len(points), bool)
    for axis in range(3):
        for sign in (-1.0, 1.0):
            direction = np.zeros_like(points)
            direction[:, axis] = sign
            hit = tree.intersect_ray_first(vertices, faces, points, direction)[0]
            hidden &= np.asarray(hit) >= 0
    winding = np.asarray(igl.fast_winding_number(vertices, faces, points))
    return {
        "hidden along all axes": round(float(hidden.mean()), 3),
        "median winding number": round(float(np.median(winding)), 3),
    }


def distances(data: Path) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        path = data / "meshes" / "spot-uv.obj"
        nif("prepare", f"input={path}", f"output={temporary}/out", "samples=1500", "workers=1")
        root = Path(temporary) / "out" / "deepsdf"
        shape = deepsdf.read(root, deepsdf.read_split(root)[0])
        triangles = shape.transform.to_normalised(load_mesh(path).triangles)
        points, nearest = shape.points.astype(np.float64), np.full(len(shape.points), np.inf)
        for triangle in triangles:
            closest = trimesh.triangles.closest_point(np.broadcast_to(triangle, (len(points), 3, 3)), points)
            nearest = np.minimum(nearest, np.linalg.norm(points - closest, axis=1))
        assert shape.distance is not None
        error = np.abs(np.abs(shape.distance.astype(np.float64)) - nearest).max()
        return {
            "mesh": "spot-uv",
            "faces": len(triangles),
            "points": len(points),
            "largest error": float(error),
        }


def memory(_: Path) -> dict:
    """Peak resident memory of `nif train`, in MiB, with 1 GiB of samples and with almost none."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        rng = np.random.default_rng(0)
        entries = [deepsdf.DeepSdfEntry("set", "ball", f"{i:02d}") for i in range(64)]
        surface = np.ones((3, 3))
        for entry in entries:  # 64 shapes of 2^20 points: 1 GiB
            points = rng.uniform(-1, 1, (2**20, 3)).astype(np.float32)
            distance = 0.5 - np.linalg.norm(points, axis=1)
            deepsdf.write_sdf_samples(root / "big", entry, Transform(), points, distance, surface, surface)
            deepsdf.write_sdf_samples(
                root / "small", entry, Transform(), points[:256], distance[:256], surface, surface
            )
        peaks = {}
        for name in ("small", "big"):
            settings = [
                "model=deepsdf",
                "data=deepsdf",
                f"data.root={root / name}",
                f"output_dir={root / f'run-{name}'}",
            ]
            settings += [
                "data.batch_points=65536",
                "trainer.max_steps=600",
                "trainer.max_time=null",
                "device=cpu",
            ]
            settings += [
                "field=mlp",
                "field.width=16",
                "field.layers=2",
                "model.code_size=4",
                "callbacks=quiet",
                "logger=csv",
            ]
            code = (
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
                "stdout=subprocess.DEVNULL);"
            )
            code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
            command = [
                sys.executable,
                "-c",
                code,
                sys.executable,
                "-m",
                "nif_cli",
                "train",
                *settings,
                "data.memory=400MiB",
            ]
            environment = {**os.environ, "NIF_CACHE": str(root / "cache")}
            peaks[name] = int(
                subprocess.run(
                    command, capture_output=True, text=True, check=True, env=environment
                ).stdout.split()[-1]
            )
        return {
            "samples, MiB": sum(f.stat().st_size for f in (root / "big" / "SdfSamples").rglob("*.npz"))
            // 2**20,
            "data.memory, MiB": 400,
            "peak with almost no samples, MiB": peaks["small"],
            "peak, MiB": peaks["big"],
            "difference, MiB": peaks["big"] - peaks["small"],
        }


if __name__ == "__main__":
    parts = {"throughput": throughput, "signs": signs, "distances": distances, "memory": memory}
    chosen = [p for p in sys.argv[1:] if p in parts] or list(parts)
    if "NIF_DATA" not in os.environ and chosen != ["memory"]:
        sys.exit("bench_prepare: set NIF_DATA to the folder of real data")
    earlier = RESULTS / "prepare.json"
    figures = json.loads(earlier.read_text()) if earlier.exists() else {}
    figures = {part: figures[part] for part in parts if part in figures}
    folder = Path(os.environ.get("NIF_DATA", ".")).resolve()
    record("prepare", {**figures, **{part: parts[part](folder) for part in chosen}})
