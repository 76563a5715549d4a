"""nif extract: the fields of a run as meshes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.commands.extract_formats import (
    FACES,
    check_formats,
    cloud_of,
    page_part,
    write_graph,
    write_grid,
    write_page,
    write_textured,
)
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
    check_formats(config)
    box_of(config)  # before anything is loaded
    if config.texture is not None and config.faces is None:
        config = replace(config, faces=FACES)
    run = open_run(config)
    folder = runs.output_path(config.output, run.path / "meshes")
    empty, total, parts = [], 0, []
    for id, field, transform in run.fields():
        total += 1
        scene = run.model.instances[id].scene if id in run.model.instances else None
        if config.format == "onnx":
            write_graph(run, id, field, transform, scene, folder, config)
            continue
        if not isinstance(field, Field):
            raise NifError(
                f"{id}: an image, which has no surface; nif render {paste(f'run={run.path}')} gives it back"
            )
        if field.bounds.shape[1] == 2:
            _curves(run, id, field, transform, folder, config)
            continue
        if config.format == "npz":
            write_grid(run, id, field, transform, scene, folder, config)
            continue
        began = time.monotonic()
        mesh, remarks = made_mesh(id, field, transform, config, run.device, scene)
        if len(mesh.faces) == 0:
            empty.append(id)
            print(f"{id}: no surface at this level; nothing written")
            continue
        if config.format == "html":
            parts.append(page_part(id, mesh, scene, config))
            continue
        path = folder / f"{runs.safe_name(id)}.{config.format}"
        with busy(f"{id}: writing"):
            if config.texture is not None:
                remarks.append(write_textured(path, mesh, id, field, transform, scene, config, run.device))
            elif config.format == "points":
                path = path.with_name(f"{path.name.removesuffix('.points')}_points.ply")
                runs.write(path, cloud_of(mesh, field, transform, scene, config, run.device))
                print(f"{path}  {config.points:,} points, {time.monotonic() - began:.1f} s")
                continue
            else:
                runs.write(path, mesh_bytes(mesh, config.format))
            counts = (
                f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces, "
                f"{'closed' if mesh.is_watertight else 'open'}"
            )
        print(f"{path}  {counts}, {', '.join(remarks)}, {time.monotonic() - began:.1f} s")
        if said := remark(mesh, config.format):
            print(f"  {said}")
    if parts:
        write_page(run, parts, folder, config)
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
