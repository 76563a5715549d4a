"""Cameras that structure from motion has found, as a scene: turned upright, scaled, described, written in the
convention of nerfstudio."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from nif_cli.data.scenes.formats.colmap_model import Posed
from nif_cli.data.scenes.sighting import common_point
from nif_cli.rendering.camera_paths import Poses, Vector, focus
from nif_cli.rendering.cameras import Camera

PLANAR = 0.05  # the least spread of cameras, squared, that stand in a plane: as a part of the next larger
LIKELY = math.cos(math.radians(30))  # what is held up, and the plane's normal, agree as well as that
WEAK = 50  # points of an image below which its camera is not sure
LARGEST_BOX = 4  # its half side is at most 2 to that power, as of COLMAP's models


def upward(poses: Poses) -> tuple[Vector, str]:
    """Which way is up, and how that was found: across the plane that the cameras stand in, where there is one
    and it is about level; else across the cameras' x axes, which photographers hold level; else as they held
    the cameras on average."""
    held = poses[:, :, 1].mean(0)
    length = float(np.linalg.norm(held))
    held = held / length if length > 0.1 else np.array([0.0, 0.0, 1.0])
    at = poses[:, :, 3] - poses[:, :, 3].mean(0)
    spread, axes = np.linalg.eigh(at.T @ at)
    normal = axes[:, 0]
    if len(poses) >= 5 and spread[0] < PLANAR * spread[1] and abs(normal @ held) > LIKELY:
        return normal * np.sign(normal @ held), "across the plane of the cameras"
    right = poses[:, :, 0]
    spread, axes = np.linalg.eigh(right.T @ right / len(right))
    level = axes[:, 0]
    if spread[0] < 0.25 * spread[1] and spread[1] > 0.02 and abs(level @ held) > LIKELY:
        return level * np.sign(level @ held), "across the cameras' level axes"
    return held, "as the cameras were held"


def upright(poses: Poses) -> tuple[float, Float[np.ndarray, "3 3"], Vector, str]:
    """Scale, rotation and translation (x -> scale * rotation @ x + translation) to a world in which z is up,
    the first camera looks along +y, the point that all look at is the origin and the farthest camera at
    distance 1; and how up was found."""
    up, how = upward(poses)
    right = poses[0, :, 0] - (poses[0, :, 0] @ up) * up
    if np.linalg.norm(right) < 1e-3:
        right = np.cross(poses[0, :, 1], up)
    right = right / np.linalg.norm(right)
    rotation = np.stack((right, np.cross(up, right), up))
    centre = focus(poses)
    radius = float(np.linalg.norm(poses[:, :, 3] - centre, axis=1).max())
    scale = 1 / radius if radius > 0 else 1.0
    return scale, rotation, -scale * rotation @ centre, how


def half_side(points: Float[np.ndarray, "P 3"]) -> float:
    """Half the side of the box that holds 99 % of the points: a power of two."""
    if not len(points):
        return 4.0
    far = float(np.quantile(np.abs(points).max(1), 0.99))
    return float(2.0 ** np.clip(math.ceil(math.log2(max(far, 1e-3))), 0, LARGEST_BOX))


def transforms(
    cameras: dict[int, Camera], posed: list[Posed], half: float, masks: dict[str, str]
) -> dict[str, Any]:
    """transforms.json in nerfstudio's convention; `aabb_scale`, as of instant-ngp, is half the side of the
    box. `masks`: of images by name, paths in the scene's folder."""
    used = {p.camera for p in posed}
    common = lens(cameras[next(iter(used))]) if len(used) == 1 else {"camera_model": "OPENCV"}
    frames = []
    for image in sorted(posed, key=lambda p: p.name):
        frame: dict[str, Any] = {"file_path": f"images/{image.name}"}
        if len(used) > 1:
            frame |= lens(cameras[image.camera])
        if image.name in masks:
            frame["mask_path"] = masks[image.name]
        frame["transform_matrix"] = [*image.pose.tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append(frame)
    return {**common, "aabb_scale": half, "ply_file_path": "points.ply", "frames": frames}


def lens(camera: Camera) -> dict[str, Any]:
    """Its keys in transforms.json."""
    model = "OPENCV_FISHEYE" if camera.fisheye else "OPENCV"
    names = ("k1", "k2", "k3", "k4") if camera.fisheye else ("k1", "k2", "k3", "p1", "p2")
    bent = {name: getattr(camera, name) for name in names}
    return {
        "camera_model": model,
        "w": camera.width,
        "h": camera.height,
        **{"fl_x": camera.fx, "fl_y": camera.fy, "cx": camera.cx, "cy": camera.cy},
        **bent,
    }


def spanned(posed: list[Posed]) -> dict[str, Any]:
    """How far around the cameras stand, in degrees, in a world whose z is up: "around", "from" and "to"
    (heights), and the largest gap between neighbours with their names, where the cameras look at something
    together; else "turned" only, the largest angle between two of their directions."""
    poses = np.stack([p.pose for p in posed])
    back = poses[:, :, 2]
    turned = float(np.degrees(np.arccos(np.clip((back @ back.T).min(), -1, 1))))
    centre = common_point(poses)
    if centre is None:
        return {"turned": round(turned, 1)}
    away = poses[:, :, 3] - centre
    azimuth = np.degrees(np.arctan2(away[:, 1], away[:, 0])) % 360
    height = np.degrees(np.arctan2(away[:, 2], np.hypot(away[:, 0], away[:, 1])))
    order = np.argsort(azimuth, kind="stable")
    gaps = np.diff(azimuth[order], append=azimuth[order[0]] + 360)
    k = int(gaps.argmax())
    beside = [posed[order[k]].name, posed[order[(k + 1) % len(order)]].name]
    return {
        "turned": round(turned, 1),
        "around": round(360 - float(gaps[k]), 1),
        "from": round(float(height.min()), 1),
        "to": round(float(height.max()), 1),
        "gap": round(float(gaps[k]), 1),
        "beside": beside,
    }


def advice(
    span: dict[str, Any], points: dict[str, int], left_out: dict[str, str], blurred: list[str]
) -> list[str]:
    """What to photograph more; `points`: how many tie each image to the others."""
    found = []
    if left_out:
        found.append(
            f"{len(left_out)} photographs have no camera (left_out says why): more between them and others"
        )
    around, beside = span.get("around"), " and ".join(span.get("beside", []))
    if around is None and span["turned"] < 10:
        found.append("the cameras look the same way: steps to the side make depths surer")
    elif around is not None and around < 180:
        found.append(f"seen from one side ({around:.0f} degrees): its back needs photographs from there")
    elif around is not None and span["gap"] > 30:
        found.append(f"a gap of {span['gap']:.0f} degrees between {beside}: photograph from there")
    if around is not None and around > 90 and span["to"] - span["from"] < 15:
        found.append(
            f"all from about {span['to']:.0f} degrees above the horizon: add a round from another height"
        )
    weak = sorted((n for n, count in points.items() if count < WEAK), key=lambda n: points[n])
    if weak:
        found.append(f"{len(weak)} are weakly tied to the others ({', '.join(weak[:5])}): more beside them")
    if blurred:
        found.append(
            f"{len(blurred)} are blurred beside the others ({', '.join(blurred[:5])}): take them again"
        )
    return found
