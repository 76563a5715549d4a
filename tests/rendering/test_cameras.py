"""Lenses: undoing what they do is exact; NDC are those of the published code."""

import math
from dataclasses import replace

import pytest
import torch

from nif_cli.rendering.camera_paths import look_from
from nif_cli.rendering.cameras import Camera, camera_directions, camera_rays, distorted, project, unproject
from nif_cli.rendering.ndc import Ndc
from nif_cli.rendering.rays import Rays, pinhole_rays

PLAIN = Camera(60, 40, 50.0, 52.0, 31.0, 19.0)
LENSES = {
    "pinhole": PLAIN,
    "radial": replace(PLAIN, k1=0.06, k2=-0.08),
    "opencv": replace(PLAIN, k1=0.0578, k2=-0.0805, p1=-0.00098, p2=0.00016),
    "full": replace(PLAIN, k1=0.2, k2=0.05, k3=0.01, k4=0.12, k5=0.03, k6=0.002, p1=0.003, p2=-0.002),
    "fisheye": replace(PLAIN, fx=25.0, fy=25.0, k1=-0.02, k2=0.004, k3=-0.001, k4=0.0001, fisheye=True),
}


@pytest.mark.parametrize("name", LENSES)
def test_what_a_lens_does_is_undone_exactly(name):
    camera = LENSES[name]
    grid = torch.stack(
        torch.meshgrid(torch.linspace(0, 60, 25), torch.linspace(0, 40, 17), indexing="xy"), -1
    ).double()
    pixels = grid.reshape(-1, 2)
    local = unproject(camera.parameters.expand(len(pixels), -1), pixels, camera.fisheye)
    assert torch.allclose(local.norm(dim=-1), torch.ones(len(pixels)).double(), atol=1e-12)
    assert (project(camera, 3 * local) - pixels).abs().max() < 1e-9
    single = unproject(camera.parameters.float().expand(len(pixels), -1), pixels.float(), camera.fisheye)
    assert (single - local).norm(dim=-1).max() < 3e-6  # a 10,000th of a pixel


def test_the_jacobian_of_a_lens_is_its_derivative():
    camera, xy = LENSES["full"], torch.tensor([[0.3, -0.2], [0.0, 0.1]], dtype=torch.float64)
    _, jacobian = distorted(camera.parameters.expand(2, -1), xy)
    for n, point in enumerate(xy):
        there = torch.autograd.functional.jacobian(lambda p: distorted(camera.parameters, p)[0], point)
        assert torch.allclose(jacobian[n], there, atol=1e-12)


def test_opencvs_numbers():
    """k1, k2 of the radius squared, p1 and p2 as OpenCV's documentation has them."""
    p = Camera(10, 10, 1.0, 1.0, 0.0, 0.0, k1=0.1, k2=0.01, p1=0.001, p2=0.002).parameters
    x, y = 0.5, -0.25
    r = x * x + y * y
    to, _ = distorted(p, torch.tensor([x, y], dtype=torch.float64))
    radial = 1 + 0.1 * r + 0.01 * r * r
    assert to[0] == pytest.approx(x * radial + 2 * 0.001 * x * y + 0.002 * (r + 2 * x * x))
    assert to[1] == pytest.approx(y * radial + 0.001 * (r + 2 * y * y) + 2 * 0.002 * x * y)


def test_an_equidistant_fisheye_sees_angles():
    camera = Camera(200, 200, 100.0, 100.0, 100.0, 100.0, fisheye=True)
    seen = unproject(camera.parameters, torch.tensor([100 + 100 * math.pi / 3, 100.0]).double(), True)
    assert torch.allclose(seen, torch.tensor([math.sin(math.pi / 3), 0, -0.5]).double())
    middle = unproject(camera.parameters, torch.tensor([100.0, 100.0]).double(), True)
    assert torch.allclose(middle, torch.tensor([0.0, 0, -1]).double())


def test_where_a_lens_sees_nothing_there_is_no_number():
    """k1 = -0.5 folds at r^2 = 2/3, where it has come to 0.54 of the focal length."""
    camera = Camera(200, 10, 100.0, 100.0, 100.0, 5.0, k1=-0.5)
    directions = camera_directions(camera).reshape(10, 200, 3)[5]
    good = torch.isfinite(directions).all(-1)
    assert good[50:150].all()
    assert not good[:40].any()
    assert not good[160:].any()


def test_without_distortion_it_is_the_pinhole_camera():
    pose = look_from(torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, 0.0]))
    focal = 0.5 * 6 / math.tan(math.radians(40) / 2)
    mine, theirs = camera_rays(pose, Camera(8, 6, focal, focal, 4.0, 3.0)), pinhole_rays(pose, 8, 6, 40.0)
    assert torch.allclose(mine.directions, theirs.directions, atol=1e-6)
    assert torch.equal(mine.origins, theirs.origins)


def test_another_size_looks_the_same_way():
    small, large = camera_directions(PLAIN.resized(30, 20)), camera_directions(PLAIN)
    middle = large.reshape(20, 2, 30, 2, 3).mean((1, 3)).reshape(-1, 3)
    assert (torch.nn.functional.normalize(middle, dim=-1) - small).norm(dim=-1).max() < 1e-4


@pytest.mark.parametrize("wrong", [{"fx": 0.0}, {"fy": float("nan")}, {"width": 0}, {"k1": math.inf}])
def test_impossible_cameras_are_refused(wrong):
    with pytest.raises(ValueError, match=r"image|focal"):
        replace(PLAIN, **wrong)


# normalised device coordinates


def published(height, width, focal, near, rays_o, rays_d):
    """ndc_rays of the published NeRF code, in torch."""
    t = -(near + rays_o[..., 2]) / rays_d[..., 2]
    rays_o = rays_o + t[..., None] * rays_d
    o0 = -1.0 / (width / (2.0 * focal)) * rays_o[..., 0] / rays_o[..., 2]
    o1 = -1.0 / (height / (2.0 * focal)) * rays_o[..., 1] / rays_o[..., 2]
    o2 = 1.0 + 2.0 * near / rays_o[..., 2]
    d0 = -1.0 / (width / (2.0 * focal)) * (rays_d[..., 0] / rays_d[..., 2] - rays_o[..., 0] / rays_o[..., 2])
    d1 = -1.0 / (height / (2.0 * focal)) * (rays_d[..., 1] / rays_d[..., 2] - rays_o[..., 1] / rays_o[..., 2])
    d2 = -2.0 * near / rays_o[..., 2]
    return torch.stack([o0, o1, o2], -1), torch.stack([d0, d1, d2], -1)


def forward_rays():
    torch.manual_seed(1)
    origins = 0.2 * torch.randn(50, 3)
    directions = torch.nn.functional.normalize(
        torch.randn(50, 3) * torch.tensor([0.3, 0.3, 0.1]) + torch.tensor([0, 0, -1.0])
    )
    return Rays(origins, directions)


def test_ndc_rays_are_the_published_ones():
    rays = forward_rays()
    ndc = Ndc(torch.eye(3, 4), (60 / (2 * 50.0), 40 / (2 * 50.0)))
    mine = ndc.rays(rays)
    origins, directions = published(40, 60, 50.0, 1.0, rays.origins, rays.directions)
    assert torch.allclose(mine.origins, origins, atol=1e-5)
    assert torch.allclose(mine.directions, directions, atol=1e-5)
    assert torch.equal(mine.views, rays.directions)  # colours depend on the direction in the world


def test_ndc_go_from_the_near_plane_to_infinity_and_back_to_the_world():
    rays = forward_rays()
    pose = look_from(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))
    moved = Rays(rays.origins @ pose[:, :3].T + pose[:, 3], rays.directions @ pose[:, :3].T)
    ndc = Ndc(pose, (0.6, 0.4))
    found = ndc.rays(moved)
    assert torch.allclose(found.origins[:, 2], -torch.ones(50), atol=1e-5)
    assert torch.allclose((found.origins + found.directions)[:, 2], torch.ones(50), atol=1e-5)
    for t in (0.0, 0.3, 0.8):
        world = ndc.to_world(found.origins + t * found.directions)
        away = torch.linalg.cross(world - moved.origins, moved.directions).norm(dim=-1)
        assert (away / (world - moved.origins).norm(dim=-1)).max() < 1e-4  # on the ray still
