"""What a camera sees of a ball: colour, normals, depth, opacity; where light does not arrive."""

import math

import numpy as np
import pytest
import torch

from nif_cli.rendering.camera_paths import look_from, turntable
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.images import drawn
from nif_cli.rendering.rays import Rays, pinhole_rays, rays_through
from nif_cli.rendering.shading import occlusion, shadow, studio
from nif_cli.rendering.sphere_tracing import sphere_trace
from nif_cli.rendering.surface_view import framing, surface_view


def test_channels_of_a_ball(ball):
    pose = look_from(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))
    view = surface_view(ball(0.6), pose, 33)
    assert float(view.depth[16, 16]) == pytest.approx(2.4, abs=1e-3)
    assert view.normal[16, 16].tolist() == pytest.approx([0, 0, 1], abs=1e-2)
    seen = torch.isfinite(view.depth)
    assert torch.equal(seen, view.normal.norm(dim=-1) > 0.5)
    assert ((view.opacity > 0) & (view.opacity < 1)).any()  # edges are smooth
    assert (view.opacity[view.opacity == 0].numel() + view.opacity[view.opacity == 1].numel()) > 0.8 * 33 * 33
    assert (view.rgb[view.opacity == 0] == 1).all()
    disc = (0.6 / math.sqrt(9 - 0.36) / math.tan(math.radians(20))) ** 2 * math.pi / 4
    assert float(view.opacity.mean()) == pytest.approx(disc, rel=0.02)


def test_smooth_edges_are_those_of_many_rays(ball):
    """Few rays more where the image is uneven, against many everywhere."""
    pose = turntable(1)[0]
    few, many = (
        surface_view(ball(0.6), pose, 24, antialias=3).rgb,
        surface_view(ball(0.6), pose, 72, antialias=1).rgb,
    )
    assert (few - many.reshape(24, 3, 24, 3, 3).mean((1, 3))).abs().max() < 0.03


class Wire:
    """A rod along (1, 0.2, 0), a third of a pixel thick."""

    level, truncation = 0.0, math.inf
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def value(self, points):
        axis = torch.nn.functional.normalize(torch.tensor([1.0, 0.2, 0.0]), dim=0)
        along = (points @ axis).clamp(-0.7, 0.7)
        return 0.006 - (points - along[..., None] * axis).norm(dim=-1)


def test_what_is_thinner_than_a_pixel_has_no_gaps():
    pose = look_from(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))
    seen = surface_view(Wire(), pose, 64, antialias=4).opacity
    assert (seen[:, 14:50].sum(0) > 0.2).all()


def test_rays_through_places_are_those_of_pixels():
    pose = turntable(3)[1]
    whole = pinhole_rays(pose, 5, 4)
    some = rays_through(pose, torch.tensor([[0.5, 0.5], [3.5, 2.5]]), 5, 4)
    assert torch.allclose(some.directions, whole.directions[[0, 13]])


def test_the_camera_steps_back_from_what_is_larger(ball):
    pose = turntable(1)[0]
    assert framing(pose, torch.tensor([[-0.5] * 3, [1.0] * 3])) is pose
    far = framing(pose, torch.tensor([[-1.0, -1, -1], [7.0, 1, 1]]))
    assert torch.allclose(far[:, 3], 4 * pose[:, 3] + torch.tensor([3.0, 0, 0]))
    assert torch.equal(far[:, :3], pose[:, :3])


class Pair:
    """A small ball above a large one."""

    level, truncation = 0.0, math.inf
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def value(self, points):
        small, large = points - torch.tensor([0.0, 0.45, 0.0]), points - torch.tensor([0.0, -0.4, 0.0])
        return torch.maximum(0.2 - small.norm(dim=-1), 0.5 - large.norm(dim=-1))


@pytest.mark.parametrize("truncation", [math.inf, 0.1, 0.0])
def test_shadows_and_occlusion(truncation):
    """Straight below the small ball the large one lies in its shadow; to the side it does not."""
    field = Pair()
    field.truncation = truncation
    if truncation < 1:
        field.value = lambda points: Pair.value(field, points).clamp(-truncation or -1, truncation or 1)
    below, aside = torch.tensor([0.0, 0.0999, 0.0]), torch.tensor([-0.354, -0.046, 0.0])
    origins = torch.stack((torch.tensor([0.0, 0.18, 0.0]), torch.tensor([-0.8, 0.4, 0.0])))
    rays = Rays(origins, torch.nn.functional.normalize(torch.stack((below, aside)) - origins, dim=-1))
    empty = EmptySpace(field)
    hits = sphere_trace(field, rays, empty)
    assert hits.hit.all()
    up = torch.tensor([[0.0, 1.0, 0.0]]).expand(2, -1)
    arrives = shadow(hits, empty, up)
    assert arrives[0] < 0.1
    assert arrives[1] > 0.6
    open_ = occlusion(hits, empty)
    assert open_[0] < 0.7
    assert open_[1] > 0.85
    pose = turntable(1)[0]
    assert torch.isfinite(studio(hits, rays, pose[:, 0], pose[:, 1], empty)).all()


def test_empty_space_tells_the_distance_to_a_cell(ball):
    for truncation in (math.inf, 0.1):
        field = ball(0.6)
        field.truncation = truncation
        empty, points = EmptySpace(field), torch.rand(2000, 3) * 1.8 - 0.9
        true = -ball(0.6).value(points)
        assert (empty.distance(points) - true).abs().max() < 2 * float(empty.cell.norm())
        assert (empty.at_least(points) <= true.abs() + 1e-5).all()


def test_drawn_channels():
    depth = torch.tensor([[1.0, 2.0], [3.0, math.inf]])
    image = drawn(depth, "depth", 1.0, 3.0)
    assert image[..., 0].tolist() == [[255, 153], [51, 0]]
    assert drawn(torch.tensor([[[0.0, 0.0, 1.0]]]), "normal").tolist() == [[[128, 128, 255]]]
    assert np.array_equal(drawn(torch.ones(2, 2), "opacity"), np.full((2, 2, 3), 255, np.uint8))
