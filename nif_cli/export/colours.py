"""The colours of a field at points of its surface."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nif_cli.field import Field, Signal
from nif_cli.geometry.postprocess import field_normals
from nif_cli.rendering.volume import RadianceField

CHUNK = 2**16


def surface_points_colors(
    field: Field,
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    device: torch.device | str = "cpu",
) -> UInt8[np.ndarray, "N 3"] | None:
    """sRGB as bytes at points of normalised space; a radiance field is looked at along the inward normals.
    None where the field has no colours."""
    if not isinstance(field, Signal):
        return None
    parts = []
    with torch.no_grad():
        for start in range(0, len(points), CHUNK):
            at, out = (
                torch.from_numpy(np.asarray(a[start : start + CHUNK], np.float32)).to(device)
                for a in (points, normals)
            )
            seen = field.color(at, -out) if isinstance(field, RadianceField) else field.color(at)
            parts.append((seen.float().clamp(0, 1) * 255 + 0.5).to(torch.uint8)[:, :3].cpu())
    if not parts:
        return np.empty((0, 3), np.uint8)
    return torch.cat(parts).expand(-1, 3).numpy()


def outward(
    field: Field,
    points: Float[np.ndarray, "N 3"],
    facing: Float[np.ndarray, "N 3"],
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "N 3"]:
    """The field's unit normals at points of its surface; where it has no slope, those of the faces
    (`facing`)."""
    found = field_normals(field, points, device)
    flat = np.linalg.norm(found, axis=1, keepdims=True) < 0.5
    return np.where(flat | ~np.isfinite(found), facing, found)
