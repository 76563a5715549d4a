"""nif extract: the fields of a run as meshes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.config import check
from nif_cli.field import Field
from nif_cli.geometry.curves import extract_curves, svg
from nif_cli.geometry.transform import Transform
from nif_cli.geometry.writing import mesh_bytes, remark
from nif_cli.inference.meshes import box_of, made_mesh
from nif_cli.inference.open_run import OpenRun, open_run
from nif_cli.progress import busy
from nif_cli.schemas import Extract
from nif_cli.words import paste


def main(cfg: DictConfig) -> None:
    config = check(cfg, "extract")
    if config.normals and config.format in ("stl", "off"):
        raise NifError(f"normals: {config.format} files hold none at vertices; format=ply, obj or glb do")
    box_of(config)  # before anything is loaded
    run = open_run(config)
    folder = runs.output_path(config.output, run.path / "meshes")
    empty, total = [], 0
    for id, field, transform in run.fields():
        total += 1
        if not isinstance(field, Field):
            raise NifError(
                f"{id}: an image, which has no surface; nif render {paste(f'run={run.path}')} gives it back"
            )
        if field.bounds.shape[1] == 2:
            _curves(run, id, field, transform, folder, config)
            continue
        began = time.monotonic()
        scene = run.model.instances[id].scene if id in run.model.instances else None
        mesh, remarks = made_mesh(id, field, transform, config, run.device, scene)
        if len(mesh.faces) == 0:
            empty.append(id)
            print(f"{id}: no surface at this level; nothing written")
            continue
        path = folder / f"{runs.safe_name(id)}.{config.format}"
        with busy(f"{id}: writing"):
            runs.write(path, mesh_bytes(mesh, config.format))
            counts = (
                f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces, "
                f"{'closed' if mesh.is_watertight else 'open'}"
            )
        print(f"{path}  {counts}, {', '.join(remarks)}, {time.monotonic() - began:.1f} s")
        if said := remark(mesh, config.format):
            print(f"  {said}")
    if len(empty) == total:
        raise NifError("no surface in any of them: train longer, or another level=")


def _curves(run: OpenRun, id: str, field: Field, transform: Transform, folder: Path, config: Extract) -> None:
    """A field of the plane: its level set as SVG, whatever format= says."""
    with busy(id):
        curves = extract_curves(field, config.resolution, config.level, run.device)
    if not curves:
        raise NifError(f"{id}: no curve at this level; train longer, or another level=")
    if config.frame == "original":
        curves = [transform.to_original(np.pad(c, ((0, 0), (0, 1))))[:, :2] for c in curves]
    path = folder / f"{runs.safe_name(id)}.svg"
    runs.write(path, svg(curves))
    print(f"{path}  {len(curves)} closed curves, {sum(map(len, curves)):,} points")
