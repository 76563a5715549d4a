"""Meshes with colours: of their vertices or faces, or of a texture image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from jaxtyping import Float
from PIL import Image
from scipy.spatial import KDTree
from trimesh.resolvers import FilePathResolver

from nif_cli import NifError
from nif_cli.data.shapes.meshes import MeshData
from nif_cli.data.shapes.samples import ShapeSamples
from nif_cli.geometry.mesh import clean, load_mesh, mesh_files
from nif_cli.geometry.repair import solid
from nif_cli.geometry.sampling import sample_faces
from nif_cli.geometry.triangulated import triangulated, utf8
from nif_cli.untrusted import IMAGES as PICTURE_FORMATS
from nif_cli.untrusted import one_line, reading, regular, shown

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".tif", ".tiff")
TEXELS = 2**26  # of a texture: as float32 they take 800 MiB
FILE_BYTES = 2**30  # of a material file or a texture
GREY = np.array([0.6, 0.6, 0.6])  # of what has no colour
ColoredSamples = tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]


class TexturedMeshes(MeshData):
    """One coloured mesh (obj with materials, ply with vertex or face colours, glb): distances as of any mesh,
    and colours at the surface samples. `repair=solid` takes the distances from a closed solid around the
    mesh, for ShapeNet as shipped. Without `path` a painted ball made on the spot.
    """

    holds = "coloured shapes"

    def __init__(self, path: str | None = None, repair: Literal["none", "solid"] = "none", **settings):
        super().__init__(**settings)
        self.path, self.repair = None if path is None else Path(path).expanduser(), repair

    def meshes(self) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        if self.path is None:
            return [("painted_ball", lambda: clean(painted_ball(), "painted ball"))]
        base = self.path if self.path.is_dir() else self.path.parent
        return [
            (f.relative_to(base).with_suffix("").as_posix(), partial(self.read, f))
            for f in mesh_files(self.path)
        ]

    def read(self, path: Path) -> trimesh.Trimesh:
        mesh = load_mesh(path)
        return solid(mesh, 192) if self.repair == "solid" else mesh

    def _sample(self, id: str, read: Callable[[], trimesh.Trimesh]) -> ShapeSamples:
        shape = super()._sample(id, read)
        path = read.args[0] if isinstance(read, partial) else None
        parts = coloured_parts(path) if path else [painted_ball()]
        points, normals, colors = sample_colors(
            parts, max(1, self.surface_samples), np.random.default_rng([self.seed, 7])
        )
        kinds = sorted({_kind(part) for part in parts})
        return replace(
            shape,
            surface=shape.transform.to_normalised(points).astype(np.float32),
            normals=normals.astype(np.float32),
            colors=colors.astype(np.float32),
            report=shape.report + f"; coloured by {', '.join(kinds)}",
        )


def painted_ball() -> trimesh.Trimesh:
    """A ball with bands and spots in its vertex colours."""
    ball = trimesh.creation.icosphere(6)
    x, y, z = np.asarray(ball.vertices).T
    bands = 0.5 + 0.5 * np.sign(np.sin(12 * y))
    spots = np.sin(9 * x) * np.sin(9 * z) > 0.3
    colors = np.stack([0.9 * bands + 0.1, np.where(spots, 0.8, 0.3), 0.5 - 0.4 * x], -1)
    return trimesh.Trimesh(
        ball.vertices, ball.faces, vertex_colors=(colors * 255).astype(np.uint8), process=False
    )


class _Beside(FilePathResolver):
    """Files below the mesh's folder, and images in the folders beside it (ShapeNet: models/ and images/),
    no others. trimesh goes on without what is refused; `lost` says why, by name."""

    def __init__(self, path: Path):
        super().__init__(str(path))
        self.asked, self.texels, self.obj = "", 0, path.suffix.lower() == ".obj"
        self.lost, self.images = dict[str, str](), dict[str, Image.Image]()

    def get(self, name: str) -> bytes:
        self.asked = name.strip()
        try:
            folder = Path(self.parent).resolve()
            path = (folder / self.asked).resolve()
            around = folder.parent if path.suffix.lower() in IMAGES else folder
            if not path.is_relative_to(around):
                raise NifError(f"{shown(name)}: leads out of the mesh's folder; put a copy beside it")
            if regular(path).stat().st_size > FILE_BYTES:
                raise NifError(f"{path}: {path.stat().st_size:,} bytes; at most {FILE_BYTES:,}")
            data = path.read_bytes()
            return utf8(data) if self.obj and path.suffix.lower() not in IMAGES else data
        except (NifError, OSError, ValueError, RuntimeError) as error:
            self.lost.setdefault(self.asked, one_line(error))
            raise

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within, the images that trimesh opens are of an allowed format (EPS would start a program), and
        counted first."""
        opened, limit = Image.open, Image.MAX_IMAGE_PIXELS

        def measured(file: Any, mode: Literal["r"] = "r", formats: Any = None) -> Image.Image:
            name, self.asked = self.asked, ""  # none: an image within the file
            if name and name in self.images:  # many materials may share one
                return self.images[name]
            try:
                image = opened(file, mode, (*PICTURE_FORMATS, "TGA"))
                self.texels += image.width * image.height
                if image.width * image.height > TEXELS or self.texels > 16 * TEXELS:
                    size = (
                        f"{image.width:,} x {image.height:,} pixels; at most {TEXELS:,}, "
                        f"{16 * TEXELS:,} in all"
                    )
                    raise NifError(f"{shown(name or 'an image within')}: a texture of {size}")
                if name:
                    self.images[name] = image
                return image
            except Exception as error:
                said = (
                    one_line(error)
                    if isinstance(error, NifError)
                    else f"{shown(name)}: no image of an allowed format"
                )
                self.lost.setdefault(name, said)
                raise

        Image.MAX_IMAGE_PIXELS, Image.open = None, measured  # type: ignore[assignment]
        try:
            yield
        finally:
            Image.open, Image.MAX_IMAGE_PIXELS = opened, limit


def coloured_parts(path: Path) -> list[trimesh.Trimesh]:
    """The meshes of a file with their own colours or textures, in the file's units; NifError where nothing is
    coloured."""
    size, beside = regular(path).stat().st_size, _Beside(path)
    with (
        beside.measuring(),
        reading(path, f"a coloured mesh ({size:,} bytes)"),
    ):  # trimesh raises whatever it stumbles over
        whole = triangulated(path)
        source = path if whole is None else BytesIO(whole)
        kind = path.suffix[1:].lower()
        scene = trimesh.load_scene(source, file_type=kind, process=False, allow_remote=False, resolver=beside)
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if beside.lost:
        first = next(iter(beside.lost.values()))
        warnings.warn(
            f"{path}: {len(beside.lost)} of its material files or textures left out ({first})", stacklevel=2
        )
    if all(_kind(part) == "nothing" for part in parts):
        raise NifError(
            f"{path}: it has no colours: neither of vertices or faces nor a texture; model=sdf learns its "
            "shape alone"
        )
    return _without_hidden(parts)


def _without_hidden(parts: list[trimesh.Trimesh]) -> list[trimesh.Trimesh]:
    """Without the plain faces that lie on a textured one: ShapeNet has many faces twice, and the backs often
    have no texture."""
    textured = [part for part in parts if _kind(part) == "texture"]
    if not textured:
        return parts
    size = float(np.ptp(np.concatenate([part.bounds for part in parts]), axis=0).max())
    tree = KDTree(np.concatenate([part.triangles_center for part in textured]))
    kept = list(textured)
    for part in parts:
        if _kind(part) != "texture":
            away, _ = tree.query(part.triangles_center)
            part.update_faces(away > 1e-5 * size)
            if len(part.faces):
                kept.append(part)
    return kept


def _kind(mesh: trimesh.Trimesh) -> str:
    visual: Any = mesh.visual
    kind = visual.kind
    if kind == "texture":
        return "texture" if _texture(visual) is not None else "material"
    return {"vertex": "vertices", "face": "faces"}.get(str(kind), "nothing")


def sample_colors(parts: list[trimesh.Trimesh], count: int, rng: np.random.Generator) -> ColoredSamples:
    """`count` area-weighted points on all parts together, the normals of their faces and their colours
    (sRGB)."""
    area = np.array([part.area for part in parts])
    shares = rng.multinomial(count, area / area.sum())
    found = [_sample_part(part, n, rng) for part, n in zip(parts, shares.tolist(), strict=True) if n]
    points, normals, colors = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return points, normals, colors


def _sample_part(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> ColoredSamples:
    face, weights = sample_faces(mesh, count, rng)
    corners = np.asarray(mesh.faces)[face]
    points = np.einsum("nc,ncd->nd", weights, np.asarray(mesh.vertices)[corners])
    visual: Any = mesh.visual
    kind = _kind(mesh)
    if kind == "vertices":
        colors = np.einsum("nc,ncd->nd", weights, np.asarray(visual.vertex_colors)[corners, :3] / 255)
    elif kind == "faces":
        colors = np.asarray(visual.face_colors)[face, :3] / 255
    elif kind == "texture":
        colors = _look_up(_texture(visual), np.einsum("nc,ncd->nd", weights, np.asarray(visual.uv)[corners]))
    elif kind == "material":
        colors = np.broadcast_to(np.asarray(visual.material.main_color)[:3] / 255, (count, 3))
    else:
        colors = np.broadcast_to(GREY, (count, 3))
    return points, np.asarray(mesh.face_normals)[face], colors


def _texture(visual: Any) -> Float[np.ndarray, "H W 3"] | None:
    material = visual.material
    image = getattr(material, "image", None)
    image = image if image is not None else getattr(material, "baseColorTexture", None)
    if image is None or visual.uv is None or len(visual.uv) == 0:
        return None
    if not isinstance(image, Image.Image) or image.width * image.height > TEXELS:
        raise NifError(f"a texture of more than {TEXELS:,} pixels")
    return np.asarray(image.convert("RGB"), np.float32) / 255


def _look_up(image: Any, uv: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Bilinear; the image repeats, v goes up from its lower edge."""
    height, width, _ = image.shape
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x0, y0 = x0.astype(np.int64), y0.astype(np.int64)

    def at(dy: int, dx: int) -> np.ndarray:
        return image[(y0 + dy) % height, (x0 + dx) % width]

    return (at(0, 0) * (1 - fx) + at(0, 1) * fx) * (1 - fy) + (at(1, 0) * (1 - fx) + at(1, 1) * fx) * fy
