"""Photographs of a corner of papered walls, by numpy alone: texture enough for features, cameras known."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image

from nif_cli.rendering.camera_paths import looking

SIZE, FOCAL = (320, 240), 300.0
# a point of each plane, its two sides, how far along them it reaches (from the point, both ways)
PLANES = (
    ([0, 0, -1], [1, 0, 0], [0, 1, 0], 3.0),
    ([0, 1.6, 0], [1, 0, 0], [0, 0, 1], 3.0),
    ([-1.6, 0, 0], [0, 1, 0], [0, 0, 1], 3.0),
    ([0.3, 0.2, -0.2], [0.8, 0.6, 0], [0, 0, 1], 0.5),
)


@functools.cache
def paper(seed: int, cells: int = 96) -> np.ndarray:
    """Noise of several sizes, smooth between: [N, N, 3] in 0 .. 255."""
    rng, made = np.random.default_rng(seed), np.zeros((6 * cells, 6 * cells, 3))
    for k in (1, 2, 6):
        noise = rng.uniform(0, 255, (cells // k, cells // k, 3)).astype(np.uint8)
        made += np.asarray(Image.fromarray(noise).resize((6 * cells, 6 * cells), Image.Resampling.BICUBIC))
    return made / 3


def around(count: int, azimuth: tuple[float, float] = (-75, 5), distance: float = 3.2) -> np.ndarray:
    """Poses [V, 3, 4], OpenGL axes, z up, that look at the corner from heights that alternate."""
    poses = []
    for k, angle in enumerate(np.radians(np.linspace(*azimuth, count))):
        height = math.radians((12, 28, 20)[k % 3])
        back = [math.cos(angle) * math.cos(height), math.sin(angle) * math.cos(height), math.sin(height)]
        centre = np.array([0.0, 0.2, -0.2])
        poses.append(looking(centre + distance * np.array(back), np.array(back), np.array([0.0, 0.0, 1.0])))
    return np.stack(poses)


def turning(count: int) -> np.ndarray:
    """Poses that turn on the spot."""
    at, up = np.array([1.6, -1.6, 0.3]), np.array([0.0, 0.0, 1.0])
    angles = np.radians(np.linspace(-60, -30, count))
    return np.stack([looking(at, np.array([math.cos(a), math.sin(a), 0.1]), up) for a in angles])


def photograph(pose: np.ndarray, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]."""
    width, height = SIZE
    v, u = np.mgrid[:height, :width] + 0.5
    local = np.stack(((u - width / 2) / FOCAL, -(v - height / 2) / FOCAL, -np.ones_like(u)), -1)
    rays = local @ pose[:, :3].T
    best, color = np.full((height, width), np.inf), np.full((height, width, 3), 230.0)
    for k, (point, a, b, reach) in enumerate(PLANES):
        point, a, b = (np.asarray(x, float) for x in (point, a, b))
        normal = np.cross(a, b)
        with np.errstate(divide="ignore"):
            t = ((point - pose[:, 3]) @ normal) / (rays @ normal)
        there = pose[:, 3] + t[..., None] * rays - point
        x, y = there @ a, there @ b
        hit = (t > 0) & (t < best) & (abs(x) < reach) & (abs(y) < reach)
        texture = paper(10 * seed + k)
        n = len(texture)
        col = np.clip((x[hit] / reach + 1) / 2 * n, 0, n - 1).astype(int)
        row = np.clip((y[hit] / reach + 1) / 2 * n, 0, n - 1).astype(int)
        color[hit], best[hit] = texture[row, col], t[hit]
    return color.clip(0, 255).astype(np.uint8)


def write(folder: Path, poses: np.ndarray, seed: int = 0) -> None:
    """JPEG files 00.jpg, 01.jpg, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, pose in enumerate(poses):
        Image.fromarray(photograph(pose, seed)).save(folder / f"{k:02d}.jpg", quality=92)


def aligned(found: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation that take places [V, 3] to others best (Umeyama 1991)."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation, scale = u @ sign @ vt, float(np.trace(np.diag(s) @ sign) / (a * a).sum())
    return scale, rotation, truth.mean(0) - scale * rotation @ found.mean(0)
