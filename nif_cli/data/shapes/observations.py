"""What a model gets to see of a new shape, made from meshes and samples.

Kinds of observation (`observe=`): samples (points in space with their signed distance, or whether they are
inside), oriented (a scan with normals), points (a bare scan), depth (one view of a depth camera), image (a
picture), voxels (a grid).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.datamodule import ConditioningSpec
from nif_cli.data.shapes.conditioning import DISTANCE, mesh_images, mesh_voxels
from nif_cli.data.shapes.samples import Observation, ShapeSamples
from nif_cli.geometry.distance import first_hits, signed_samples
from nif_cli.geometry.sampling import sample_surface
from nif_cli.geometry.transform import SPACES
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.rays import Rays, pinhole_rays

KINDS = ("samples", "oriented", "points", "depth", "image", "voxels")
SPREAD, UNIFORM = (0.0707, 0.0224), 0.06  # DeepSDF's samples: around the surface, and anywhere


def known(shape: ShapeSamples) -> Observation:
    """All that a shape's samples show of it."""
    seen = shape.observation or Observation()
    surface, normals = (
        (seen.points, seen.normals) if seen.points is not None else (shape.surface, shape.normals)
    )
    has = len(shape.points) > 0
    return replace(
        seen,
        points=None if surface is None or not len(surface) else surface,
        normals=None if normals is None or not len(normals) else normals,
        samples=shape.points if has else None,
        distance=shape.distance if has else None,
        inside=shape.inside if has else None,
    )


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
        return Observation(samples=points, distance=distance)
    if kind in ("oriented", "points"):
        points, normals = sample_surface(mesh, count, rng)
        return Observation(
            points.astype(np.float32), normals.astype(np.float32) if kind == "oriented" else None
        )
    if kind == "depth":
        return thin(depth_view(mesh, turntable(8)[pose % 8].numpy()), count, rng)
    if kind == "image" and look is not None:
        poses = turntable(8, distance=DISTANCE[space])[[pose % 8]]
        return Observation(pixels=mesh_images(mesh, poses, look.size))
    if kind == "voxels" and look is not None:
        return Observation(occupied=mesh_voxels(mesh, SPACES[space][1], look.size))
    raise NifError(f"observe={kind}: no such observation of a mesh; there are {', '.join(KINDS)}")


def show(
    seen: Observation, kind: str, count: int, rng: np.random.Generator, noise: float = 0.0
) -> Observation:
    """Of all that is known of a shape only what `kind` shows: `count` points, scans displaced by normal
    `noise` (in units of normalised space). NifError says what the shape lacks."""
    if kind == "samples":
        if seen.samples is None:
            raise NifError(
                "observe=samples: no points with distances or occupancies are known; observe=oriented or "
                "points?"
            )
        shown = Observation(samples=seen.samples, distance=seen.distance, inside=seen.inside)
    elif kind in ("oriented", "points"):
        if seen.points is None or (kind == "oriented" and seen.normals is None):
            lacks = "points on the surface" if seen.points is None else "normals"
            raise NifError(f"observe={kind}: no {lacks} are known of this shape; observe=samples?")
        shown = Observation(seen.points, seen.normals if kind == "oriented" else None)
    elif kind == "depth":
        if seen.free is None or seen.points is None:
            raise NifError("observe=depth: it takes a mesh or a depth picture; observe=points?")
        shown = Observation(seen.points, seen.normals, free=seen.free)
    elif kind == "image":
        if seen.pixels is None:
            raise NifError("observe=image: no picture of this shape is known; give a .png or .jpg, or a mesh")
        return Observation(pixels=seen.pixels)
    elif kind == "voxels":
        if seen.occupied is None:
            raise NifError("observe=voxels: no voxel grid of this shape is known; give a grid or a mesh")
        return Observation(occupied=seen.occupied)
    else:
        raise NifError(f"observe={kind}: there are {', '.join(KINDS)}")
    shown = thin(shown, count, rng)
    if noise and shown.points is not None:
        shown.points = (shown.points + noise * rng.standard_normal(shown.points.shape)).astype(np.float32)
    return shown


def thin(seen: Observation, count: int, rng: np.random.Generator) -> Observation:
    """At most `count` points of each kind, chosen at random. Of signed samples half are inside, as far as
    there are."""

    def some(n: int) -> np.ndarray | slice:
        return rng.choice(n, count, replace=False) if n > count else slice(None)

    chosen = some(len(seen.points)) if seen.points is not None else slice(None)
    among = slice(None)
    if seen.samples is not None and len(seen.samples) > count:
        sign = seen.distance > 0 if seen.distance is not None else seen.inside
        assert sign is not None
        inside, outside = (rng.permutation(np.flatnonzero(s)) for s in (sign, ~sign))
        half = max(count // 2, count - len(outside))
        among = np.concatenate((inside[:half], outside[: count - min(half, len(inside))]))
    return replace(
        seen,
        points=None if seen.points is None else seen.points[chosen],
        normals=None if seen.normals is None else seen.normals[chosen],
        samples=None if seen.samples is None else seen.samples[among],
        distance=None if seen.distance is None else seen.distance[among],
        inside=None if seen.inside is None else seen.inside[among],
        free=None if seen.free is None else seen.free[some(len(seen.free))],
    )


def keep_half(seen: Observation, side: str) -> Observation:
    """The part of an observation on one side of a plane through the origin: `side` is an axis and a sign, as
    'x+'."""
    axis, sign = "xyz".find(side[:1]), {"+": 1, "-": -1}.get(side[1:], 0)
    flat = seen.colors is not None  # a picture
    if axis < 0 or not side or not sign or (flat and axis > 1):
        raise NifError(
            f"keep={side}: must be one of x+, x-, y+, y-{'' if flat else ', z+, z-'}: the half that is seen"
        )

    def half(points: np.ndarray | None, *others: np.ndarray | None) -> list[np.ndarray | None]:
        if points is None:
            return [None, *others]
        inside = points[:, axis] * sign >= 0
        return [None if a is None else a[inside] for a in (points, *others)]

    points, normals = half(seen.points, seen.normals)
    samples, distance, inside, colors = half(seen.samples, seen.distance, seen.inside, seen.colors)
    (free,) = half(seen.free)
    left = Observation(points, normals, samples, distance, inside, free, colors)
    if not any(a is not None and len(a) for a in (points, samples)):
        raise NifError(f"keep={side}: nothing of the shape lies on that side")
    return left


def depth_view(
    mesh: trimesh.Trimesh, pose: Float[np.ndarray, "3 4"], size: int = 128, fov: float = 40.0
) -> Observation:
    """What a depth camera at `pose` (camera-to-world, OpenGL axes) sees of a mesh: points with the normals of
    their faces, turned to the camera, and points of the free space in front of them."""
    rays = pinhole_rays(torch.from_numpy(np.asarray(pose, np.float32)), size, size, fov)
    origin, direction = rays.origins.double().numpy(), rays.directions.double().numpy()
    t, normals = first_hits(mesh, origin, direction)
    hit = np.isfinite(t)
    if not hit.any():
        raise NifError("observe=depth: nothing of the shape is in view")
    return seen_by_depth(origin[hit] + t[hit, None] * direction[hit], normals[hit], rays, t)


def seen_by_depth(
    points: np.ndarray, normals: np.ndarray | None, rays: Rays, depth: np.ndarray
) -> Observation:
    """A depth picture as an observation. Free space: five points in front of each hit, and on the rays that
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
    return Observation(points.astype(np.float32), normals, free=free.reshape(-1, 3).astype(np.float32))
