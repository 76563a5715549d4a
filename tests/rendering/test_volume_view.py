"""Photographs of analytic radiance fields: depths in the user's units, opacity and normals where the surface
is."""

import numpy as np
import pytest
import torch

from nif_cli.rendering.camera_paths import look_from
from nif_cli.rendering.cameras import Camera
from nif_cli.rendering.ndc import Ndc
from nif_cli.rendering.ray_samples import dense
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.volume import Once
from nif_cli.rendering.volume_view import photograph

CAMERA = Camera(15, 11, 20.0, 20.0, 7.5, 5.5)
POSE = look_from(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))


class Fog:
    """Density 1000 inside `inside`, coloured (1, 1/2, 0); 400 even samples a ray."""

    level, truncation = 500.0, 0.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def __init__(self, inside):
        self.inside = inside

    def value(self, points):
        return 1000.0 * self.inside(points).to(points)

    def radiance(self, points, directions, samples):
        return self.value(points), torch.tensor([1.0, 0.5, 0.0]).expand_as(points)

    def color(self, points, directions=None):
        return torch.tensor([1.0, 0.5, 0.0]).expand_as(points)

    def march(self, rays: Rays, near, far, generator=None):
        t = near[:, None] + (far - near)[:, None] * (torch.arange(400) + 0.5) / 400
        return Once(
            dense(t, ((far - near)[:, None] / 400 * rays.directions.norm(dim=-1, keepdim=True)).expand_as(t))
        )


def ball(points):
    return points.norm(dim=-1) < 0.5


def test_a_ball_half_a_unit_before_its_centre():
    made = photograph(Fog(ball), POSE, CAMERA, 2.0, 4.0, background="white", scale=0.1, normals=True)
    # 2.5 of normalised space are 25 of the user's units
    assert made.depth[5, 7] == pytest.approx(25, abs=0.1)
    assert made.opacity[5, 7] == pytest.approx(1, abs=1e-4)
    assert made.color[5, 7].tolist() == pytest.approx([1, 0.5, 0], abs=1e-3)
    assert made.normals is not None
    assert torch.allclose(made.normals[5, 7], torch.tensor([0.0, 0, 1]), atol=0.05)  # towards the camera
    assert made.opacity[0, 0] == 0
    assert made.depth[0, 0] == torch.inf
    assert made.color[0, 0].tolist() == [1, 1, 1]
    assert made.image("depth").shape == (11, 15, 3)
    assert made.image("normal")[5, 7, 2] > 240
    assert (made.image("normal")[0, 0] == 255).all()
    assert (made.image("opacity")[0, 0] == 0).all()
    assert made.values("depth").dtype == np.float32


def test_depths_of_ndc_are_lengths_in_the_world():
    """A wall at z = -4 before a camera at the origin, in NDC."""
    ndc = Ndc(torch.eye(3, 4), (0.4, 0.3))
    wall = Fog(lambda p: ndc.to_world(p)[..., 2] < -4)
    made = photograph(wall, torch.eye(3, 4), CAMERA, 0.0, 1.0, ndc=ndc, scale=0.5)
    v, u = torch.meshgrid(torch.arange(11) + 0.5, torch.arange(15) + 0.5, indexing="ij")
    slant = torch.sqrt(1 + ((u - 7.5) / 20) ** 2 + ((v - 5.5) / 20) ** 2)
    assert torch.allclose(made.depth, 4 * slant / 0.5, rtol=0.02)
    assert (made.opacity > 0.999).all()


def test_what_a_lens_does_not_see_is_background():
    folded = Camera(200, 3, 100.0, 100.0, 100.0, 1.5, k1=-0.5)
    made = photograph(Fog(lambda p: p.norm(dim=-1) < 10), POSE, folded, 2.0, 4.0, background="white")
    assert made.color[1, 0].tolist() == [1, 1, 1]
    assert made.opacity[1, 0] == 0
    assert made.opacity[1, 100] > 0.99
