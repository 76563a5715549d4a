"""Triangle meshes into files, so that other readers find them where they are: to 1e-7 of their size, wherever
they lie."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import trimesh

WRITABLE = ("ply", "obj", "glb", "stl", "off")
TOLERANCE = 1e-7  # of a shape's size: what float32 may round; more is written in double precision, or said


def rounding(mesh: trimesh.Trimesh) -> float:
    """How far float32 would round the positions at most, as a part of the mesh's size."""
    low, high = np.asarray(mesh.bounds)
    largest = min(float(np.abs((low, high)).max()), 3e38)
    return float(np.spacing(np.float32(largest)) / 2 / max(float((high - low).max()), 1e-300))


def mesh_bytes(mesh: trimesh.Trimesh, format: str) -> bytes:
    """The mesh in a file format of WRITABLE (ply is binary), as bytes to be written in one go. Vertex
    colours, sRGB here, are linear in glb, as its specification says.

    Far from the origin, where float32 would round more than 1e-7 of the size, ply holds doubles, obj and off
    all digits, glb a node that moves the mesh there. STL knows float32 only: its vertices are written around
    an origin that its head names (`remark` says so).
    """
    visual: Any = mesh.visual
    far = len(mesh.vertices) > 0 and rounding(mesh) > TOLERANCE
    if format in ("obj", "off"):
        return _text(mesh, format, 17 if far else 9)
    if format == "ply" and far:
        return _double_ply(mesh)
    origin = np.zeros(3)
    if far:
        origin = _origin(mesh)
    if format == "glb" and visual.kind == "vertex":
        srgb = np.asarray(visual.vertex_colors) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        linear[:, 3] = srgb[:, 3]
        colors = (linear * 255 + 0.5).astype(np.uint8)
        mesh = trimesh.Trimesh(
            mesh.vertices, mesh.faces, vertex_colors=colors, vertex_normals=_normals(mesh), process=False
        )
    if far:
        moved = mesh.copy()
        moved.vertices = mesh.vertices - origin
        if (normals := _normals(mesh)) is not None:
            moved.vertex_normals = normals
        mesh = moved
    if far and format == "glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, transform=trimesh.transformations.translation_matrix(origin))
        data: Any = scene.export(file_type="glb")
    else:
        data = mesh.export(file_type=format)
    content = io.BytesIO(data.encode() if isinstance(data, str) else bytes(data)).getvalue()
    if far and format == "stl":
        content = _head(origin) + content[80:]
    return content


def remark(mesh: trimesh.Trimesh, format: str) -> str | None:
    """What other programs do not find in a file of this format, for people; None where all is there."""
    if format != "stl" or not len(mesh.vertices) or (lost := rounding(mesh)) <= TOLERANCE:
        return None
    origin = " ".join(f"{x:.12g}" for x in _origin(mesh))
    return (
        f"warning: STL has single precision, which would lose {lost:.1g} of the size so far from the "
        "origin: written around "
        f"({origin}), which its header names and other programs do not add; format=ply, obj, off or glb "
        "keep the place"
    )


def _origin(mesh: trimesh.Trimesh) -> np.ndarray:
    """A point near the mesh that twelve digits name exactly."""
    return np.array([float(f"{x:.12g}") for x in np.asarray(mesh.bounds).mean(0)])


def _head(origin: np.ndarray) -> bytes:
    """The 80 bytes in front of a binary STL."""
    return ("origin " + " ".join(f"{x:.12g}" for x in origin)).encode().ljust(80)


def _normals(mesh: trimesh.Trimesh) -> np.ndarray | None:
    """Only those that somebody gave it."""
    return np.asarray(mesh.vertex_normals) if "vertex_normals" in mesh._cache else None


def _colors(mesh: trimesh.Trimesh) -> np.ndarray | None:
    visual: Any = mesh.visual
    return np.asarray(visual.vertex_colors) if visual.kind == "vertex" else None


def _text(mesh: trimesh.Trimesh, format: str, digits: int) -> bytes:
    """OBJ and OFF, with as many digits as the place asks for; colours behind the positions."""
    colors, normals = _colors(mesh), _normals(mesh) if format == "obj" else None
    table, row = np.asarray(mesh.vertices, np.float64), " ".join([f"%.{digits}g"] * 3)
    if colors is not None and format == "obj":
        table, row = np.column_stack((table, colors[:, :3] / 255)), row + " %.8f" * 3
    elif colors is not None:
        table, row = np.column_stack((table, colors)), row + " %d" * 4
    out = io.StringIO()
    if format == "off":
        out.write(f"{'C' * (colors is not None)}OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n")
        np.savetxt(out, table, row)
        np.savetxt(out, mesh.faces, "3 %d %d %d")
        return out.getvalue().encode()
    np.savetxt(out, table, f"v {row}")
    faces = np.asarray(mesh.faces) + 1
    if normals is not None:
        np.savetxt(out, normals, "vn %.8f %.8f %.8f")
        np.savetxt(out, np.repeat(faces, 2, axis=1), "f %d//%d %d//%d %d//%d")
    else:
        np.savetxt(out, faces, "f %d %d %d")
    return out.getvalue().encode()


def _double_ply(mesh: trimesh.Trimesh) -> bytes:
    """Binary PLY with positions in double precision."""
    columns = [("double", name, "<f8", mesh.vertices[:, i]) for i, name in enumerate("xyz")]
    if (normals := _normals(mesh)) is not None:
        columns += [("float", name, "<f4", normals[:, i]) for i, name in enumerate(("nx", "ny", "nz"))]
    if (colors := _colors(mesh)) is not None:
        columns += [
            ("uchar", name, "u1", colors[:, i]) for i, name in enumerate(("red", "green", "blue", "alpha"))
        ]
    vertices = np.empty(len(mesh.vertices), [(name, kind) for _, name, kind, _ in columns])
    for _, name, _, values in columns:
        vertices[name] = values
    faces = np.empty(len(mesh.faces), [("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, mesh.faces
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
    head += "".join(f"property {word} {name}\n" for word, name, _, _ in columns)
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    return head.encode() + vertices.tobytes() + faces.tobytes()
