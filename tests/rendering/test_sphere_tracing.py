"""Rays against a ball, whose hits are known."""

import pytest
import torch

from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.rays import Rays, box_entry, pinhole_rays
from nif_cli.rendering.shading import shade
from nif_cli.rendering.sphere_tracing import sphere_trace


def rays_at(ball_radius: float = 0.6, size: int = 24) -> tuple[Rays, torch.Tensor]:
    """Rays of a camera, and where they meet the ball (inf: nowhere), from the quadratic equation."""
    rays = pinhole_rays(turntable(1)[0], size, size)
    b = (rays.origins * rays.directions).sum(-1)
    under = b * b - (rays.origins.square().sum(-1) - ball_radius**2)
    return rays, torch.where(under > 0, -b - under.clamp(min=0).sqrt(), torch.inf)


@pytest.mark.parametrize("truncation", [float("inf"), 0.1])
def test_depth_and_normals_of_a_ball(ball, truncation):
    field = ball(0.6)
    field.truncation = truncation
    rays, depth = rays_at()
    hits = sphere_trace(field, rays)
    grazing = torch.isfinite(depth) != hits.hit
    assert grazing.float().mean() < 0.02  # on the silhouette alone
    hit = hits.hit & ~grazing
    assert hit.any()
    assert torch.allclose(hits.depth[hit], depth[hit], atol=5e-3)
    assert (hits.depth[hit] - depth[hit]).abs().median() < 5e-4
    assert torch.allclose(hits.points[hit].norm(dim=-1), torch.tensor(0.6), atol=1e-3)
    assert torch.allclose(
        hits.normals[hit], torch.nn.functional.normalize(hits.points[hit], dim=-1), atol=1e-3
    )
    miss = ~hits.hit
    assert torch.isinf(hits.depth[miss]).all()
    assert not hits.points[miss].any()
    assert not hits.normals[miss].any()


def test_an_overestimating_field_is_met_by_false_position(ball):
    """A field a third too steep jumps through the surface; the hit is refined all the same."""

    class Steep(ball):
        def value(self, points):
            return 1.35 * super().value(points)

    rays, depth = rays_at()
    hits = sphere_trace(Steep(0.6), rays)
    inner = torch.isfinite(depth) & (depth < depth[torch.isfinite(depth)].median())
    assert hits.hit[inner].all()
    assert torch.allclose(hits.depth[inner], depth[inner], atol=2e-3)


class Logits:
    """Occupancy of a ball: no distances, but the same surface."""

    level, truncation = 0.0, 0.0

    def __init__(self, radius: float, sharp: float = 20.0):
        self.radius, self.sharp, self.bounds = radius, sharp, torch.tensor([[-1.0] * 3, [1.0] * 3])

    def value(self, points):
        return self.sharp * (self.radius - points.norm(dim=-1))


@pytest.mark.parametrize("sharp", [20.0, 1e4])
def test_a_field_without_distances_is_marched(sharp):
    rays, depth = rays_at()
    hits = sphere_trace(Logits(0.6, sharp), rays)
    grazing = torch.isfinite(depth) != hits.hit
    assert grazing.float().mean() < 0.02
    hit = hits.hit & ~grazing
    assert hit.sum() > 100
    assert (hits.depth[hit] - depth[hit]).abs().max() < 1e-3
    assert torch.allclose(
        hits.normals[hit], torch.nn.functional.normalize(hits.points[hit], dim=-1), atol=1e-3
    )


def test_marching_finds_thin_things_and_nothing():
    """A rod of a cell's width; an empty field."""

    class Rod(Logits):
        def value(self, points):
            return 20 * (0.03 - points[..., ::2].norm(dim=-1))

    rays = rays_at(size=64)[0]
    hits = sphere_trace(Rod(0.0), rays)
    o, d = rays.origins[:, ::2], rays.directions[:, ::2]
    # where they are closest to the axis
    t = -(o * d).sum(-1, keepdim=True) / d.square().sum(-1, keepdim=True)
    height = (rays.origins + t * rays.directions)[:, 1].abs()
    middle = ((o + t * d).norm(dim=-1) < 0.02) & (height < 0.9)
    assert middle.any()
    assert hits.hit[middle].all()
    assert torch.allclose(hits.points[hits.hit][:, ::2].norm(dim=-1), torch.tensor(0.03), atol=1e-3)
    assert not sphere_trace(Logits(-1.0), rays).hit.any()


def test_box_entry():
    """Rays from outside enter at 1 and leave at 3; from inside they enter at 0; a miss enters after it
    leaves."""
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    origins = torch.tensor([[-2.0, 0, 0], [0, 0, 0], [-2.0, 5, 0]])
    directions = torch.tensor([[1.0, 0, 0]] * 3)
    near, far = box_entry(Rays(origins, directions), bounds)
    assert torch.allclose(near[:2], torch.tensor([1.0, 0.0]))
    assert torch.allclose(far[:2], torch.tensor([3.0, 1.0]))
    assert near[2] > far[2]


def test_shading_is_a_colour_and_misses_are_white(ball):
    rays, _ = rays_at()
    hits = sphere_trace(ball(0.6), rays)
    pose = turntable(1)[0]
    colour = shade(hits, rays, pose[:, 0], pose[:, 1])
    assert ((colour >= 0) & (colour <= 1)).all()
    assert (colour[~hits.hit] == 1).all()
    assert (colour[hits.hit] < 1).any(-1).all()
