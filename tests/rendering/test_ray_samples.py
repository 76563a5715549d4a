"""Where rays look, against distributions in closed form and in float64."""

from __future__ import annotations

import numpy as np
import torch

from nif_cli.rendering.ray_samples import importance, intervals, stratified
from nif_cli.rendering.rays import Rays


def test_stratified_places_lie_one_in_each_interval():
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 8.0])
    even = stratified(near, far, 9)
    torch.testing.assert_close(even[1], torch.linspace(2, 8, 9))
    drawn = stratified(near, far, 9, torch.Generator().manual_seed(1))
    borders = (even[:, 1:] + even[:, :-1]) / 2
    assert (drawn[:, 1:] >= borders).all()
    assert (drawn[:, :-1] <= borders).all()
    assert not torch.equal(drawn, even)
    inverse = stratified(near, far, 5, disparity=True)
    torch.testing.assert_close(1 / inverse[0], torch.linspace(1, 1 / 3, 5))


def test_importance_sampling_inverts_the_distribution():
    """Against the inverse of the cumulative distribution, by interpolation in float64."""
    generator = torch.Generator().manual_seed(3)
    edges = torch.rand(7, 33, generator=generator).cumsum(1)
    weights = torch.rand(7, 32, generator=generator) * (torch.rand(7, 32, generator=generator) > 0.5)
    found = importance(edges, weights, 50)
    pdf = weights.double() + 1e-5
    cdf = torch.cat((torch.zeros(7, 1, dtype=torch.float64), (pdf / pdf.sum(1, keepdim=True)).cumsum(1)), 1)
    for row in range(7):
        # going back through the distribution gives the even quantiles
        back = torch.from_numpy(np.interp(found[row].double(), edges[row].double(), cdf[row]))
        torch.testing.assert_close(back, torch.linspace(0, 1, 50, dtype=torch.float64), atol=2e-5, rtol=0)


def test_importance_samples_follow_the_weights():
    edges = torch.linspace(0, 4, 5)[None]
    drawn = importance(edges, torch.tensor([[0.1, 0.0, 0.6, 0.3]]), 20000, torch.Generator().manual_seed(0))
    share = torch.histc(drawn, 4, 0, 4) / drawn.numel()
    torch.testing.assert_close(share, torch.tensor([0.1, 0.0, 0.6, 0.3]), atol=0.01, rtol=0)


def test_the_last_interval_holds_all_that_is_behind():
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 2.0]]))  # as in NDC
    samples = intervals(torch.tensor([[0.1, 0.3, 0.6]]), rays)
    torch.testing.assert_close(samples.delta[:2], torch.tensor([0.4, 0.6]))
    assert samples.delta[2] > 1e9
