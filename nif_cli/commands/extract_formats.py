"""nif extract, beyond meshes: a page, textures, clouds of points, grids of values, graphs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from nif_cli import NifError, runs
from nif_cli.data.scenes.scene import Scene
from nif_cli.export.clouds import cloud_ply, on_surface
from nif_cli.export.colours import outward, surface_points_colors
from nif_cli.export.graphs import exported
from nif_cli.export.grids import grid_npz
from nif_cli.export.page import page, part
from nif_cli.export.textures import painted_texture, textured_files, unwrapped
from nif_cli.field import Field, Signal
from nif_cli.geometry.transform import Transform
from nif_cli.inference.meshes import part_of
from nif_cli.inference.open_run import OpenRun
from nif_cli.schemas import Extract

FACES = 20_000  # of a mesh with a texture, where the user does not say: unwrapping takes a while


def check_formats(config: Extract) -> None:
    """What can be said before any run is read."""
    if config.texture is not None and config.format not in ("glb", "obj"):
        raise NifError(f"texture: goes with format=glb or obj, not {config.format}")
    if config.normals and config.format in ("npz", "onnx"):
        raise NifError(f"normals: format={config.format} holds values, whose gradients they are")


def unit_of(field: Field | Signal, transform: Transform, scene: Scene | None, config: Extract) -> float:
    """What values are multiplied by: distances become lengths of the user's units, densities inverse
    lengths."""
    if config.frame == "normalised" or not isinstance(field, Field):
        return 1.0
    if field.truncation > 0:
        return 1 / transform.scale
    return transform.scale if scene is not None else 1.0


def write_graph(
    run: OpenRun,
    id: str,
    field: Field | Signal,
    transform: Transform,
    scene: Scene | None,
    folder: Path,
    config: Extract,
) -> None:
    """format=onnx."""
    began = time.monotonic()
    if scene is not None and scene.ndc is not None:
        raise NifError(f"{id}: a forward-facing scene in NDC, which have no units that a graph could take")
    if run.device.type != "cpu":
        raise NifError("format=onnx: give device=cpu; a graph is made and compared there")
    place = Transform() if config.frame == "normalised" else transform
    made = exported(field, place, unit_of(field, transform, scene, config))
    path = folder / f"{runs.safe_name(id)}.onnx"
    runs.write(path, made.content)
    print(
        f"{path}  points -> {', '.join(made.outputs)}; {made.nodes} nodes, {len(made.content) / 2**20:.1f} "
        f"MiB, differs from torch by {made.difference:.1g}, {time.monotonic() - began:.1f} s"
    )


def write_grid(
    run: OpenRun,
    id: str,
    field: Field,
    transform: Transform,
    scene: Scene | None,
    folder: Path,
    config: Extract,
) -> None:
    """format=npz."""
    began = time.monotonic()
    if scene is not None and scene.ndc is not None:
        raise NifError(f"{id}: a forward-facing scene in NDC, which no grid of the user's units follows")
    level = field.level if config.level is None else config.level
    place = Transform() if config.frame == "normalised" else transform
    bounds = part_of(id, field, transform, config)
    unit = unit_of(field, transform, scene, config)
    content = grid_npz(field, place, config.resolution, unit, level, bounds, run.device)
    path = folder / f"{runs.safe_name(id)}.npz"
    runs.write(path, content)
    print(f"{path}  {config.resolution}³ values, {time.monotonic() - began:.1f} s")


def _normalised(points: np.ndarray, transform: Transform, config: Extract) -> np.ndarray:
    return transform.to_normalised(points) if config.frame == "original" else points


def cloud_of(
    mesh: trimesh.Trimesh,
    field: Field,
    transform: Transform,
    scene: Scene | None,
    config: Extract,
    device: torch.device,
) -> bytes:
    """format=points: on the mesh, with the field's normals, and colours where it has some."""
    points, normals = on_surface(mesh, config.points, config.seed)
    if scene is not None and scene.ndc is not None:  # its colours are those of the mesh
        return cloud_ply(points, normals)
    inside = _normalised(points, transform, config)
    normals = outward(field, inside, normals, device)
    return cloud_ply(points, normals, surface_points_colors(field, inside, normals, device))


def write_textured(
    path: Path,
    mesh: trimesh.Trimesh,
    id: str,
    field: Field,
    transform: Transform,
    scene: Scene | None,
    config: Extract,
    device: torch.device,
) -> str:
    """texture=: the mesh and its image; what is to be said."""
    assert config.texture is not None
    if not isinstance(field, Signal):
        raise NifError(f"texture: {id} has no colours; model=texture, nerf and neus learn some")
    if scene is not None and scene.ndc is not None:
        raise NifError(f"texture: {id} is a forward-facing scene in NDC; format=ply has its colours")
    flat, places = unwrapped(mesh, config.texture)

    def colours(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        found = surface_points_colors(field, _normalised(points, transform, config), normals, device)
        assert found is not None
        return found

    image = painted_texture(flat, places, config.texture, colours)
    for suffix, content in textured_files(flat, places, image, config.format, path.stem).items():
        runs.write(path.with_suffix(f".{suffix}"), content)
    return f"texture of {config.texture} x {config.texture}"


def page_part(id: str, mesh: trimesh.Trimesh, scene: Scene | None, config: Extract) -> dict[str, Any]:
    """A mesh for a page; of a scene with its training cameras."""
    if scene is None:
        return part(id, mesh)
    lines = []
    size = 0.04 * float((scene.bounds[1] - scene.bounds[0]).max()) if scene.ndc is None else 0.05
    for view in scene.train:
        pose, lens = view.pose.double().numpy(), view.camera
        x, y = 0.5 * size * lens.width / lens.fx, 0.5 * size * lens.height / lens.fy
        rim = np.array([[-x, -y, -size], [x, -y, -size], [x, y, -size], [-x, y, -size]])
        ends = np.concatenate(
            (np.stack((np.zeros_like(rim), rim), 1), np.stack((rim, np.roll(rim, -1, 0)), 1))
        )
        placed = ends @ pose[:, :3].T + pose[:, 3]
        lines.append(scene.transform.to_original(placed) if config.frame == "original" else placed)
    return part(id, mesh, np.concatenate(lines) if lines else None)


def write_page(run: OpenRun, parts: list[dict[str, Any]], folder: Path, config: Extract) -> None:
    """format=html: all of them on one page."""
    path = folder / f"{runs.safe_name(run.path.name)}.html"
    scenes = [i.scene for i in run.model.instances.values() if i.scene is not None]
    up = "z" if scenes and abs(scenes[0].up[2]) > abs(scenes[0].up[1]) else "y"
    text = page(f"nif: {run.path.name}", parts, config.interpolate is not None, up)
    runs.write(path, text)
    faces = sum(p["f"] for p in parts)
    print(f"{path}  {len(parts)} meshes, {faces:,} faces, {len(text) / 1e6:.2f} MB; opens without network")
