"""The light along rays through a density: where to look along a ray, and what is seen there (Mildenhall et
al. 2020).

Letters: R rays, N samples of all of them in one row, ray after ray (packed), T samples of each ray (dense). t
is the ray's parameter (point = origin + t direction; a distance where directions are unit), delta the length
of the interval that a sample stands for, in normalised space, so that sigma * delta is its optical depth.
Colours are sRGB; a sum of weights times colours is premultiplied by opacity until a background is put behind
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from nif_cli.field import Field, Signal
from nif_cli.rendering import composite_kernels
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.rays import Rays

# an optical depth at which float32 has nothing left of the light: more is not told apart, and has no gradient
OPAQUE = 60.0
REACH = 0.02  # how far in front of a surface one looks at it, in normalised space
STOP = 1e-4  # the transmittance at which a ray ends (Mueller et al. 2022)


@runtime_checkable
class March(Protocol):
    """Rays on their way: samples are taken a few at a time from the front, until a ray ends or nothing of it
    is left."""

    def next(self, alive: Int64[Tensor, "A"], limit: int) -> tuple[Samples, Bool[Tensor, "A"]]:
        """At most about `limit` further samples of each of these rays (`ray` counts within `alive`), and
        which go on."""
        ...


@dataclass(frozen=True)
class Alpha:
    """What a field may give instead of a density: the share of the light that each sample stops, in [0, 1].
    So may fields whose samples know where their intervals end (NeuS, Wang et al. 2021, eq. 13)."""

    share: Float[Tensor, "N"]


@runtime_checkable
class RadianceField(Field, Signal, Protocol):
    """Density and colour in normalised space. `value` is the density, whose surface is where it is `level`;
    or, where `truncation` is not 0, a distance, of which `radiance` makes light."""

    def radiance(self, points: Tensor, directions: Tensor, samples: Samples) -> tuple[Tensor | Alpha, Tensor]:
        """[N, 3], unit [N, 3], and what these samples of rays are -> density [N] (1 / length, at least 0) or
        Alpha, sRGB [N, 3]."""
        ...

    def march(self, rays: Rays, near: Tensor, far: Tensor, generator: torch.Generator | None = None) -> March:
        """How it wants to be sampled between near [R] and far [R]; at random where there is a `generator`."""
        ...


@dataclass
class RenderedRays:
    """What reaches the start of each ray."""

    color: Float[Tensor, "R 3"]  # sRGB, premultiplied by opacity
    depth: Float[Tensor, "R"]  # the sum of weights times t
    transmittance: Float[Tensor, "R"]  # of what lies behind, this part is seen

    @property
    def opacity(self) -> Float[Tensor, "R"]:
        return 1 - self.transmittance

    def over(self, background: Tensor | None) -> Float[Tensor, "R 3"]:
        """In front of a colour ([3] or [R, 3]); None is black."""
        return self.color if background is None else self.color + self.transmittance[:, None] * background


def composite(
    density: Float[Tensor, "N"] | Alpha, rgb: Float[Tensor, "N 3"], samples: Samples, rays: int
) -> tuple[RenderedRays, Float[Tensor, "N"]]:
    """Eq. 3 of Mildenhall et al. 2020 for packed samples of `rays` rays, and each sample's weight. A density
    stops the share alpha = 1 - exp(-density delta).

    On a CPU one compiled loop, with its backward; elsewhere, and for float64, `composite_reference`.
    """
    alpha = isinstance(density, Alpha)
    given = density.share if alpha else density
    if given.dtype.itemsize < 4:  # of trainer.precision=bf16-mixed: sums along a ray need more digits
        given, rgb = given.float(), rgb.float()
        density = Alpha(given) if alpha else given
    if given.device.type == "cpu" and given.dtype == torch.float32:
        color, depth, transmittance, weights = _Composite.apply(
            given, rgb, samples.t, samples.delta, samples.ray, rays, alpha
        )
        return RenderedRays(color, depth, transmittance), weights
    return composite_reference(density, rgb, samples, rays)


def composite_reference(
    density: Float[Tensor, "N"] | Alpha, rgb: Float[Tensor, "N 3"], samples: Samples, rays: int
) -> tuple[RenderedRays, Float[Tensor, "N"]]:
    """`composite` in plain torch."""
    ray = samples.ray
    first = torch.searchsorted(ray, torch.arange(rays, device=ray.device)).clamp(max=max(0, len(ray) - 1))
    if isinstance(density, Alpha):
        weights, transmittance = _weights_of_alpha(density, samples, first)
    else:
        weights, transmittance = _weights_of_density(density, samples, first)
    zero = torch.zeros((), dtype=weights.dtype, device=ray.device)
    color = zero.expand(rays, 3).index_add(0, ray, weights[:, None] * rgb)
    depth = zero.expand(rays).index_add(0, ray, weights * samples.t)
    return RenderedRays(color, depth, transmittance), weights


def _weights_of_density(
    density: Float[Tensor, "N"], samples: Samples, first: Int64[Tensor, "R"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "R"]]:
    """The samples' weights, and the rays' transmittances; the first sample of each ray is known."""
    ray, optical = samples.ray, (density * samples.delta).clamp(max=OPAQUE)
    total = optical.double().cumsum(0)  # of all rays: what was before a ray is taken off, which costs digits
    before = total - optical
    before = before - before[first][ray] if len(ray) else before
    # T_n (1 - exp(-sigma_n delta_n)); expm1 keeps the digits of thin samples
    weights = torch.exp(-before).to(density.dtype) * -torch.expm1(-optical)
    return weights, torch.exp(-torch.zeros_like(first, dtype=density.dtype).index_add(0, ray, optical))


def _weights_of_alpha(
    alpha: Alpha, samples: Samples, first: Int64[Tensor, "R"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "R"]]:
    """The same; not by logarithms, which an alpha of 1 does not have: a row for each ray."""
    ray, share = samples.ray, alpha.share
    rank = torch.arange(len(ray), device=ray.device) - (first[ray] if len(ray) else 0)
    longest = int(rank.max()) + 1 if len(ray) else 0
    through = share.new_ones(len(first), 1 + longest).index_put((ray, rank + 1), 1 - share).cumprod(1)
    return through[ray, rank] * share, through[:, -1]


class _Composite(torch.autograd.Function):
    """The compiled loop and its derivative, once, by what was given (density or alpha) and colour."""

    @staticmethod
    def forward(ctx, given, rgb, t, delta, ray, rays, alpha):  # type: ignore[override]
        arrays = (given.detach(), rgb.detach(), t, delta, ray)
        out = composite_kernels.composite_forward(*arrays, rays, OPAQUE, alpha)
        ctx.alpha = alpha
        ctx.save_for_backward(given, rgb, t, delta, ray, *out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_color, of_depth, of_transmittance, of_weights):  # type: ignore[override]
        of = (of_color, of_depth, of_transmittance, of_weights)
        grads = composite_kernels.composite_backward(ctx.saved_tensors, of, OPAQUE, ctx.alpha)
        return *grads, None, None, None, None, None


@dataclass
class Once:
    """The march of a field that takes all its samples together."""

    samples: Samples

    def next(self, alive: Int64[Tensor, "A"], limit: int) -> tuple[Samples, Bool[Tensor, "A"]]:
        return self.samples, torch.zeros_like(alive, dtype=torch.bool)


Radiance = Callable[[Tensor, Tensor, Samples], tuple[Tensor | Alpha, Tensor]]


def render_rays(
    radiance: Radiance, march: March, rays: Rays, first: int = 32, stop: float = STOP
) -> tuple[RenderedRays, int]:
    """What is seen along rays, and how many samples that took: rounds from the front, of `first` samples of
    each ray, then twice as many, and so on; a ray ends where its transmittance falls below `stop`.

    `radiance(points, directions, samples)` is what a RadianceField's is; `samples.ray` counts all rays. All
    is differentiable by what it depends on.
    """
    count, device = len(rays), rays.origins.device
    color, depth = rays.origins.new_zeros(count, 3), rays.origins.new_zeros(count)
    transmittance = rays.origins.new_ones(count)
    alive, taken, limit = torch.arange(count, device=device), 0, first
    while len(alive):
        samples, going = march.next(alive, limit)
        if len(samples):
            taken += len(samples)
            here = rays if len(alive) == count else rays[alive]
            density, rgb = radiance(*samples.points(here), replace(samples, ray=alive[samples.ray]))
            light, _ = composite(density, rgb, samples, len(alive))
            reach = transmittance[alive]
            color = color.index_add(0, alive, reach[:, None] * light.color)
            depth = depth.index_add(0, alive, reach * light.depth)
            transmittance = transmittance.index_copy(0, alive, reach * light.transmittance)
        going = going & (transmittance.detach()[alive] > stop)
        # rays that end early waste few samples, those that go on need few rounds
        alive, limit = alive[going], 2 * limit
    return RenderedRays(color, depth, transmittance), taken


@dataclass
class RenderedImage:
    """What a camera sees, ray by ray."""

    color: Float[Tensor, "R 3"]  # sRGB, in front of the background
    depth: Float[Tensor, "R"]  # the mean of t as light reaches it; inf where next to nothing is there
    opacity: Float[Tensor, "R"]
    normals: Float[Tensor, "R 3"] | None = None  # unit, outward, where the depth is; zero where there is none


def backdrop(background: str | Tensor | None, device: torch.device | str = "cpu") -> Float[Tensor, "*r 3"]:
    """A background's colour: white, black (also None and random, which is for training) or a tensor."""
    if isinstance(background, Tensor):
        return background.to(device)
    return torch.full((3,), 1.0 if background == "white" else 0.0, device=device)


@torch.no_grad()
def volume_render(
    field: RadianceField,
    rays: Rays,
    near: Float[Tensor, "R"],
    far: Float[Tensor, "R"],
    background: str | Tensor | None = None,
    *,
    normals: bool = False,
    chunk: int = 2**14,
    generator: torch.Generator | None = None,
    progress: Callable[[int], object] | None = None,
) -> RenderedImage:
    """Images of a radiance field, `chunk` rays at a time; `progress(n)` is called after each n rays.

    Normals are those of its values at the mean depth, by central differences over 1/128 of the unit.
    """
    parts = []
    behind = backdrop(background, rays.origins.device)
    for start in range(0, len(rays), chunk):
        part = slice(start, start + chunk)
        some = rays[part]
        march = field.march(some, near[part], far[part], generator)
        light, _ = render_rays(field.radiance, march, some)
        color = light.over(behind if behind.ndim == 1 else behind[part])
        depth = torch.where(light.opacity > 1e-3, light.depth / light.opacity.clamp(min=1e-3), torch.inf)
        parts.append((color, depth, light.opacity, *((_normals(field, some, depth),) if normals else ())))
        if progress:
            progress(len(some))
    if not parts:
        zero = rays.origins[:, 0]
        return RenderedImage(rays.origins, zero, zero, rays.origins if normals else None)
    return RenderedImage(*(torch.cat(p) for p in zip(*parts, strict=True)))


def _normals(
    field: RadianceField, rays: Rays, depth: Float[Tensor, "R"], width: float = 1 / 128
) -> Float[Tensor, "R 3"]:
    found = torch.zeros_like(rays.origins)
    hit = torch.isfinite(depth).nonzero()[:, 0]
    points = rays.origins[hit] + depth[hit, None] * rays.directions[hit]
    step = 0.5 * width * torch.eye(3, device=points.device, dtype=points.dtype)
    ahead, behind = (torch.stack([field.value(points + sign * s) for s in step], -1) for sign in (1, -1))
    if field.truncation == 0:
        # of the optical depth, not of the density, which has hardly a slope where it is vast
        ahead, behind = torch.log1p(ahead), torch.log1p(behind)
    slope = ahead - behind
    found[hit] = -torch.nn.functional.normalize(slope, dim=-1)
    return found


def surface_colors(
    field: RadianceField, mesh: trimesh.Trimesh, device: torch.device | str
) -> UInt8[np.ndarray, "V 3"]:
    """sRGB of a mesh's vertices (normalised space), as bytes: what a camera sees that looks straight at each
    from REACH in front of it, to as far behind it."""
    points, normals = (
        torch.from_numpy(np.array(a, np.float32)).to(device) for a in (mesh.vertices, mesh.vertex_normals)
    )
    near = torch.zeros_like(points[:, 0])
    image = volume_render(field, Rays(points + REACH * normals, -normals), near, near + 2 * REACH)
    seen = image.color / image.opacity.clamp(min=1e-3)[:, None]
    return (seen.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
