"""Colours of a mesh's vertices, by what is to be seen: which way the surface faces, its own colour, where the
field is no distance, how it bends."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8
from scipy.sparse import coo_array
from torch import Tensor

from nif_cli.field import Field, Signal, gradient
from nif_cli.geometry.postprocess import vertex_colors
from nif_cli.rendering.volume import RadianceField, surface_colors

PLAIN = (196, 200, 206)
LOW, MIDDLE, HIGH = (49, 92, 168), (238, 238, 232), (190, 60, 40)


def shadings(field: Field) -> list[str]:
    """What there is to choose for a field."""
    own = ["colour"] if isinstance(field, Signal) else []
    return [*own, "normal", "plain", "|gradient| - 1", "curvature"]


def shaded(
    field: Field, mesh: trimesh.Trimesh, how: str, device: torch.device | str
) -> UInt8[np.ndarray, "V 3"]:
    """sRGB of the vertices of a mesh in normalised space, as bytes. |gradient| - 1 goes from blue (-0.5 and
    less) by white (a distance) to red (0.5 and more), the mean curvature from blue (hollow) to red."""
    if how == "colour" and isinstance(field, RadianceField):
        return surface_colors(field, mesh, device)
    if how == "colour" and isinstance(field, Signal):
        return np.broadcast_to(vertex_colors(field, mesh.vertices, device)[:, :3], (len(mesh.vertices), 3))
    if how == "normal":
        return (127.5 + 127.5 * np.asarray(mesh.vertex_normals)).clip(0, 255).astype(np.uint8)
    if how == "|gradient| - 1":
        points = torch.from_numpy(np.asarray(mesh.vertices, np.float32)).to(device)
        return _diverging(gradient(field, points).norm(dim=1).cpu() - 1, 0.5)
    if how == "curvature":
        return _diverging(torch.from_numpy(mean_curvature(mesh)).float(), 10.0)
    return np.full((len(mesh.vertices), 3), PLAIN, np.uint8)


def mean_curvature(mesh: trimesh.Trimesh) -> Float[np.ndarray, "V"]:
    """About: how fast normals turn along the edges that meet at a vertex; positive where the surface bulges,
    1 on the unit ball. Averaged over the neighbours once, as marching cubes has slivers."""
    n, edges = len(mesh.vertices), np.asarray(mesh.edges_unique)
    along = mesh.vertices[edges[:, 1]] - mesh.vertices[edges[:, 0]]
    turn = mesh.vertex_normals[edges[:, 1]] - mesh.vertex_normals[edges[:, 0]]
    both = np.concatenate((edges, edges[:, ::-1]))
    ones = coo_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
    length = (along**2).sum(1)
    bend = coo_array((np.tile((turn * along).sum(1), 2), (both[:, 0], both[:, 1])), shape=(n, n)).sum(1)
    total = coo_array((np.tile(length, 2), (both[:, 0], both[:, 1])), shape=(n, n)).sum(1)
    at = np.asarray(bend).ravel() / np.maximum(np.asarray(total).ravel(), 1e-20)
    count = np.maximum(np.asarray(ones.sum(1)).ravel(), 1)
    return 0.5 * at + 0.5 * (ones @ at) / count


def _diverging(values: Float[Tensor, "V"], reach: float) -> UInt8[np.ndarray, "V 3"]:
    share = (values.nan_to_num() / reach).clamp(-1, 1)[:, None]
    low, middle, high = (torch.tensor(c, dtype=torch.float32) for c in (LOW, MIDDLE, HIGH))
    colour = middle + share.abs() * (torch.where(share > 0, high, low) - middle)
    return (colour + 0.5).to(torch.uint8).numpy()
