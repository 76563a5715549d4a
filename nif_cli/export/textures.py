"""Meshes with an image of their field's colours: unwrapped by xatlas, every texel looked up in the field."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from nif_cli import NifError
from nif_cli.geometry.writing import TOLERANCE, mesh_bytes, rounding

MISSING = "texture: needs xatlas: pip install 'nif-cli[texture]'"
PADDING = 4  # texels between charts, so that coarser images of it do not mix them
AT_ONCE = 2**21  # texels that are looked at together
Colours = Callable[[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]], UInt8[np.ndarray, "N 3"]]


def unwrapped(mesh: trimesh.Trimesh, size: int) -> tuple[trimesh.Trimesh, Float[np.ndarray, "V 2"]]:
    """The mesh with its vertices doubled along seams, and their places in the image (0 to 1, from the lower
    left). NifError where xatlas is missing or fails."""
    try:
        import xatlas
    except ImportError as error:
        raise NifError(MISSING) from error
    atlas, options = xatlas.Atlas(), xatlas.PackOptions()
    low, extent = mesh.bounds[0], float(np.ptp(mesh.bounds, axis=0).max())  # its tolerances are absolute
    placed = np.ascontiguousarray((mesh.vertices - low) / max(extent, 1e-300), np.float32)
    options.resolution, options.padding, options.bilinear = size, PADDING, True
    try:
        atlas.add_mesh(placed, np.ascontiguousarray(mesh.faces, np.uint32))
        atlas.generate(pack_options=options)
        came_from, faces, places = atlas[0]
    except Exception as error:
        raise NifError(f"texture: xatlas cannot unwrap this mesh ({str(error)[:100]})") from error
    normals = np.asarray(mesh.vertex_normals)[came_from]
    made = trimesh.Trimesh(
        np.asarray(mesh.vertices)[came_from], faces.astype(np.int64), vertex_normals=normals, process=False
    )
    return made, np.asarray(places, np.float64)


def texels(
    faces: Int64[np.ndarray, "F 3"], places: Float[np.ndarray, "V 2"], size: int
) -> tuple[Int64[np.ndarray, "T"], Int64[np.ndarray, "T"], Float[np.ndarray, "T 3"]]:
    """Which texels (row by row from the top left) have their middle on which face, and what its corners count
    there."""
    corners = places[faces] * size  # [F, 3, 2], y up
    low = np.floor(corners.min(1) - 0.5).clip(0, size - 1).astype(np.int64)
    high = np.ceil(corners.max(1) - 0.5).clip(0, size - 1).astype(np.int64)
    wide, tall = (high - low + 1).T
    count = wide * tall
    found = []
    ends = np.cumsum(count)
    cuts = [0, *np.searchsorted(ends, np.arange(AT_ONCE, int(ends[-1]), AT_ONCE)).tolist(), len(faces)]
    for begin, end in pairwise(cuts):
        if begin == end:
            continue
        face = np.repeat(np.arange(begin, end), count[begin:end])
        number = np.arange(len(face)) - np.repeat(
            ends[begin:end] - count[begin:end] - (ends[begin - 1] if begin else 0), count[begin:end]
        )
        at = low[face] + np.stack((number % wide[face], number // wide[face]), 1)
        weights = _barycentric(corners[face], at + 0.5)
        inside = (weights >= -1e-6).all(1)
        found.append(((size - 1 - at[inside, 1]) * size + at[inside, 0], face[inside], weights[inside]))
    texel, face, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    _, first = np.unique(texel, return_index=True)  # an edge belongs to one of its faces
    return texel[first], face[first], weights[first]


def _barycentric(corners: Float[np.ndarray, "N 3 2"], at: Float[np.ndarray, "N 2"]) -> np.ndarray:
    a, b, c = corners.transpose(1, 0, 2)

    def area(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    whole = area(a, b, c)
    flat = np.abs(whole) < 1e-12
    parts = np.stack((area(at, b, c), area(at, c, a), area(at, a, b)), 1)
    return np.where(flat[:, None], -1.0, parts / np.where(flat, 1.0, whole)[:, None])


def painted_texture(
    mesh: trimesh.Trimesh, places: Float[np.ndarray, "V 2"], size: int, colours: Colours
) -> UInt8[np.ndarray, "size size 3"]:
    """The image of a mesh that is `unwrapped`: `colours(points, normals)` at what each texel shows; those
    that show nothing are the nearest's, so that seams do not bleed."""
    texel, face, weights = texels(np.asarray(mesh.faces, np.int64), places, size)
    image = np.full((size * size, 3), 127, np.uint8)
    for start in range(0, len(texel), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        corners = np.asarray(mesh.faces)[face[part]]
        points = (np.asarray(mesh.vertices)[corners] * weights[part, :, None]).sum(1)
        normals = (np.asarray(mesh.vertex_normals)[corners] * weights[part, :, None]).sum(1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        image[texel[part]] = colours(points, normals)
    known = np.zeros(size * size, bool)
    known[texel] = True
    return dilated(image.reshape(size, size, 3), known.reshape(size, size))


def dilated(image: UInt8[np.ndarray, "H W 3"], known: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """What is not known has the colour of the nearest texel that is."""
    if not known.any():
        return image
    nearest: Any = distance_transform_edt(~known, return_distances=False, return_indices=True)
    row, column = nearest
    return image[row, column]


def textured_files(
    mesh: trimesh.Trimesh,
    places: Float[np.ndarray, "V 2"],
    image: UInt8[np.ndarray, "H W 3"],
    format: str,
    name: str,
) -> dict[str, bytes]:
    """The files of a textured mesh by their suffixes: glb alone, or obj with mtl and png, which name one
    another as `name`."""
    png = io.BytesIO()
    Image.fromarray(image).save(png, "png", optimize=False, compress_level=6)
    if format == "obj":
        return {
            "obj": _obj(mesh, places, name),
            "mtl": f"newmtl texture\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nmap_Kd {name}.png\n".encode(),
            "png": png.getvalue(),
        }
    shown = PBRMaterial(baseColorTexture=Image.open(png), metallicFactor=0.0, roughnessFactor=1.0)
    dressed = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.vertex_normals, process=False)
    dressed.visual = TextureVisuals(uv=places, material=shown)
    return {"glb": _glb(dressed)}


def _glb(mesh: trimesh.Trimesh) -> bytes:
    """With a node that moves it where float32 would not reach."""
    if rounding(mesh) <= TOLERANCE:
        return mesh_bytes(mesh, "glb")
    origin = np.asarray(mesh.bounds).mean(0)
    moved = mesh.copy()
    moved.vertices = mesh.vertices - origin
    scene = trimesh.Scene()
    scene.add_geometry(moved, transform=trimesh.transformations.translation_matrix(origin))
    data: Any = scene.export(file_type="glb")
    return bytes(data)


def _obj(mesh: trimesh.Trimesh, places: np.ndarray, name: str) -> bytes:
    out = io.StringIO()
    out.write(f"mtllib {name}.mtl\nusemtl texture\n")
    np.savetxt(
        out, mesh.vertices, "v %.17g %.17g %.17g" if rounding(mesh) > TOLERANCE else "v %.9g %.9g %.9g"
    )
    np.savetxt(out, places, "vt %.8f %.8f")
    np.savetxt(out, mesh.vertex_normals, "vn %.6f %.6f %.6f")
    np.savetxt(out, np.repeat(np.asarray(mesh.faces) + 1, 3, axis=1), "f %d/%d/%d %d/%d/%d %d/%d/%d")
    return out.getvalue().encode()
