"""What a model gets to see of a new shape, made from meshes and samples.

Kinds of observation (`observe=`): samples (points in space with their signed distance, or whether they are
inside), oriented (a scan with normals), points (a bare scan), depth (one view of a depth camera), image (a
image), voxels (a grid).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.datamodule import ConditioningSpec
from nif_cli.data.shapes.conditioning import DISTANCE, mesh_images, mesh_voxels
from nif_cli.data.shapes.samples import (
    DepthView,
    Images,
    Known,
    Observation,
    PointSamples,
    Scan,
    ShapeSamples,
    VoxelGrid,
)
from nif_cli.geometry.distance import first_hits, signed_samples
from nif_cli.geometry.sampling import sample_surface
from nif_cli.geometry.transform import SPACES
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.rays import Rays, pinhole_rays

KINDS = ("samples", "oriented", "points", "depth", "image", "voxels")
Seen = TypeVar("Seen", PointSamples, Scan, DepthView, Images, VoxelGrid, Observation)
SPREAD, UNIFORM = (0.0707, 0.0224), 0.06  # DeepSDF's samples: around the surface, and anywhere


def known(shape: ShapeSamples) -> Known:
    """All that a shape's samples show of it."""
    seen = shape.known or Known()
    samples, scan = None, seen.scan
    if len(shape.points):
        samples = PointSamples(shape.points, shape.distance, shape.inside)
    if scan is None and shape.surface is not None and len(shape.surface):
        scan = Scan(shape.surface, shape.normals)
    if scan is not None and scan.normals is not None and not len(scan.normals):
        scan = Scan(scan.points)
    return replace(seen, samples=samples, scan=scan)


def observe_mesh(
    mesh: trimesh.Trimesh,
    kind: str,
    count: int,
    rng: np.random.Generator,
    pose: int = 0,
    look: ConditioningSpec | None = None,
    space: str = "ball",
) -> Observation:
    """What `kind` shows of a mesh in normalised `space`, about `count` points; depth and image: from view
    `pose` of eight around it; image and voxels: as large as a model's `look` says."""
    if kind == "samples":
        points, distance, _, _ = signed_samples(mesh, count, 1, SPREAD, UNIFORM, rng)
        return PointSamples(points, distance)
    if kind in ("oriented", "points"):
        points, normals = (a.astype(np.float32) for a in sample_surface(mesh, count, rng))
        return Scan(points, normals if kind == "oriented" else None)
    if kind == "depth":
        return thin(depth_view(mesh, turntable(8)[pose % 8].numpy()), count, rng)
    if kind == "image" and look is not None:
        poses = turntable(8, distance=DISTANCE[space])[[pose % 8]]
        return Images(mesh_images(mesh, poses, look.size))
    if kind == "voxels" and look is not None:
        return VoxelGrid(mesh_voxels(mesh, SPACES[space][1], look.size))
    raise NifError(f"observe={kind}: no such observation of a mesh; there are {', '.join(KINDS)}")


def show(seen: Known, kind: str) -> Observation:
    """Of all that is known of a shape what `kind` shows. NifError says what the shape lacks."""
    if kind == "samples":
        if seen.samples is None:
            raise NifError(
                "observe=samples: no points with distances or occupancies are known; observe=oriented or "
                "points?"
            )
        return seen.samples
    if kind in ("oriented", "points"):
        scan = seen.scan or seen.depth  # a depth view is a scan from one side
        if scan is None or (kind == "oriented" and scan.normals is None):
            lacks = "points on the surface" if scan is None else "normals"
            raise NifError(f"observe={kind}: no {lacks} are known of this shape; observe=samples?")
        return Scan(scan.points, scan.normals if kind == "oriented" else None)
    if kind == "depth":
        if seen.depth is None:
            raise NifError("observe=depth: it takes a mesh or a depth image; observe=points?")
        return seen.depth
    if kind == "image":
        if not isinstance(seen.images, Images):
            raise NifError("observe=image: no image of this shape is known; give a .png or .jpg, or a mesh")
        return seen.images
    if kind == "voxels":
        if not isinstance(seen.voxels, VoxelGrid):
            raise NifError("observe=voxels: no voxel grid of this shape is known; give a grid or a mesh")
        return seen.voxels
    raise NifError(f"observe={kind}: there are {', '.join(KINDS)}")


def thin(seen: Seen, count: int, rng: np.random.Generator, noise: float = 0.0) -> Seen:
    """At most `count` points, chosen at random, those of scans displaced by normal `noise` (in units of
    normalised space). Of samples half are inside, as far as there are."""

    def some(n: int) -> np.ndarray | slice:
        return rng.choice(n, count, replace=False) if n > count else slice(None)

    if isinstance(seen, PointSamples):
        if len(seen.points) <= count:
            return seen
        sign = seen.distance > 0 if seen.distance is not None else seen.inside
        assert sign is not None
        inside, outside = (rng.permutation(np.flatnonzero(s)) for s in (sign, ~sign))
        half = max(count // 2, count - len(outside))
        return seen.part(np.concatenate((inside[:half], outside[: count - min(half, len(inside))])))
    if not isinstance(seen, (Scan, DepthView)):
        return seen
    seen = seen.part(some(len(seen.points)))
    if isinstance(seen, DepthView):
        seen = replace(seen, free=seen.free[some(len(seen.free))])
    if noise:
        moved = seen.points + noise * rng.standard_normal(seen.points.shape)
        seen = replace(seen, points=moved.astype(np.float32))
    return seen


def keep_half(seen: Seen, side: str) -> Seen:
    """The part of an observation on one side of a plane through the origin: `side` is an axis and a sign, as
    'x+'."""
    axis, sign = "xyz".find(side[:1]), {"+": 1, "-": -1}.get(side[1:], 0)
    flat = isinstance(seen, PointSamples) and seen.colors is not None  # an image
    if axis < 0 or not side or not sign or (flat and axis > 1):
        raise NifError(
            f"keep={side}: must be one of x+, x-, y+, y-{'' if flat else ', z+, z-'}: the half that is seen"
        )
    if not isinstance(seen, (PointSamples, Scan, DepthView)):
        kind = "an image" if isinstance(seen, Images) else "a voxel grid"
        raise NifError(f"keep={side}: only points have a half that is seen, not {kind}; leave keep out")
    left = seen.part(seen.points[:, axis] * sign >= 0)
    if not len(left.points):
        raise NifError(f"keep={side}: nothing of the shape lies on that side")
    if isinstance(left, DepthView):
        left = replace(left, free=left.free[left.free[:, axis] * sign >= 0])
    return left


def depth_view(
    mesh: trimesh.Trimesh, pose: Float[np.ndarray, "3 4"], size: int = 128, fov: float = 40.0
) -> DepthView:
    """What a depth camera at `pose` (camera-to-world, OpenGL axes) sees of a mesh: points with the normals of
    their faces, turned to the camera, and points of the free space in front of them."""
    rays = pinhole_rays(torch.from_numpy(np.asarray(pose, np.float32)), size, size, fov)
    origin, direction = rays.origins.double().numpy(), rays.directions.double().numpy()
    t, normals = first_hits(mesh, origin, direction)
    hit = np.isfinite(t)
    if not hit.any():
        raise NifError("observe=depth: nothing of the shape is in view")
    return seen_by_depth(origin[hit] + t[hit, None] * direction[hit], normals[hit], rays, t)


def seen_by_depth(points: np.ndarray, normals: np.ndarray | None, rays: Rays, depth: np.ndarray) -> DepthView:
    """A depth image as an observation. Free space: five points in front of each hit, and on the rays that
    hit nothing, within the unit ball that holds the shape."""
    origin, direction = rays.origins.double().numpy(), rays.directions.double().numpy()
    middle = -(origin * direction).sum(1)
    miss = np.linalg.norm(origin + middle[:, None] * direction, axis=1)
    half = np.sqrt(np.clip(1 - miss**2, 0, None))
    first, last = np.maximum(middle - half, 0), np.minimum(middle + half, depth - 0.01)
    rng = np.random.default_rng(0)
    crossing = np.flatnonzero((half > 0) & (last > first))
    t = first[crossing] + (last - first)[crossing] * rng.random((5, len(crossing)))
    free = origin[crossing] + t[..., None] * direction[crossing]
    normals = None if normals is None else normals.astype(np.float32)
    return DepthView(points.astype(np.float32), free.reshape(-1, 3).astype(np.float32), normals)
