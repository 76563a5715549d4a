"""Images and voxels of shapes: what encoders of images and voxels are shown, from meshes and from
files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import ConditioningSpec
from nif_cli.data.shapes.formats.voxels import read_grids
from nif_cli.data.shapes.samples import ImageFiles, Images, Known, VoxelGrid
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import look_from
from nif_cli.rendering.images import mesh_image
from nif_cli.untrusted import opened_image

LONGEST = (
    4096  # pixels along the longest side of what is padded to a square: longer images are averaged first
)
# of the camera, so that a shape fills an image alike in every normalised space
DISTANCE = {
    "ball": 3.0,
    "cube": 1.6,
}


def view_poses(count: int, space: str, rng: np.random.Generator) -> Float[Tensor, "V 3 4"]:
    """Cameras around the origin: any azimuth, 10 to 40 degrees above the horizon (y is up)."""
    poses = []
    for azimuth, height in zip(
        rng.uniform(0, 2 * math.pi, count), np.radians(rng.uniform(10, 40, count)), strict=True
    ):
        at = [math.sin(azimuth) * math.cos(height), math.sin(height), math.cos(azimuth) * math.cos(height)]
        poses.append(
            look_from(DISTANCE[space] * torch.tensor(at, dtype=torch.float32), torch.tensor([0.0, 1.0, 0.0]))
        )
    return torch.stack(poses)


def mesh_images(
    mesh: trimesh.Trimesh, poses: Float[Tensor, "V 3 4"], size: int, antialias: int = 2
) -> UInt8[np.ndarray, "V H W 3"]:
    """The mesh from each camera, shaded by its normals on white, as `nif render` shows fields; antialias^2
    rays a pixel."""
    return np.stack([mesh_image(mesh, pose, size, antialias) for pose in poses])


def cell_centres(size: int, half: float) -> Float[np.ndarray, "N 3"]:
    """The centres of size^3 cells of the cube [-half, half]^3, in the order of a grid [X, Y, Z]."""
    axis = (np.arange(size) + 0.5) * (2 * half / size) - half
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def mesh_voxels(mesh: trimesh.Trimesh, half: float, size: int) -> Bool[np.ndarray, "X Y Z"]:
    """Which of size^3 cells of the cube [-half, half]^3 have their centre inside the mesh."""
    inside = MeshDistance(mesh.vertices, mesh.faces).winding_number(cell_centres(size, half)) > 0.5
    return inside.reshape((size,) * 3)


def grid_lookup(
    occupied: Bool[np.ndarray, "X Y Z"], positions: Float[np.ndarray, "N 3"]
) -> Bool[np.ndarray, "N"]:
    """Which positions, in units of voxels with the centre of voxel (i, j, k) there, lie in occupied
    voxels."""
    index = np.floor(positions + 0.5).astype(np.int64)
    within = ((index >= 0) & (index < occupied.shape)).all(1)
    found = np.zeros(len(positions), bool)
    found[within] = occupied[tuple(index[within].T)]
    return found


def grid_voxels(
    occupied: Bool[np.ndarray, "X Y Z"],
    to_voxels: Transform,
    to_normalised: Transform,
    half: float,
    size: int,
) -> Bool[np.ndarray, "U V W"]:
    """A grid of the user's (whose transform leads from the user's units to its voxels) as size^3 cells of
    normalised space."""
    centres = to_normalised.to_original(cell_centres(size, half))
    return grid_lookup(occupied, to_voxels.to_normalised(centres)).reshape((size,) * 3)


def load_image(path: Path, size: int, mask: Path | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as size x size sRGB bytes: what its alpha channel or `mask` (white: object) leaves out
    becomes white, the shorter side is padded with the colour of the border, and it is resized. NifError when
    it shows no object."""
    with opened_image(path) as file:
        image = (
            file.convert("RGBA")
            if "A" in file.getbands() or "transparency" in file.info
            else file.convert("RGB")
        )
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if mask is not None:
        with opened_image(mask) as file:
            alpha = file.convert("L")
    if min(image.size) < 16:
        raise NifError(
            f"{path}: an image of {image.width} x {image.height} pixels; at least 16 x 16 are needed"
        )
    rgb = image.convert("RGB")
    if alpha is not None:
        if alpha.size != rgb.size:
            raise NifError(
                f"{mask}: a mask of {alpha.width} x {alpha.height} for an image of {rgb.width} x "
                f"{rgb.height} pixels"
            )
        if np.asarray(alpha).max() < 128:
            raise NifError(f"{path}: no object in it: its {'mask' if mask else 'alpha channel'} is empty")
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    if rgb.width != rgb.height:
        if max(rgb.size) > LONGEST:  # a strip would become a square of its length
            rgb = rgb.reduce(-(-max(rgb.size) // LONGEST))
        side = max(rgb.size)
        square = Image.new("RGB", (side, side), rgb.getpixel((0, 0)))  # type: ignore[arg-type]
        square.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
        rgb = square
    pixels = np.asarray(
        rgb.resize((size, size), Image.Resampling.BOX if rgb.width > size else Image.Resampling.BILINEAR)
    )
    if np.ptp(pixels.reshape(-1, 3), axis=0).max() < 8:
        raise NifError(f"{path}: no object in it: it is all of one colour")
    return pixels.copy()


def load_look(known: Known, look: ConditioningSpec, transform: Transform, half: float) -> Known:
    """What is known with the images or voxels that `look` asks for read from their files, if it has such
    files."""
    if look.kind == "image" and isinstance(known.images, ImageFiles):
        chosen = known.images.paths[: look.views]
        masks = [path.with_name(f"{path.stem}_mask.png") for path in chosen]
        found = [
            load_image(p, look.size, m if m.is_file() else None) for p, m in zip(chosen, masks, strict=True)
        ]
        return replace(known, images=Images(np.stack(found)))
    if look.kind == "voxels" and isinstance(known.voxels, Path):
        occupied, to_voxels = read_grids(known.voxels).read(0)
        return replace(known, voxels=VoxelGrid(grid_voxels(occupied, to_voxels, transform, half, look.size)))
    return known
