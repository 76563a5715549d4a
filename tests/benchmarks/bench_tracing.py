"""Sphere tracing: evaluations of the network for each ray, seconds an image, and how far hits are from the
extracted surface.

    NIF_DATA=<folder> python tests/benchmarks/bench_tracing.py [run=<folder> ...] [views=2] [device=cuda]

Each run given, and a 4 x 256 network of armadillo, spot and rocker-arm (model=sdf, Fourier features, 90
seconds each), seen by the cameras of a turntable at 512 x 512: evaluations (values along the rays and the
gradients at hits) for each ray that enters the bounds, with and without the coarse grids that are made once a
shape; seconds of tracing one ray a pixel, and of the whole image with smooth edges, shadows and occlusion;
|value - level| / |gradient| at hits; their distance to the mesh extracted at 512^3 (large networks: 256^3),
its own error, about the square of a cell, included. The occupancy line reads the first network's sign alone,
as ray_march does. `make bench` trains; run= without NIF_DATA does not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import record
from torch import Tensor

from nif_cli import runs
from nif_cli.cli import main
from nif_cli.field import Field, value_and_gradient
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.rays import Rays, box_entry, pinhole_rays
from nif_cli.rendering.sphere_tracing import sphere_trace
from nif_cli.rendering.surface_view import surface_view

SIZE = 512
SHAPES = ("armadillo", "spot", "rocker-arm")
TRAINING = [
    "model=sdf",
    "field=mlp",
    "field.width=256",
    "field.layers=4",
    "encoding=fourier",
    "encoding.scale=1",
]
TRAINING += ["trainer.max_time=00:00:01:30", "callbacks=quiet", "logger=csv"]


class Counting:
    """A field that counts the points it is asked about."""

    def __init__(self, field: Field, truncation: float | None = None):
        self.field, self.level, self.bounds = field, field.level, field.bounds
        self.truncation = field.truncation if truncation is None else truncation
        self.asked = 0

    def value(self, points: Tensor) -> Tensor:
        self.asked += points.shape[:-1].numel()
        return self.field.value(points)


def final_metrics(
    field: Field, device: torch.device, views: int, resolution: int, truncation: float | None = None
) -> dict:
    counting = Counting(field, truncation)
    began = time.perf_counter()
    empty = EmptySpace(counting, device=device)
    grids, of_grids = counting.asked, time.perf_counter() - began
    entering = asked = 0
    tracing, images, points = [], [], []
    for pose in turntable(views):
        rays = pinhole_rays(pose, SIZE, SIZE)
        rays = Rays(rays.origins.to(device), rays.directions.to(device))
        near, far = box_entry(rays, field.bounds.to(device))
        entering += int((near < far).sum())
        counting.asked, began = 0, time.perf_counter()
        hits = sphere_trace(counting, rays, empty)
        points.append(hits.points[hits.hit].cpu())
        tracing.append(time.perf_counter() - began)
        asked += counting.asked
        began = time.perf_counter()
        surface_view(counting, pose, SIZE, device, 2, empty, shadows=True)
        images.append(time.perf_counter() - began)
    seen = torch.cat(points)
    result = {
        "rays that enter the bounds, a view": entering // views,
        "hits, a view": len(seen) // views,
        "evaluations of the coarse grids": grids,
        "evaluations a ray": round(asked / entering, 2),
        "evaluations a ray, grids included": round((asked + views * grids) / entering, 2),
        "seconds: grids": round(of_grids, 2),
        "seconds: tracing a view, one ray a pixel": round(sum(tracing) / views, 2),
        "seconds: image with smooth edges and shadows": round(sum(images) / views, 2),
    }
    value, slope = value_and_gradient(field, seen.to(device))
    off = (value - field.level).abs() / slope.norm(dim=-1)
    result["hits from the level set to first order, largest"] = float(f"{off.max():.2e}")
    if resolution:
        mesh = extract_mesh(field, resolution, device=device)
        distance = MeshDistance(mesh.vertices, mesh.faces).distance(seen[::17].numpy())
        result |= {
            "hits from the extracted surface, mean": float(f"{distance.mean():.2e}"),
            "hits from the extracted surface, largest": float(f"{distance.max():.2e}"),
        }
    return result


def bench(arguments: list[str]) -> None:
    device = runs.device_for(next((a[7:] for a in arguments if a.startswith("device=")), "cpu"))
    views = int(next((a[6:] for a in arguments if a.startswith("views=")), 2))
    named = [Path(a[4:]) for a in arguments if a.startswith("run=")]
    result: dict = {"threads": torch.get_num_threads(), "device": str(device), "size": SIZE, "views": views}
    with tempfile.TemporaryDirectory() as folder:
        data = os.environ.get("NIF_DATA")
        if data is None and not named:
            sys.exit("NIF_DATA=<folder with meshes/> or run=<folder>")
        for shape in SHAPES if data else ():
            named.append(Path(folder) / shape)
            try:
                main(
                    [
                        "train",
                        *TRAINING,
                        f"data.path={data}/meshes/{shape}.obj",
                        f"output_dir={named[-1]}",
                        f"device={device}",
                    ]
                )
            except SystemExit as ended:
                if ended.code:
                    raise
        for k, run in enumerate(named):
            model = runs.load_model(run, "last", device)
            (id,) = list(model.instances)[:1]
            field = model.field(id)
            assert isinstance(field, Field)
            of = sum(p.numel() for p in model.network.parameters())  # type: ignore[union-attr]
            result[f"{run.name} ({of:,} parameters)"] = final_metrics(
                field, device, views, resolution=512 if of < 500_000 else 256
            )
            if k == 0:
                result[f"{run.name} as an occupancy"] = final_metrics(
                    field, device, views, truncation=0.0, resolution=0
                )
            record("tracing", result)  # after each run: large networks take minutes


if __name__ == "__main__":
    bench(sys.argv[1:])
