"""nif extract: the fields of a run as meshes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from omegaconf import DictConfig
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.commands.of_run import OpenRun, open_run
from nif_cli.config import check, did_you_mean
from nif_cli.field import Field, Signal
from nif_cli.geometry.curves import extract_curves, svg
from nif_cli.geometry.extraction import extract_mesh, vertex_colors
from nif_cli.geometry.mesh import WRITABLE, Transform, mesh_bytes
from nif_cli.rendering.volume import RadianceField, surface_colors


def main(cfg: DictConfig) -> None:
    config = check(cfg, "extract")
    format, frame, resolution = config["format"], config["frame"], config["resolution"]
    if format not in WRITABLE:
        raise NifError(f"format={format}: no mesh format{did_you_mean(format, WRITABLE)}")
    if frame not in ("original", "normalised"):
        raise NifError(f"frame={frame}: must be original or normalised")
    if config["method"] not in ("sparse", "dense"):
        raise NifError(f"method={config['method']}: must be sparse or dense")
    if resolution < 2:
        raise NifError(f"resolution={resolution}: at least 2 grid points a side are needed (128 or 256 is usual)")
    run = open_run(config)
    folder = Path(config["output"]).expanduser() if config["output"] else run.path / "meshes"
    empty, total = [], 0
    for id, field, transform in run.fields():
        total += 1
        if not isinstance(field, Field):
            raise NifError(f"{id}: a picture, which has no surface; nif render run={run.path} gives it back")
        if field.bounds.shape[1] == 2:
            _curves(run, id, field, transform, folder, config)
            continue
        began = time.monotonic()
        bar = tqdm(desc=id, unit=" points", unit_scale=True, leave=False, disable=not sys.stderr.isatty(), delay=1)
        with bar:
            mesh = extract_mesh(
                field,
                resolution,
                level=config["level"],
                sparse=config["method"] == "sparse",
                device=run.device,
                progress=bar.update,
            )
        if len(mesh.faces) == 0:
            empty.append(id)
            print(f"{id}: no surface at this level; nothing written")
            continue
        if config["largest"]:
            mesh = _largest(mesh)
        if isinstance(field, RadianceField):
            print(f"{id}: surface at density {field.level if config['level'] is None else config['level']:.4g}")
            mesh.visual.vertex_colors = surface_colors(field, mesh, run.device)  # type: ignore[union-attr]
        elif isinstance(field, Signal):
            mesh.visual.vertex_colors = vertex_colors(field, mesh.vertices, run.device)  # type: ignore[union-attr]
        if frame == "original":
            scene = run.model.instances[id].scene
            if scene is not None and scene.ndc is not None:
                mesh.vertices = scene.ndc.to_world(torch.from_numpy(mesh.vertices)).numpy()
            mesh.vertices = transform.to_original(mesh.vertices)
        path = folder / f"{runs.safe_name(id)}.{format}"
        runs.write(path, mesh_bytes(mesh, format))
        state = "closed" if mesh.is_watertight else "open"
        print(f"{path}  {len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces, {state}, {time.monotonic() - began:.1f} s")
    if len(empty) == total:
        raise NifError("no surface in any of them: train longer, or another level=")


def _largest(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The connected part with the largest area. (trimesh's split makes a mesh of every speck, which takes minutes.)"""
    faces = np.asarray(mesh.faces)
    edges = np.concatenate((faces[:, :2], faces[:, 1:]))
    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), (len(mesh.vertices),) * 2)
    part = connected_components(graph, directed=False)[1][faces[:, 0]]
    kept = faces[part == np.bincount(part, mesh.area_faces).argmax()]
    used, inverse = np.unique(kept, return_inverse=True)
    return trimesh.Trimesh(mesh.vertices[used], inverse.reshape(-1, 3), process=False)


def _curves(run: OpenRun, id: str, field: Field, transform: Transform, folder: Path, config: dict[str, Any]) -> None:
    """A field of the plane: its level set as SVG, whatever format= says."""
    curves = extract_curves(field, config["resolution"], config["level"], run.device)
    if not curves:
        raise NifError(f"{id}: no curve at this level; train longer, or another level=")
    if config["frame"] == "original":
        curves = [transform.to_original(np.pad(c, ((0, 0), (0, 1))))[:, :2] for c in curves]
    path = folder / f"{runs.safe_name(id)}.svg"
    runs.write(path, svg(curves))
    print(f"{path}  {len(curves)} closed curves, {sum(map(len, curves)):,} points")
