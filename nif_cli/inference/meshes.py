"""The level set of an instance as a mesh, as its user wants it: part, units, normals, colours."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from nif_cli import NifError
from nif_cli.data.scenes.scene import Scene
from nif_cli.field import Field, Signal
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.postprocess import field_normals, largest_part, refined, simplified, vertex_colors
from nif_cli.geometry.transform import Transform
from nif_cli.progress import Bar, busy
from nif_cli.rendering.volume import RadianceField, surface_colors
from nif_cli.schemas import Extract


def made_mesh(
    id: str,
    field: Field,
    transform: Transform,
    config: Extract,
    device: torch.device,
    scene: Scene | None = None,
) -> tuple[trimesh.Trimesh, list[str]]:
    """The mesh of a field of space by the keys of nif extract, and what is to be said of it; without a face
    where the field has no surface. In the user's units, or in normalised space (frame=normalised); `scene`:
    that of a radiance field, whose NDC are undone."""
    bounds = part_of(id, field, transform, config)
    mesh = _surface(id, field, bounds, device, config)
    if len(mesh.faces) == 0:
        return mesh, []
    with busy(f"{id}: finishing"):
        return _finished(mesh, field, transform, bounds, config, device, scene)


def _finished(
    mesh: trimesh.Trimesh,
    field: Field,
    transform: Transform,
    bounds: torch.Tensor,
    config: Extract,
    device: torch.device,
    scene: Scene | None,
) -> tuple[trimesh.Trimesh, list[str]]:
    """The surface that was found, with what the keys ask for: fewer faces, refined, colours, normals."""
    remarks = [f"{mesh.metadata['evaluations']:,} evaluations"]
    if config.largest:
        mesh, parts = largest_part(mesh)
        remarks.append(f"the largest of {parts} parts")
    if config.faces is not None:
        mesh = simplified(mesh, config.faces)
    if config.refine:
        cell = float((bounds[1] - bounds[0]).max()) / (config.resolution - 1)
        mesh.vertices = refined(field, mesh.vertices, config.refine, cell, level=config.level, device=device)
    normals = field_normals(field, mesh.vertices, device) if config.normals else None
    if isinstance(field, RadianceField) and field.truncation == 0:
        remarks.append(f"surface at density {field.level if config.level is None else config.level:.4g}")
        mesh.visual.vertex_colors = surface_colors(field, mesh, device)  # type: ignore[union-attr]
    elif isinstance(field, Signal):
        mesh.visual.vertex_colors = vertex_colors(field, mesh.vertices, device)  # type: ignore[union-attr]
    if config.frame == "original":
        if scene is not None and scene.ndc is not None:
            mesh.vertices = scene.ndc.to_world(torch.from_numpy(mesh.vertices)).numpy()
        mesh.vertices = transform.to_original(mesh.vertices)
    if normals is not None:
        mesh.vertex_normals = normals
    return mesh, remarks


def box_of(config: Extract) -> np.ndarray | None:
    """The box of bounds=, [2, 3]; None: all that the field knows. NifError for what is no box."""
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


def part_of(id: str, field: Field, transform: Transform, config: Extract) -> torch.Tensor:
    """What bounds= leaves of a field, [2, 3] in normalised space; without it all that the field knows."""
    box = box_of(config)
    return field.bounds if box is None else _part(id, field, transform, box, config)


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


def _surface(
    id: str, field: Field, bounds: torch.Tensor, device: torch.device, config: Extract
) -> trimesh.Trimesh:
    """The mesh of a field, with a bar on a terminal: evaluations done, and about how many are left."""
    bar = Bar(None, id, "points", unit_scale=True)

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
            device=device,
            progress=advance,
        )
