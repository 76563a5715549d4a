"""Which axis of a shape points up, by what it would stand on."""

from __future__ import annotations

import numpy as np
import torch

from nif_cli.field import Field
from nif_cli.geometry.extraction import extract_mesh

RESOLUTION = 48
LOWEST = 0.04  # of the extent: what touches the ground
CLEAR = 1.3  # how much more of z's base there must be than of y's, which is usual


def up_axis_of(field: Field, device: torch.device | str = "cpu") -> tuple[str, float]:
    """y or z, the one along which more of the shape's footprint lies flat on the ground, and that part of the
    footprint; y where neither clearly does."""
    mesh = extract_mesh(field, RESOLUTION, device=device)
    if not len(mesh.faces):
        return "y", 0.0
    low, extent = mesh.bounds[0], np.ptp(mesh.bounds, axis=0)
    centres, normals, areas = mesh.triangles_center, mesh.face_normals, mesh.area_faces
    found = {}
    for name, axis in (("y", 1), ("z", 2)):
        flat = (centres[:, axis] < low[axis] + LOWEST * extent[axis]) & (normals[:, axis] < -0.9)
        found[name] = float(areas[flat].sum() / max(np.delete(extent, axis).prod(), 1e-12))
    up = "z" if found["z"] > CLEAR * found["y"] and found["z"] > 0.02 else "y"
    return up, found[up]
