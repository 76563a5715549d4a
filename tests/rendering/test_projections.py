"""Projections that are undone in closed form: exact both ways, and where they see nothing there is no
number."""

import math
from dataclasses import replace

import pytest
import torch

from nif_cli.rendering.cameras import Camera, camera_directions, project, unproject

PLAIN = Camera(60, 40, 50.0, 52.0, 31.0, 19.0)
SPHERE = Camera(64, 32, 64 / (2 * math.pi), 32 / math.pi, 32.0, 16.0, projection="sphere")
LENSES = {
    "division": replace(PLAIN, projection="division", k1=-0.2),
    "division, outwards": replace(PLAIN, projection="division", k1=0.1),
    "eucm": replace(PLAIN, projection="eucm", k1=0.6, k2=1.1),
    "sphere": SPHERE,
}


@pytest.mark.parametrize("name", LENSES)
def test_what_a_projection_does_is_undone_exactly(name):
    camera = LENSES[name]
    across, down = torch.linspace(0.5, camera.width - 0.5, 25), torch.linspace(0.5, camera.height - 0.5, 17)
    pixels = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).double().reshape(-1, 2)
    local = unproject(camera.parameters.expand(len(pixels), -1), pixels, camera.kind)
    assert torch.allclose(local.norm(dim=-1), torch.ones(len(pixels)).double(), atol=1e-12)
    assert (project(camera, 3 * local) - pixels).abs().max() < 1e-9
    small = camera.resized(camera.width // 2, camera.height // 2)  # the same lens before another size
    assert torch.allclose(project(small, local), pixels / 2, atol=1e-9)


def test_without_their_numbers_they_are_the_pinhole():
    for camera in (replace(PLAIN, projection="division"), replace(PLAIN, projection="eucm", k1=0.0, k2=1.0)):
        assert torch.allclose(camera_directions(camera), camera_directions(PLAIN), atol=1e-6)


def test_a_point_of_the_division_model():
    """COLMAP: the pixel (x, y) on the plane is the direction (x, y, 1 + k r^2)."""
    camera = Camera(200, 200, 100.0, 100.0, 100.0, 100.0, projection="division", k1=-0.25)
    seen = unproject(camera.parameters, torch.tensor([180.0, 100.0]).double(), "division")
    assert torch.allclose(seen / seen[0], torch.tensor([1.0, 0.0, -(1 - 0.25 * 0.64) / 0.8]).double())


def test_a_sphere_looks_everywhere_once():
    """The middle is ahead, right of it is right, the top is up; weighted by their areas the directions
    cancel."""
    d = camera_directions(SPHERE).reshape(32, 64, 3)
    assert torch.isfinite(d).all()
    assert d[16, 32, 2] < -0.99
    assert d[16, 48, 0] > 0.99
    assert d[0, 10, 1] > 0.99
    area = torch.cos((torch.arange(32) + 0.5 - 16) / 32 * math.pi)[:, None, None]
    assert (d * area).sum((0, 1)).norm() < 1e-3 * area.sum() * 64


def test_beyond_their_reach_there_is_no_number():
    # the horizon is at sqrt(2) f
    camera = Camera(400, 10, 100.0, 100.0, 200.0, 5.0, projection="division", k1=-0.5)
    good = torch.isfinite(camera_directions(camera)).all(-1).reshape(10, 400)[5]
    assert good[60:340].all()
    assert not good[:58].any()


@pytest.mark.parametrize(
    "wrong", [{"fx": 1e300}, {"fx": 1e-300}, {"cx": 1e30}, {"k1": 1e40}, {"projection": "cube"}]
)
def test_what_no_camera_can_be(wrong):
    with pytest.raises(ValueError, match=r"focal length|principal point|distortion|projection"):
        replace(PLAIN, **wrong)
