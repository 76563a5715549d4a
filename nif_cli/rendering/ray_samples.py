"""Where to look along rays: places drawn evenly, or where much is seen (Mildenhall et al. 2020, sections 4
and 5.2).

Letters as in volume.py: R rays, N samples of all of them packed, T samples of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nif_cli.rendering.rays import Rays


@dataclass
class Samples:
    """Places along rays, packed: `ray` is never decreasing, `t` increases along a ray."""

    ray: Int64[Tensor, "N"]
    t: Float[Tensor, "N"]
    delta: Float[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.t)

    def points(self, rays: Rays) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
        """Their places, and the unit directions in which they are seen."""
        return rays.origins[self.ray] + self.t[:, None] * rays.directions[self.ray], rays.views[self.ray]


def dense(t: Float[Tensor, "R T"], delta: Float[Tensor, "R T"]) -> Samples:
    """The same number of samples of each ray, packed."""
    count, each = t.shape
    return Samples(
        torch.arange(count, device=t.device).repeat_interleave(each), t.reshape(-1), delta.reshape(-1)
    )


def stratified(
    near: Float[Tensor, "R"],
    far: Float[Tensor, "R"],
    count: int,
    generator: torch.Generator | None = None,
    disparity: bool = False,
) -> Float[Tensor, "R T"]:
    """`count` places between near and far: one drawn in each of as many equal intervals (eq. 2); without a
    generator their borders, both ends included, as the published code. `disparity`: equal in 1 / t (near >
    0)."""
    share = torch.linspace(0, 1, count, device=near.device, dtype=near.dtype)
    if disparity:
        t = 1 / ((1 - share) / near[:, None] + share / far[:, None])
    else:
        t = near[:, None] * (1 - share) + far[:, None] * share
    if generator is None:
        return t
    middle = 0.5 * (t[:, 1:] + t[:, :-1])
    low, high = torch.cat((t[:, :1], middle), 1), torch.cat((middle, t[:, -1:]), 1)
    return low + (high - low) * torch.rand(t.shape, generator=generator, device=t.device, dtype=t.dtype)


def importance(
    edges: Float[Tensor, "R E"],
    weights: Float[Tensor, "R W"],
    count: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "R T"]:
    """`count` places drawn from the density that is constant between `edges`, in proportion to the `weights`
    of those E - 1 intervals (section 5.2); without a generator its even quantiles. 1e-5 is added to each
    weight."""
    pdf = weights + 1e-5
    cdf = (pdf / pdf.sum(-1, keepdim=True)).cumsum(-1)
    cdf = torch.cat((torch.zeros_like(cdf[:, :1]), cdf), -1)
    if generator is None:
        u = torch.linspace(0, 1, count, device=edges.device, dtype=edges.dtype).expand(len(edges), count)
    else:
        u = torch.rand((len(edges), count), generator=generator, device=edges.device, dtype=edges.dtype)
    # the inverse of the cumulative distribution, linear within an interval
    above = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, cdf.shape[-1] - 1)
    (low, high), (a, b) = ((x.gather(1, above - 1), x.gather(1, above)) for x in (cdf, edges))
    span = high - low
    share = (u - low) / torch.where(span < 1e-5, torch.ones_like(span), span)
    return a + share * (b - a)


def intervals(t: Float[Tensor, "R T"], rays: Rays) -> Samples:
    """Places along rays as the published code weighs them: each stands for what lies up to the next, the last
    for all that is behind it."""
    delta = torch.cat((t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], 1e10)), 1)
    return dense(t, delta * rays.directions.norm(dim=-1, keepdim=True))
