"""nif extract: the fields of a run as meshes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
import trimesh
from omegaconf import DictConfig
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.config import check
from nif_cli.field import Field, Signal
from nif_cli.geometry.curves import extract_curves, svg
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.postprocess import field_normals, largest_part, refined, simplified, vertex_colors
from nif_cli.geometry.transform import Transform
from nif_cli.geometry.writing import mesh_bytes, remark
from nif_cli.inference.open_run import OpenRun, open_run
from nif_cli.rendering.volume import RadianceField, surface_colors
from nif_cli.schemas import Extract
from nif_cli.words import paste


def main(cfg: DictConfig) -> None:
    config = check(cfg, "extract")
    box = _check(config)
    run = open_run(config)
    folder = runs.output_path(config.output, run.path / "meshes")
    empty, total = [], 0
    for id, field, transform in run.fields():
        total += 1
        if not isinstance(field, Field):
            raise NifError(
                f"{id}: a picture, which has no surface; nif render {paste(f'run={run.path}')} gives it back"
            )
        if field.bounds.shape[1] == 2:
            _curves(run, id, field, transform, folder, config)
            continue
        began = time.monotonic()
        bounds = field.bounds if box is None else _part(id, field, transform, box, config)
        mesh = _surface(id, field, bounds, run, config)
        if len(mesh.faces) == 0:
            empty.append(id)
            print(f"{id}: no surface at this level; nothing written")
            continue
        remarks = [f"{mesh.metadata['evaluations']:,} evaluations"]
        if config.largest:
            mesh, parts = largest_part(mesh)
            remarks.append(f"the largest of {parts} parts")
        if config.faces is not None:
            mesh = simplified(mesh, config.faces)
        if config.refine:
            cell = float((bounds[1] - bounds[0]).max()) / (config.resolution - 1)
            level, steps = config.level, config.refine
            mesh.vertices = refined(field, mesh.vertices, steps, cell, level=level, device=run.device)
        normals = field_normals(field, mesh.vertices, run.device) if config.normals else None
        if isinstance(field, RadianceField):
            remarks.append(f"surface at density {field.level if config.level is None else config.level:.4g}")
            mesh.visual.vertex_colors = surface_colors(field, mesh, run.device)  # type: ignore[union-attr]
        elif isinstance(field, Signal):
            mesh.visual.vertex_colors = vertex_colors(field, mesh.vertices, run.device)  # type: ignore[union-attr]
        if config.frame == "original":
            scene = run.model.instances[id].scene if id in run.model.instances else None
            if scene is not None and scene.ndc is not None:
                mesh.vertices = scene.ndc.to_world(torch.from_numpy(mesh.vertices)).numpy()
            mesh.vertices = transform.to_original(mesh.vertices)
        if normals is not None:
            mesh.vertex_normals = normals
        path = folder / f"{runs.safe_name(id)}.{config.format}"
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


def _check(config: Extract) -> np.ndarray | None:
    """NifError for values that make no sense; the box of bounds=, [2, 3]."""
    format = config.format
    if config.normals and format in ("stl", "off"):
        raise NifError(f"normals: {format} files hold none at vertices; format=ply, obj or glb do")
    if config.bounds is None:
        return None
    try:
        box = np.asarray(config.bounds, np.float64).reshape(2, 3)
    except (TypeError, ValueError) as error:
        raise NifError(
            f"bounds={config.bounds}: six numbers are needed, [x,y,z,x,y,z], lower and upper corner"
        ) from error
    if not np.isfinite(box).all() or not (box[0] < box[1]).all():
        raise NifError(
            f"bounds={config.bounds}: the lower corner comes first, and must be below the upper one in x, "
            "y and z"
        )
    return box


def _part(id: str, field: Field, transform: Transform, box: np.ndarray, config: Extract) -> torch.Tensor:
    """The part of the field's bounds that bounds= leaves, [2, 3] in normalised space."""
    corners = transform.to_normalised(box) if config.frame == "original" else box
    low, high = field.bounds.cpu().double().numpy()
    part = np.stack((np.maximum(corners[0], low), np.minimum(corners[1], high)))
    if not (part[0] < part[1]).all():
        known = np.stack((low, high))
        known = (transform.to_original(known) if config.frame == "original" else known).ravel()
        raise NifError(f"bounds: outside of {id}, which lies within [{','.join(f'{x:.4g}' for x in known)}]")
    return torch.from_numpy(part)


def _surface(id: str, field: Field, bounds: torch.Tensor, run: OpenRun, config: Extract) -> trimesh.Trimesh:
    """The mesh of a field, with a bar on a terminal: evaluations done, and about how many are left."""
    bar = tqdm(
        desc=id, unit=" points", unit_scale=True, leave=False, disable=not sys.stderr.isatty(), delay=1
    )

    def advance(done: int, left: int) -> None:
        bar.total = bar.n + done + left
        bar.update(done)

    with bar:
        return extract_mesh(
            field,
            config.resolution,
            level=config.level,
            sparse=config.method == "sparse",
            coarse=config.coarse,
            bounds=bounds,
            device=run.device,
            progress=advance,
        )


def _curves(run: OpenRun, id: str, field: Field, transform: Transform, folder: Path, config: Extract) -> None:
    """A field of the plane: its level set as SVG, whatever format= says."""
    curves = extract_curves(field, config.resolution, config.level, run.device)
    if not curves:
        raise NifError(f"{id}: no curve at this level; train longer, or another level=")
    if config.frame == "original":
        curves = [transform.to_original(np.pad(c, ((0, 0), (0, 1))))[:, :2] for c in curves]
    path = folder / f"{runs.safe_name(id)}.svg"
    runs.write(path, svg(curves))
    print(f"{path}  {len(curves)} closed curves, {sum(map(len, curves)):,} points")
