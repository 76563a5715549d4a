"""The visual hull holds the object, and little else."""

from __future__ import annotations

import numpy as np
import torch

from nif_cli.data.scenes.scene import View
from nif_cli.data.scenes.visual_hull import visual_hull
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.cameras import Camera, camera_rays
from nif_cli.rendering.occupancy_grid import OccupancyGrid

RADIUS = 0.4


def ball(pose: torch.Tensor, camera: Camera) -> np.ndarray:
    """An image of a ball with alpha."""
    rays = camera_rays(pose, camera)
    nearest = rays.origins - (rays.origins * rays.directions).sum(1, keepdim=True) * rays.directions
    alpha = (nearest.norm(dim=1) < RADIUS).numpy().astype(np.uint8) * 255
    return np.repeat(alpha.reshape(camera.height, camera.width, 1), 4, 2)


def test_the_hull_of_a_ball():
    camera = Camera(120, 100, 130.0, 130.0, 60.0, 50.0)
    poses = [p for elevation in (-60, -20, 20, 60) for p in turntable(6, elevation)]
    views = [View(str(n), p, camera, lambda p=p: ball(p, camera)) for n, p in enumerate(poses)]
    for cascades in (1, 2):
        grid = OccupancyGrid(64, cascades)
        kept = visual_hull(grid, views)
        distance = grid.centres(torch.arange(kept.numel())).view(*kept.shape, 3).norm(dim=-1)
        assert kept[0][distance[0] < RADIUS].all()
        assert not kept[0][distance[0] > 1.35 * RADIUS].any()


def test_opaque_images_carve_nothing():
    camera = Camera(20, 20, 20.0, 20.0, 10.0, 10.0)
    view = View("a", turntable(1)[0], camera, lambda: np.zeros((20, 20, 3), np.uint8))
    assert visual_hull(OccupancyGrid(16), [view]).all()
