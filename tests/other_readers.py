"""Meshes as other programs find them: meshio, or trimesh for glTF, which meshio does not read."""

from __future__ import annotations

from pathlib import Path

import meshio
import numpy as np
import trimesh


def polygons_of_others(path: Path) -> list[np.ndarray]:
    """Each face's corners [N, 3], in double precision."""
    if path.suffix in (".glb", ".gltf"):
        scene = trimesh.load_scene(path, process=False)
        found: list[np.ndarray] = []
        for name in scene.graph.nodes_geometry:
            placed, geometry = scene.graph[name]
            part = scene.geometry[geometry]
            corners = np.asarray(part.vertices, np.float64)[part.faces]
            turned = corners if np.linalg.det(placed[:3, :3]) > 0 else corners[:, ::-1]
            found += list(turned @ placed[:3, :3].T + placed[:3, 3])
        return found
    mesh = meshio.read(path)
    points = np.asarray(mesh.points, np.float64)[:, :3]
    return [points[np.asarray(loop)] for block in mesh.cells if block.dim == 2 for loop in block.data]


def figures(polygons: list[np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Area, signed volume and box [2, 3] of flat polygons, however they are cut into triangles."""
    middle = np.concatenate(polygons).mean(0)
    area = volume = 0.0
    for polygon in polygons:
        p = polygon - polygon[0]
        normal = np.cross(p[1:-1], p[2:]).sum(0) / 2  # the vector area
        area += float(np.linalg.norm(normal))
        volume += float(normal @ (polygon[0] - middle)) / 3
    corners = np.concatenate(polygons)
    return area, volume, np.stack((corners.min(0), corners.max(0)))
