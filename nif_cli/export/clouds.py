"""Points on the surface of a field, with normals and colours."""

from __future__ import annotations

import numpy as np
import trimesh
from jaxtyping import Float, UInt8

from nif_cli.geometry.sampling import sample_surface


def on_surface(
    mesh: trimesh.Trimesh, count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Points spread evenly over a mesh's area, and the normals of their faces."""
    points, normals = sample_surface(mesh, count, np.random.default_rng(seed))
    return np.asarray(points, np.float64), np.asarray(normals, np.float64)


def cloud_ply(
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    colors: UInt8[np.ndarray, "N 3"] | None = None,
) -> bytes:
    """Binary PLY of points only; positions in double precision."""
    columns = [("double", name, "<f8", points[:, i]) for i, name in enumerate("xyz")]
    columns += [("float", name, "<f4", normals[:, i]) for i, name in enumerate(("nx", "ny", "nz"))]
    if colors is not None:
        columns += [("uchar", name, "u1", colors[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    rows = np.empty(len(points), [(name, kind) for _, name, kind, _ in columns])
    for _, name, _, values in columns:
        rows[name] = values
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
    head += "".join(f"property {word} {name}\n" for word, name, _, _ in columns) + "end_header\n"
    return head.encode() + rows.tobytes()
