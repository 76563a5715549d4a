"""Light along rays, against what is known in closed form and against float64."""

from __future__ import annotations

import pytest
import torch

from nif_cli.rendering import volume
from nif_cli.rendering.ray_samples import Samples, dense
from nif_cli.rendering.rays import Rays
from nif_cli.rendering.volume import Alpha, Once, RadianceField, composite, render_rays, volume_render


def packed(counts: list[int], seed: int = 0, dtype=torch.float32):
    """Random samples of rays that have this many each."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    delta = 0.01 + 0.05 * torch.rand(total, generator=generator, dtype=torch.float64)
    t = torch.cat([d.cumsum(0) for d in delta.split(counts)]) if total else delta
    density = 20 * torch.rand(total, generator=generator, dtype=torch.float64)
    rgb = torch.rand(total, 3, generator=generator, dtype=torch.float64)
    return density.to(dtype), rgb.to(dtype), Samples(ray, t.to(dtype), delta.to(dtype))


def straightforward(density, rgb, samples, rays):
    """Eq. 3 of Mildenhall et al. 2020, one ray and one sample after the other, in float64."""
    color, depth, left = (torch.zeros(rays, n, dtype=torch.float64) for n in (3, 1, 1))
    left += 1
    for n in range(len(samples)):
        r = samples.ray[n]
        alpha = 1 - torch.exp(-density[n].double() * samples.delta[n].double())
        color[r] += left[r] * alpha * rgb[n].double()
        depth[r] += left[r] * alpha * samples.t[n].double()
        left[r] *= 1 - alpha
    return color, depth[:, 0], left[:, 0]


@pytest.mark.parametrize("how", [composite, volume.composite_reference])
def test_compositing_is_the_sum_over_samples(how):
    density, rgb, samples = packed([5, 0, 17, 1, 0])
    light, weights = how(density, rgb, samples, 5)
    color, depth, left = straightforward(density, rgb, samples, 5)
    torch.testing.assert_close(light.color.double(), color, atol=1e-6, rtol=0)
    torch.testing.assert_close(light.depth.double(), depth, atol=1e-6, rtol=0)
    torch.testing.assert_close(light.transmittance.double(), left, atol=1e-6, rtol=0)
    sums = torch.zeros(5).index_add(0, samples.ray, weights)
    torch.testing.assert_close(sums, light.opacity, atol=1e-6, rtol=0)  # the weights of a ray are its opacity


@pytest.mark.parametrize("share", [False, True])
def test_values_of_sixteen_bits_are_summed_in_float32(share):
    """Of trainer.precision=bf16-mixed: the sum is that of the rounded values, not itself rounded."""
    density, rgb, samples = packed([9, 0, 30, 3], dtype=torch.float32)
    density, rgb = (density / 20 if share else density).bfloat16().requires_grad_(), rgb.bfloat16()
    wrapped = (Alpha(density), Alpha(density.double())) if share else (density, density.double())
    made, weights = composite(wrapped[0], rgb, samples, 4)
    exact, _ = volume.composite_reference(wrapped[1], rgb.double(), samples, 4)
    torch.testing.assert_close(made.color.double(), exact.color, atol=1e-5, rtol=1e-5)
    made.color.sum().backward()
    assert density.grad is not None
    assert weights.dtype == torch.float32


def test_compiled_compositing_has_the_gradients_of_the_reference():
    density, rgb, samples = packed([9, 0, 30, 3], dtype=torch.float32)
    found = []
    for how, dtype in ((composite, torch.float32), (volume.composite_reference, torch.float64)):
        leaves = density_, rgb_ = [x.detach().to(dtype).requires_grad_() for x in (density, rgb)]
        there = Samples(samples.ray, samples.t.to(dtype), samples.delta.to(dtype))
        light, weights = how(density_, rgb_, there, 4)
        loss = (light.color * torch.tensor([1.0, -2.0, 0.5], dtype=dtype)).sum() + (light.depth**2).sum()
        loss = loss + (light.transmittance**2).sum() * 3 + (weights**2).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("how", [composite, volume.composite_reference])
@pytest.mark.parametrize("counts", [[9, 0, 30, 3], [0, 0], [1]])
def test_alpha_is_what_its_density_is_with_its_gradients(how, counts):
    """alpha = 1 - exp(-density delta), and the chain rule through that."""
    density, rgb, samples = packed(counts)
    found = []
    for given in (False, True):
        leaves = [x.clone().requires_grad_() for x in (density, rgb)]
        alpha = Alpha(-torch.expm1(-leaves[0] * samples.delta))
        light, weights = how(alpha if given else leaves[0], leaves[1], samples, len(counts))
        out = (light.color, light.depth, light.transmittance, weights)
        terms = [((k + 1) * x * x.detach().cos()).sum() for k, x in enumerate(out)]
        loss = torch.stack(terms).sum()
        found.append((*out, *torch.autograd.grad(loss, leaves)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_alpha_of_nothing_and_of_all_has_the_gradients_of_float64():
    """Surfaces stop all the light: what lies behind them still says how much less they should."""
    _, rgb, samples = packed([6, 0, 4])
    share = torch.tensor([0.0, 0.5, 1.0, 0.3, 1.0, 0.2, 1.0, 0.0, 0.7, 0.1])
    found = []
    for how, dtype in ((composite, torch.float32), (volume.composite_reference, torch.float64)):
        leaves = [x.to(dtype).clone().requires_grad_() for x in (share, rgb)]
        there = Samples(samples.ray, samples.t.to(dtype), samples.delta.to(dtype))
        light, weights = how(Alpha(leaves[0]), leaves[1], there, 3)
        loss = (light.color * torch.tensor([1.0, -2.0, 0.5], dtype=dtype)).sum() + light.depth.sum()
        loss = loss + 3 * light.transmittance.sum() + (weights * torch.arange(10.0, dtype=dtype)).sum()
        found.append([x.double() for x in (light.color, weights, *torch.autograd.grad(loss, leaves))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert found[0][2][:3].abs().min() > 0


@pytest.mark.parametrize("alpha", [False, True])
def test_reference_gradients_are_those_of_finite_differences(alpha):
    density, rgb, samples = packed([4, 0, 3], dtype=torch.float64)
    there = Samples(samples.ray, samples.t, samples.delta)
    density = 0.05 * density if alpha else density

    def everything(density, rgb):
        given = Alpha(density) if alpha else density
        light, weights = volume.composite_reference(given, rgb, there, 3)
        return light.color, light.depth, light.transmittance, weights

    assert torch.autograd.gradcheck(everything, (density.requires_grad_(), rgb.requires_grad_()))


@pytest.mark.parametrize("how", [composite, volume.composite_reference])
def test_constant_density_gives_the_analytic_transmittance(how):
    sigma, length, count = 3.7, 1.3, 64
    edges = torch.linspace(0, length, count + 1)
    samples = dense(((edges[1:] + edges[:-1]) / 2)[None], (edges[1:] - edges[:-1])[None])
    light, _ = how(torch.full((count,), sigma), torch.ones(count, 3), samples, 1)
    expected = torch.exp(torch.tensor(-sigma * length, dtype=torch.float64))
    assert abs(float(light.transmittance) - float(expected)) < 1e-6
    assert abs(float(light.color[0, 0]) - (1 - float(expected))) < 1e-6


@pytest.mark.parametrize("how", [composite, volume.composite_reference])
def test_huge_densities_are_opaque_and_finite(how):
    density = torch.tensor([1e30, 1e30]).requires_grad_()
    light, weights = how(density, torch.ones(2, 3), dense(torch.ones(1, 2), torch.full((1, 2), 1e10)), 1)
    light.color.sum().backward()
    assert density.grad is not None
    assert torch.isfinite(density.grad).all()
    torch.testing.assert_close(weights.detach(), torch.tensor([1.0, 0.0]))


def test_packed_equals_dense():
    density, rgb, samples = packed([6, 6, 6])
    light, weights = composite(density, rgb, samples, 3)
    again, _ = composite(density, rgb, dense(samples.t.view(3, 6), samples.delta.view(3, 6)), 3)
    optical = density.view(3, 6) * samples.delta.view(3, 6)
    transmittance = torch.exp(-torch.cat((torch.zeros(3, 1), optical.cumsum(1)[:, :-1]), 1))
    expected = (transmittance * (1 - torch.exp(-optical)))[..., None] * rgb.view(3, 6, 3)
    torch.testing.assert_close(light.color, expected.sum(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(again.color, light.color)
    torch.testing.assert_close(
        weights.view(3, 6), expected.sum(-1) / rgb.view(3, 6, 3).sum(-1), atol=1e-6, rtol=1e-5
    )


class Fog:
    """A field of constant density and colour: its samples are even."""

    level, truncation = 1.0, 0.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def __init__(self, sigma: float, count: int = 200):
        self.sigma, self.count = sigma, count

    def value(self, points):
        return torch.full(points.shape[:-1], self.sigma)

    def color(self, points, directions=None):
        return torch.ones_like(points) * torch.tensor([1.0, 0.5, 0.0])

    def radiance(self, points, directions, samples):
        return self.value(points), self.color(points)

    def march(self, rays, near, far, generator=None):
        edges = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, self.count + 1)
        return Once(dense((edges[:, 1:] + edges[:, :-1]) / 2, edges[:, 1:] - edges[:, :-1]))


def test_images_of_fog():
    rays = Rays(torch.zeros(3, 3), torch.eye(3))
    near, far = torch.full((3,), 1.0), torch.full((3,), 2.0)
    image = volume_render(Fog(2.0), rays, near, far, "white", chunk=2)
    left = torch.exp(torch.tensor(-2.0))
    torch.testing.assert_close(image.opacity, (1 - left).expand(3), atol=1e-5, rtol=0)
    expected = (1 - left) * torch.tensor([1.0, 0.5, 0.0]) + left
    torch.testing.assert_close(image.color, expected.expand(3, 3), atol=1e-5, rtol=0)
    mean = 1 + 0.5 - 1 / (torch.exp(torch.tensor(2.0)) - 1)  # of an exponential distribution cut at 1
    torch.testing.assert_close(image.depth, mean.expand(3), atol=1e-4, rtol=0)
    nothing = volume_render(Fog(0.0), rays, near, far, "black")
    assert torch.isinf(nothing.depth).all()
    assert float(nothing.color.abs().max()) == 0


class Wall(Fog):
    """Dense behind the plane x = 0.5: its surface looks towards -x."""

    def value(self, points):
        return 200 * torch.sigmoid(100 * (points[..., 0] - 0.5))


def test_depth_and_normals_of_a_wall():
    rays = Rays(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
    image = volume_render(Wall(0.0, 1000), rays, torch.zeros(1), torch.ones(1), None, normals=True)
    assert abs(float(image.depth) - 0.5) < 0.02
    torch.testing.assert_close(image.normals, torch.tensor([[-1.0, 0.0, 0.0]]))


def test_rounds_are_one_sum():
    """Taking samples a few at a time, from the front, changes nothing but where rays end."""

    class InTwo(Once):
        def next(self, alive, limit):
            samples = self.samples
            part = samples.t < 1.5 if not getattr(self, "half", False) else samples.t >= 1.5
            going = torch.full_like(alive, not getattr(self, "half", False), dtype=torch.bool)
            self.half = True
            place = torch.full((3,), -1)
            place[alive] = torch.arange(len(alive))
            part = part & (place[samples.ray] >= 0)
            return Samples(place[samples.ray[part]], samples.t[part], samples.delta[part]), going

    field, rays = Fog(2.0), Rays(torch.zeros(3, 3), torch.eye(3))
    near, far = torch.ones(3), torch.full((3,), 2.0)
    samples = field.march(rays, near, far).samples
    whole, _ = render_rays(field.radiance, Once(samples), rays)
    parts, taken = render_rays(field.radiance, InTwo(samples), rays)
    assert taken == len(samples)
    for name in ("color", "depth", "transmittance"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=0)
    _, early = render_rays(field.radiance, InTwo(samples), rays, stop=0.9)
    assert early < taken


class Sdf:
    """A ball rendered as NeuS renders distances (Wang et al. 2021, eq. 13)."""

    level, truncation, sharpness = 0.0, float("inf"), 80.0
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    march = Fog(0.0, 256).march

    def value(self, points):
        return 0.5 - points.norm(dim=-1)

    def color(self, points, directions=None):
        return 0.5 + 0.5 * points

    def radiance(self, points, directions, samples):
        half = 0.5 * samples.delta[:, None] * directions
        before, after = (torch.sigmoid(-self.sharpness * self.value(points + s * half)) for s in (-1, 1))
        return Alpha(((before - after) / before.clamp(min=1e-12)).clamp(0, 1)), self.color(points)


def test_a_field_of_distances_is_rendered_by_its_alpha():
    """The shares of eq. 13 telescope: as long as a ray goes inwards, what is left is Phi of the end over Phi
    of the start, whatever the samples; the surface stands where the distance is 0, with its normal."""
    field: RadianceField = Sdf()
    assert isinstance(field, RadianceField)
    aside = torch.tensor([0.0, 0.2, 0.4])
    at = torch.stack((torch.full_like(aside, -2.0), aside, torch.zeros(3)), -1)
    rays = Rays(at, torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3))
    near, far = torch.ones(3), torch.full((3,), 2.0)
    light, _ = render_rays(field.radiance, field.march(rays, near, far), rays, stop=0.0)
    start, end = (
        torch.sigmoid(-Sdf.sharpness * field.value(at + t[:, None] * rays.directions)) for t in (near, far)
    )
    torch.testing.assert_close(light.transmittance, end / start, atol=1e-6, rtol=1e-3)
    image = volume_render(field, rays, near, far, "white", normals=True)
    depth = 2 - (0.25 - aside**2).sqrt()
    torch.testing.assert_close(image.depth, depth, atol=0.02, rtol=0)
    met = at + depth[:, None] * rays.directions
    assert image.normals is not None
    torch.testing.assert_close(image.normals, 2 * met, atol=0.05, rtol=0)
    torch.testing.assert_close(image.color, 0.5 + 0.5 * met, atol=0.02, rtol=0)
