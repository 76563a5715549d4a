"""Files of users as shapes to reconstruct: meshes, point clouds, samples, depth images, voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.shapes.cloud_files import INWARDS, has_faces, read_xyz, scan_of
from nif_cli.data.shapes.formats import deepsdf, onet
from nif_cli.data.shapes.formats.voxels import READABLE as GRIDS
from nif_cli.data.shapes.formats.voxels import read_grids
from nif_cli.data.shapes.observations import seen_by_depth
from nif_cli.data.shapes.samples import ImageFiles, Known, PointSamples, Scan
from nif_cli.files import available_memory, check_array
from nif_cli.geometry.mesh import READABLE as MESHES
from nif_cli.geometry.mesh import clean, hidden, load_mesh
from nif_cli.geometry.transform import SPACES, Transform
from nif_cli.geometry.voxels import voxel_mesh
from nif_cli.rendering.rays import Rays
from nif_cli.untrusted import npz_headers, number, read_npy, read_npz, regular, shown

OUTWARDS = "its normals pointed outwards or undecidedly before turn_normals turned them"
FARTHEST = 1e12  # depths and places of cameras: beyond it float32 has nothing left
CLOUDS = (".xyz", ".npy", ".npz", ".ply")
ALIASES = ("xyz", "positions", "coords", "pts")  # of points, in npz files of others
IMAGES = (".png", ".jpg", ".jpeg")
FILES = tuple(dict.fromkeys((*MESHES, *CLOUDS, *GRIDS, *IMAGES)))


@dataclass
class Input:
    """One shape that a user gives: a mesh, or what is seen of it; in its own units unless `space` names the
    normalised space that it is in already. `transform` leads from the user's units to the coordinates
    here."""

    name: str
    mesh: trimesh.Trimesh | None = None
    seen: Known | None = None
    transform: Transform = field(default_factory=Transform)
    space: str | None = None
    notes: list[str] = field(default_factory=list)  # what is to be said of it
    doubts: list[str] = field(default_factory=list)  # those of its notes that say that something may be wrong

    def turn(self) -> None:
        """Turn the normals of a point cloud, in place."""
        scan = self.seen.scan if self.seen is not None else None
        if scan is not None and scan.normals is not None:
            self.seen = Known(scan=Scan(scan.points, -scan.normals))
            self.doubts = ["normals turned" if INWARDS in self.notes else OUTWARDS]
            self.notes = [n for n in self.notes if n != INWARDS] + self.doubts

    @property
    def extent(self) -> Float[np.ndarray, "E 3"]:
        """Points of the shape, which say where it lies and how large it is."""
        if self.mesh is not None:
            return np.asarray(self.mesh.vertices)
        assert self.seen is not None
        if self.seen.scan is not None:
            return self.seen.scan.points
        samples = self.seen.samples
        assert samples is not None
        inside = samples.inside if samples.distance is None else samples.distance > 0
        if inside is None or not inside.any():
            raise NifError(
                f"{self.name}: none of its points is inside, so it does not say where the shape is"
            )
        return samples.points[inside]


@dataclass
class DepthInput(Input):
    """A depth image, with its rays: origins, unit directions, depth along them (inf: nothing seen)."""

    rays: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def input_files(path: str | Path) -> list[Path]:
    """The file that `path` names, or all below it that could be one of a shape (sorted)."""
    path = Path(path).expanduser()
    if not path.exists():
        raise NifError(f"input={path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in FILES:
            raise NifError(f"input={path}: '{path.suffix}' is not read; {', '.join(FILES)} are")
        return [path]
    files = sorted(
        p
        for p in path.rglob("*")
        if p.suffix.lower() in FILES and p.is_file() and not p.stem.endswith("_mask")
    )
    files = [p for p in files if not hidden(p, path)]
    if not files:
        raise NifError(f"input={path}: nothing in this folder is read (looked for {', '.join(FILES)})")
    return files


def read_inputs(path: Path, name: str) -> list[tuple[str, Callable[[], Input]]]:
    """The shapes of one file, each with how it is read; a stack of voxel grids holds several. NifError names
    a file that is none of: a mesh, a point cloud (ply, xyz, npy, npz), samples of DeepSDF or occupancy
    networks, a depth image (npz), voxels (binvox, npy, npz), an image (png, jpg; its object by an alpha
    channel or a <name>_mask.png beside it)."""
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return [(name, lambda: Input(name, seen=Known(images=ImageFiles([regular(path, "image")]))))]
    if regular(path).stat().st_size * 8 > available_memory():
        raise NifError(
            f"{path}: a file of {path.stat().st_size / 2**30:.1f} GiB does not fit in the memory of this "
            "machine"
        )
    if suffix == ".npz":
        headers = npz_headers(path, "a shape")
        names = headers.keys()
        if {"pos", "neg"} <= names:
            return [(name, lambda: _signed(path, name))]
        if {"points", "occupancies"} <= names:
            return [(name, lambda: _occupied(path, name))]
        if "points" in names or names & set(ALIASES):
            return [(name, lambda: _cloud_npz(path, name))]
        if "depth" in names or "z_depth" in names:
            return [(name, lambda: _depth_npz(path, name))]
        if not any(len(shape) >= 3 for shape, _ in headers.values()):
            raise NifError(
                f"{path}: its arrays are {shown(', '.join(sorted(names)), 100)}; wanted are points (and "
                "normals) for a cloud, "
                "pos and neg (DeepSDF), points and occupancies (of occupancy networks), "
                "depth or z_depth with pose, or a grid [X, Y, Z]"
            )
    elif suffix == ".npy":
        if read_npy(path, "a point cloud or voxels", mapped=True).ndim == 2:
            return [(name, lambda: _cloud_input(path, name, read_npy(path, "a point cloud")))]
    elif suffix == ".xyz":
        return [(name, lambda: _cloud_input(path, name, read_xyz(path)))]
    if suffix in GRIDS:
        grids = read_grids(path)

        def voxels(row: int, id: str) -> Input:
            occupied, transform = grids.read(row)
            if not occupied.any() or occupied.all():
                raise NifError(
                    f"{path} ({id}): the grid is {'full' if occupied.any() else 'empty'}; there is no "
                    "surface in it"
                )
            mesh = voxel_mesh(occupied)
            mesh = clean(
                trimesh.Trimesh(transform.to_original(mesh.vertices), mesh.faces, process=False), str(path)
            )
            return Input(id, mesh)

        ids = [name] if grids.single else [f"{name}_{row:04d}" for row in range(len(grids))]
        return [(id, lambda row=row, id=id: voxels(row, id)) for row, id in enumerate(ids)]
    return [(name, lambda: _mesh_or_cloud(path, name))]


def _mesh_or_cloud(path: Path, name: str) -> Input:
    if path.suffix.lower() == ".ply" and not has_faces(path):
        points, normals = deepsdf.read_surface_ply(path)
        table = points if normals is None else np.column_stack((points, normals))
        return _cloud_input(path, name, table, named=True)
    mesh = load_mesh(path)
    return Input(name, mesh, notes=list(mesh.metadata.get("notes", ())))


def _cloud_input(path: Path, name: str, table: np.ndarray, named: bool = False) -> Input:
    scan, notes, doubts = scan_of(path, table, named)
    return Input(name, seen=Known(scan=scan), notes=notes, doubts=doubts)


def _signed(path: Path, name: str) -> Input:
    """Samples of DeepSDF, with the normalisation that lies beside them in the tree, if any."""
    both = read_npz(path, ("pos", "neg"), "a DeepSDF sample file")
    rows, notes = deepsdf.joined(path, both["pos"], both["neg"])
    if len(rows) < 16:
        raise NifError(f"{path}: {len(rows)} samples that are numbers: too few")
    transform = Transform()
    parts = list(path.parts)
    if deepsdf.SAMPLES in parts:
        parts[len(parts) - 1 - parts[::-1].index(deepsdf.SAMPLES)] = deepsdf.NORMALISATION
        if Path(*parts).is_file():
            transform = deepsdf.read_normalisation(Path(*parts))
    samples = PointSamples(np.ascontiguousarray(rows[:, :3]), -rows[:, 3])
    return Input(name, seen=Known(samples), transform=transform, space="ball", notes=notes)


def _occupied(path: Path, name: str) -> Input:
    points, inside, transform = onet.read_points(path)
    known = Known(PointSamples(points, inside=inside))
    return Input(name, seen=known, transform=transform, space="cube")


def _cloud_npz(path: Path, name: str) -> Input:
    found = read_npz(
        path, ("points?", *(f"{a}?" for a in ALIASES), "normals?", "loc?", "scale?"), "a point cloud"
    )
    key = next(k for k in ("points", *ALIASES) if k in found)
    arrays = {"points": found[key]} | {k: v for k, v in found.items() if k in ("normals", "loc", "scale")}
    table = check_array(path, key, arrays["points"], (None, 3), finite=False)
    if "normals" in arrays:
        table = np.column_stack(
            (table, check_array(path, "normals", arrays["normals"], (len(table), 3), finite=False))
        )
    given = _cloud_input(path, name, table, named=True)
    seen = given.seen
    if key != "points":
        given.notes.append(
            f"'{key}' is read as its points" + ("" if "normals" in arrays else ", without normals")
        )
    if "loc" in arrays and "scale" in arrays:  # of occupancy networks: in their cube
        assert seen is not None
        return Input(
            name,
            seen=seen,
            transform=onet.read_transform(path, arrays),
            space="cube",
            notes=given.notes,
            doubts=given.doubts,
        )
    return given


def _depth_npz(path: Path, name: str) -> Input:
    """A depth image: `depth` (along the ray) or `z_depth` [H, W] in the user's units, 0 or inf where
    nothing is seen; `pose` [3 or 4, 4], camera-to-world with OpenGL axes; `fov` (vertical, degrees) or `K`
    [3, 3]."""
    arrays = read_npz(path, ("depth?", "z_depth?", "pose", "fov?", "K?"), "a depth image")
    which = "depth" if "depth" in arrays else "z_depth"
    depth = check_array(path, which, arrays[which], (None, None), finite=False).astype(np.float64)
    pose = check_array(path, "pose", arrays["pose"], (None, 4)).astype(np.float64)[:3]
    height, width = depth.shape
    turned = pose.shape == (3, 4) and np.allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-3)
    if not turned or np.abs(pose[:, 3]).max() > FARTHEST:
        raise NifError(f"{path}: 'pose' must be a rotation and a position [3, 4], camera to world")
    if "K" in arrays:
        k = check_array(path, "K", arrays["K"], (3, 3)).astype(np.float64)
        fx, fy = (number(float(v), f"{path}: a focal length of 'K'", 1e-3) for v in (k[0, 0], k[1, 1]))
        cx, cy = (number(float(v), f"{path}: the centre of 'K'") for v in (k[0, 2], k[1, 2]))
    elif "fov" in arrays:
        (fov,) = check_array(path, "fov", arrays["fov"].reshape(-1), (1,)).tolist()
        fx = fy = 0.5 * height / np.tan(np.radians(number(fov, f"{path}: 'fov' (degrees)", 0.01, 179.9)) / 2)
        cx, cy = width / 2, height / 2
    else:
        raise NifError(f"{path}: it has no camera: give 'fov' (vertical, degrees) or 'K' [3, 3]")
    v, u = np.indices((height, width)) + 0.5
    local = np.stack(((u - cx) / fx, -(v - cy) / fy, -np.ones_like(u)), -1).reshape(-1, 3)
    length = np.linalg.norm(local, axis=1)
    direction = (local / length[:, None]) @ pose[:, :3].T
    t = depth.reshape(-1) * (length if which == "z_depth" else 1.0)
    seen = (t > 0) & (t < FARTHEST)
    if seen.sum() < 16:
        raise NifError(f"{path}: {int(seen.sum())} pixels have a depth: too few")
    points = pose[:, 3] + t[seen, None] * direction[seen]
    # what is free is measured in normalised space; the rays are kept until then
    return DepthInput(
        name,
        seen=Known(scan=Scan(points)),
        rays=(np.tile(pose[:, 3], (len(t), 1)), direction, np.where(seen, t, np.inf)),
    )


def normalise(given: Input, space: str, transform: Transform | None = None) -> tuple[Input, Transform]:
    """The input in the normalised `space` of a model, and the transform from the user's units that led there:
    `transform`, or the one that the input's own extent asks for (a file that is in that space already stays
    as it is)."""
    if (
        given.seen is not None and given.seen.images is not None
    ):  # an image says nothing of where the shape lies
        return given, transform or Transform()
    if transform is None and given.space == space:
        return given, given.transform
    new = transform or SPACES[space][0](given.transform.to_original(given.extent))
    if given.mesh is not None:
        vertices = new.to_normalised(given.transform.to_original(given.mesh.vertices))
        return Input(
            given.name, trimesh.Trimesh(vertices, given.mesh.faces, process=False), None, new, space
        ), new
    assert given.seen is not None
    if isinstance(given, DepthInput) and given.rays is not None:
        origin, direction, depth = given.rays
        rays = Rays(*(torch.from_numpy(a).float() for a in (new.to_normalised(origin), direction)))
        points = new.to_normalised(given.extent)
        view = seen_by_depth(points, None, rays, depth * new.scale)
        return Input(given.name, None, Known(depth=view), new, space), new
    return Input(given.name, None, given.seen.moved(given.transform, new), new, space), new
