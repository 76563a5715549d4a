"""Triangle meshes: reading whatever people have, merging by position, normalising, and saying what is wrong
with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import igl
import numpy as np
import trimesh

from nif_cli import NifError
from nif_cli.files import available_memory
from nif_cli.geometry.orientation import disagreeing_edges, oriented_mesh
from nif_cli.geometry.polygons import triangles
from nif_cli.geometry.reading import read_polygons
from nif_cli.geometry.sampling import sample_surface
from nif_cli.geometry.writing import TOLERANCE, WRITABLE, mesh_bytes, rounding
from nif_cli.untrusted import reading, regular

__all__ = ["WRITABLE", "mesh_bytes"]
READABLE = (".ply", ".obj", ".stl", ".off", ".glb", ".gltf")


@dataclass(frozen=True)
class MeshReport:
    """What the signs of a mesh can be trusted for. Lengths are in the mesh's own units."""

    vertices: int
    faces: int
    boundary_edges: int  # edges of one face only
    non_manifold_edges: int  # edges of three faces or more
    components: int
    doubled_faces: int  # faces that are there twice or more, whichever way they face
    area: float
    volume: float  # signed: negative for a closed mesh that is inside out
    extent: float  # the longest side
    thinnest: float  # the 5th percentile of how thick the shape is behind its surface
    overlap: (
        float  # the part of the surface that lies inside another part (winding number above 1 just below it)
    )
    disagreeing_edges: int = 0  # edges of two faces that look to different sides
    notes: tuple[str, ...] = ()  # what was mended or lost when the file was read

    @property
    def watertight(self) -> bool:
        """Closed, with an inside that all faces agree about."""
        return self.boundary_edges == self.non_manifold_edges == self.disagreeing_edges == 0

    @property
    def doubts(self) -> list[str]:
        """Why the signs, or the thin parts, of this shape are not to be trusted; empty for a clean solid."""
        found = list(self.notes)
        if self.disagreeing_edges:
            found.append(f"faces disagree about the inside at {self.disagreeing_edges:,} edges")
        if self.doubled_faces > 0.1 * self.faces:
            found.append(f"{self.doubled_faces / self.faces:.0%} of the faces are there twice")
        if self.boundary_edges:
            found.append(f"{self.boundary_edges:,} boundary edges")
        if self.non_manifold_edges and self.doubled_faces <= 0.1 * self.faces:
            found.append(f"{self.non_manifold_edges:,} non-manifold edges")
        if self.watertight and self.volume < 0:
            found.append("inside out")
        if self.overlap > 0.01:
            found.append(f"{self.overlap:.0%} of the surface inside other parts")
        if self.thinnest < 0.002 * self.extent:
            found.append(f"thin ({self.thinnest / self.extent:.2%} of its size)")
        return found

    def as_dict(self) -> dict:
        return {**asdict(self), "notes": list(self.notes), "watertight": self.watertight}

    def __str__(self) -> str:
        parts = f", {self.components} parts" if self.components > 1 else ""
        if self.watertight:
            state = "watertight" + (", inside out" if self.volume < 0 else "")
        elif self.disagreeing_edges:
            state = f"not watertight: faces disagree about the inside at {self.disagreeing_edges:,} edges"
        else:
            holes = f"{self.boundary_edges} boundary edges" if self.boundary_edges else ""
            forks = f"{self.non_manifold_edges} non-manifold edges" if self.non_manifold_edges else ""
            state = (
                f"not watertight ({', '.join(filter(None, (holes, forks)))}): signs by winding number "
                "close its holes"
            )
        return "; ".join((f"{self.vertices:,} vertices, {self.faces:,} faces{parts}, {state}", *self.notes))


def mesh_files(path: str | Path) -> list[Path]:
    """The mesh files that `path` names: itself, or all below it (sorted). NifError when there are none."""
    path = Path(path).expanduser()
    if not path.exists():
        raise NifError(f"no such file or folder: {path}")
    if path.is_file():
        if path.suffix.lower() not in READABLE:
            raise NifError(f"{path}: '{path.suffix}' is no mesh format; readable are {', '.join(READABLE)}")
        return [path]
    files = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in READABLE and p.is_file() and not hidden(p, path)
    )
    if not files:
        raise NifError(f"{path}: no meshes in this folder (looked for {', '.join(READABLE)})")
    return files


def hidden(file: Path, folder: Path) -> bool:
    """Whether a file below a folder, or a folder between them, has a name with a dot in front, as what macOS
    leaves beside each file (._x)."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def load_mesh(path: str | Path) -> trimesh.Trimesh:
    """Read one mesh file: polygons become triangles, scenes one mesh, vertices are merged by position alone
    (texture seams split them otherwise), degenerate faces are dropped, faces that look the wrong way are
    turned. What was done is in `metadata["notes"]`, for people. Anything else is a NifError that names the
    file."""
    path = regular(Path(path), "mesh file")
    if path.stat().st_size * 8 > available_memory():
        raise NifError(
            f"{path}: a mesh file of {path.stat().st_size / 2**30:.1f} GiB does not fit in the memory of "
            "this machine"
        )
    with reading(path, "a mesh"):
        given = read_polygons(path)
        faces = triangles(given, path)
        mesh = clean(trimesh.Trimesh(given.vertices, faces, process=False), str(path))
        if given.single and (lost := rounding(mesh)) > TOLERANCE:
            given.notes.append(
                f"single precision so far from the origin: its positions are known to {lost:.1g} of its size"
            )
        mesh, turned = oriented_mesh(mesh)
    mesh.metadata["notes"] = (*given.notes, *turned)
    return mesh


def clean(mesh: trimesh.Trimesh, name: str) -> trimesh.Trimesh:
    """Merge by position and drop degenerate faces; NifError (naming `name`) when no surface is left or
    numbers are not finite."""
    if len(mesh.faces) == 0:
        raise NifError(
            f"{name}: no faces"
            + (", points only; a mesh is needed" if len(mesh.vertices) else ": the mesh is empty")
        )
    lost = (mesh.faces < 0) | (mesh.faces >= len(mesh.vertices))
    if lost.any():
        raise NifError(
            f"{name}: a face names vertex {mesh.faces[lost][0]}, and there are {len(mesh.vertices)}"
        )
    named = np.zeros(len(mesh.vertices), bool)  # a vertex that no face names counts for nothing, even NaN
    named[mesh.faces] = True
    used, faces = mesh.vertices[named], (np.cumsum(named) - 1)[mesh.faces]
    if not np.isfinite(used).all():
        raise NifError(
            f"{name}: {(~np.isfinite(used).all(1)).sum():,} vertices are NaN or infinite; repair the mesh "
            "first"
        )
    extent = float(np.ptp(used, axis=0).max())
    if not 1e-30 < extent < 1e30:
        raise NifError(f"{name}: degenerate, its longest side is {extent:g}")
    # trimesh's tolerances are absolute, 1e-8: right for a mesh of size 1, which others are scaled to and back
    # by a power of two, exactly
    scale = 2.0 ** -np.floor(np.log2(extent))
    middle = (used.min(0) + used.max(0)) / 2
    if np.abs(middle).max() > 1e3 * extent:  # its grid of whole numbers does not reach this far
        unique, index = trimesh.grouping.unique_rows((used - middle) * scale, digits=8)
        mesh = trimesh.Trimesh(used[unique], index.reshape(-1)[faces], process=False)
        a, b, c = (mesh.vertices[mesh.faces] - middle).transpose(1, 0, 2) * scale
        mesh.update_faces(np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0)
        mesh.remove_unreferenced_vertices()
        if len(mesh.faces) == 0:
            raise NifError(f"{name}: degenerate, all its faces have no area")
        return mesh
    mesh = trimesh.Trimesh(used * scale, faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces(height=0))
    mesh.remove_unreferenced_vertices()
    if len(mesh.faces) == 0 or not mesh.area > 0:
        raise NifError(f"{name}: degenerate, all its faces have no area")
    return trimesh.Trimesh(mesh.vertices / scale, mesh.faces, process=False)


def inspect_mesh(mesh: trimesh.Trimesh, probes: int = 500) -> MeshReport:
    """Count and measure what makes signs doubtful; `probes` points on the surface tell thickness and overlap.
    The mesh must be merged by position. The same mesh gives the same report."""
    _, counts = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    notes = tuple(mesh.metadata.get("notes", ()))
    # igl's tolerances are absolute, for a mesh of size 1 at the origin; powers of two change no digit
    scale = 2.0 ** -np.floor(np.log2(extent)) if extent > 0 else 1.0
    middle = np.asarray(mesh.bounds).mean(0)
    middle = middle if np.abs(middle).max() > 1e3 * extent else np.zeros(3)
    mesh = trimesh.Trimesh((mesh.vertices - middle) * scale, mesh.faces, process=False)
    extent *= scale
    vertices, faces = (
        np.ascontiguousarray(mesh.vertices, np.float64),
        np.ascontiguousarray(mesh.faces, np.int64),
    )
    surface, normals = sample_surface(mesh, probes, np.random.default_rng(0))
    below = surface - 1e-4 * extent * normals
    tree = igl.AABB()
    tree.init(vertices, faces)
    hit, across, _ = tree.intersect_ray_first(vertices, faces, surface - 1e-6 * extent * normals, -normals)
    across = np.asarray(across)[np.asarray(hit) >= 0]
    return MeshReport(
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        boundary_edges=int((counts == 1).sum()),
        non_manifold_edges=int((counts > 2).sum()),
        components=int(mesh.body_count),
        doubled_faces=len(faces) - len(np.unique(np.sort(faces, 1), axis=0)),
        area=float(mesh.area) / scale**2,
        volume=signed_volume(mesh) / scale**3,
        extent=extent / scale,
        thinnest=float(np.percentile(across, 5)) / scale if len(across) else 0.0,
        overlap=float((np.asarray(igl.fast_winding_number(vertices, faces, below)) > 1.5).mean()),
        disagreeing_edges=disagreeing_edges(faces),
        notes=notes,
    )


def signed_volume(mesh: trimesh.Trimesh) -> float:
    """The volume that the faces enclose, negative when they face inwards; 0 for doubled faces."""
    a, b, c = (mesh.triangles - mesh.vertices.mean(0)).transpose(1, 0, 2)
    return float((np.cross(a, b) * c).sum() / 6)


"""The normalised spaces: how a shape is brought there, and half the side of the cube that holds it."""
