"""Whether cameras can see what they are said to see, found before anything is trained: how many rays meet the
scene's box, and where the cameras look."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.scene import Scene
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.camera_paths import Poses, Vector, focus
from nif_cli.rendering.cameras import camera_rays, unproject
from nif_cli.rendering.rays import Rays, box_entry

NONE, FEW = 0.005, 1 / 3  # shares of the rays below which training cannot work, and below which one is told
# of the cameras' distance: how close to a point their axes pass, for it to be what they have in common
TOGETHER = 0.3


def common_point(poses: Poses) -> Vector | None:
    """The point that the axes of nearly all cameras pass; None where there is none (parallel ones, few, a
    walk)."""
    if len(poses) < 3:
        return None
    centre, along, at = focus(poses), poses[:, :, 2], poses[:, :, 3]
    to = centre - at
    distance = np.linalg.norm(to, axis=1)
    if not np.median(distance) > 1e-9 * max(1.0, float(abs(at).max())):
        return None
    aside = np.linalg.norm(to - (to * along).sum(1, keepdims=True) * along, axis=1)
    parallel = np.linalg.norm(along.mean(0)) > 0.999
    return centre if np.median(aside) < TOGETHER * np.median(distance) and not parallel else None


def looks_away(poses: Poses) -> bool:
    """Whether the cameras have a point in common and nearly all look away from it: so do cameras whose y and
    z axes are turned round, and those of one who stands in the middle of a room."""
    centre = common_point(poses)
    return (
        centre is not None and float((((centre - poses[:, :, 3]) * -poses[:, :, 2]).sum(1) < 0).mean()) > 0.95
    )


def distances(poses: Poses) -> Float[np.ndarray, "V"] | None:
    """How far each camera is from the point in common."""
    centre = common_point(poses)
    return None if centre is None else np.linalg.norm(poses[:, :, 3] - centre, axis=1)


def aimed(poses: Poses, transform: Transform, half: float) -> bool:
    """Whether the box +-half of normalised space is where and as large as these cameras want it: most of
    their axes pass through it, and where they stand around something it is neither a speck nor everything."""
    at, along = transform.to_normalised(poses[:, :, 3]), poses[:, :, 2]
    axes, box = Rays(torch.from_numpy(at), torch.from_numpy(along)), torch.tensor([[-half] * 3, [half] * 3])
    first, last = box_entry(axes, box.double(), near=-math.inf)
    if float((first < last).double().mean()) < 0.5:
        return False
    away = distances(poses)
    if away is None or looks_away(poses):
        return True
    typical = float(np.median(away)) * transform.scale
    return 0.1 < typical < 16 * half


def share_of_rays(scene: Scene, views: int = 64, rays: int = 128) -> float:
    """The share of the training rays that meet the scene's box between its near and far."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for view in scene.train[:: max(1, len(scene.train) // views)]:
        pixel = torch.rand(rays, 2, generator=generator, dtype=torch.float64)
        pixel = pixel * torch.tensor([view.camera.width, view.camera.height])
        local = unproject(view.camera.parameters.expand(rays, -1), pixel, view.camera.kind)
        local = local[torch.isfinite(local).all(1)]
        if not len(local):
            continue
        there = camera_rays(view.pose, view.camera, scene.ndc, local)
        first, last = box_entry(there, scene.bounds, scene.near, scene.far)
        found.append((first < last).float())
    return float(torch.cat(found).mean()) if found else 0.0


def blind(scene: Scene, across: int = 65) -> Report:
    """What there is to say of pixels to which a lens sends no direction, corners included; nothing where
    there are none. NifError for a lens that sends one to none."""
    notes = []
    views = sorted((*scene.train, *scene.test), key=lambda view: view.name, reverse=True)
    first = {view.camera: view.name for view in views}
    for camera, name in first.items():
        rows, columns = (
            torch.linspace(0.5, n - 0.5, min(n, across), dtype=torch.float64)
            for n in (camera.height, camera.width)
        )
        pixels = torch.cartesian_prod(columns, rows)
        found = torch.isfinite(unproject(camera.parameters.expand(len(pixels), -1), pixels, camera.kind)).all(
            1
        )
        if bool(found.all()):
            continue
        share = 1 - float(found.double().mean())
        terms = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
        lens = (
            ", ".join(f"{k} {getattr(camera, k):g}" for k in terms if getattr(camera, k))
            or f"f {camera.fx:g}"
        )
        if share == 1:
            raise NifError(
                f"{scene.id}: the {camera.kind} lens of {name} ({lens}) sends no light to any pixel"
            )
        notes.append(
            f"{max(share, 0.001):.1%} of the pixels of {name} have no direction by its {camera.kind} lens "
            f"({lens})"
        )
    if not notes:
        return Report()
    more = f", and so in {len(notes) - 1:,} other lenses" if len(notes) > 1 else ""
    # a fisheye's corners are black
    doubtful = "" if all(camera.kind == "fisheye" for camera in first) else "doubtful: "
    return doubt(f"; {doubtful}{notes[0]}{more}: they are left out")


def sighted(scene: Scene, keys: str, axes: str | None) -> Report:
    """What there is to say of a scene before training; nothing where all is well. `keys` name what moves or
    scales its box, `axes` what its cameras' axes were taken for, where another choice is open. NifError where
    no ray meets the box."""
    lenses = blind(scene)
    if scene.ndc is not None or not scene.train:
        return lenses
    poses = np.stack([v.pose.double().numpy() for v in scene.train])
    notes = []
    if axes is not None and looks_away(poses):
        other, why = ("opencv", "y down, z ahead") if axes == "opengl" else ("opengl", "y up, z back")
        notes.append(
            f"all cameras look away from the point that they stand around; if their axes are {why}, "
            f"data.axes={other} turns them"
        )
    unit = 1 / scene.transform.scale
    away = distances(poses)
    if away is not None and scene.near > float(np.median(away)):
        notes.append(
            f"near is {scene.near * unit:.3g}, but the cameras look at something "
            f"{np.median(away) * unit:.3g} away"
        )
    share = share_of_rays(scene)
    if share < FEW:
        middle = scene.transform.to_original(scene.bounds.mean(0).numpy())
        half = float((scene.bounds[1] - scene.bounds[0]).max()) / 2 * unit
        point = common_point(poses)
        where = poses[:, :, 3].mean(0) if point is None else point
        what = "cameras stand about" if point is None else "cameras look at"
        box = f"+-{half:.3g} about {_place(middle)}, {scene.near * unit:.3g} to {scene.far * unit:.3g} away"
        there = f"{what} {_place(scene.transform.to_original(where))}"
        notes.append(
            f"{_percent(share)} of the training rays meet its box ({box}), while the {there}: see {keys}"
        )
    if share < NONE:
        raise NifError(f"{scene.id}: nothing can be learned: {'; '.join(reversed(notes))}")
    return sum((doubt(f"; doubtful: {note}") for note in notes), lenses)


def _percent(share: float) -> str:
    return f"only {share:.0%}" if share >= 0.01 else f"{share:.1%}" if share else "none"


def _place(point: Vector) -> str:
    return f"({', '.join(f'{x:.4g}' for x in point)})"
