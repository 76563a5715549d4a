"""Features interpolated where points are: torch's own grid_sample, linear functions, and derivatives."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from narrowing import sure

from nif_cli.fields.local import LocalDecoder, interpolate

PLANE_AXES = ((0, 2), (0, 1), (1, 2))


def by_grid_sample(code: torch.Tensor, points: torch.Tensor, half: float) -> torch.Tensor:
    where = points / half
    settings: dict[str, Any] = dict(align_corners=True, padding_mode="border")
    if code.shape[1] == 3:
        planes = [
            F.grid_sample(code[:, k], where[:, :, None, axes], **settings)[..., 0].transpose(1, 2)
            for k, axes in enumerate(PLANE_AXES)
        ]
        return torch.stack(planes).sum(0)
    return F.grid_sample(code, where[:, :, None, None], **settings)[..., 0, 0].transpose(1, 2)


CODES = {"planes": (2, 3, 5, 8, 8), "grid": (2, 5, 8, 8, 8)}


@pytest.mark.parametrize("layout", CODES)
def test_it_is_grid_sample(layout):
    """Values and the gradient of the features; points outside the cube are moved to its border."""
    points = torch.rand(2, 200, 3) * 2.6 - 1.3
    codes = [
        torch.randn(CODES[layout], generator=torch.Generator().manual_seed(0)).requires_grad_()
        for _ in range(2)
    ]
    found, want = interpolate(codes[0], points, 1.1), by_grid_sample(codes[1], points, 1.1)
    assert torch.allclose(found, want, atol=1e-5)
    weight = torch.randn_like(want)
    (found * weight).sum().backward()
    (want * weight).sum().backward()
    assert torch.allclose(sure(codes[0].grad), sure(codes[1].grad), atol=1e-4)


@pytest.mark.parametrize("layout", CODES)
def test_the_gradient_at_points(layout):
    """What normals come from: the same values, and autograd's derivatives with respect to the points."""
    code, points = torch.randn(CODES[layout]), (torch.rand(2, 50, 3) * 2 - 1).requires_grad_()
    want = by_grid_sample(code, points, 1.0)
    (wanted,) = torch.autograd.grad(want.sum(), points)
    found = interpolate(code, points, 1.0)
    (gradient,) = torch.autograd.grad(found.sum(), points)
    assert torch.allclose(found, want, atol=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-3)


def test_a_linear_function_is_met_exactly():
    axis = torch.linspace(-0.55, 0.55, 12)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    code = torch.stack((x, y, z, x - 2 * y + 3 * z + 1))[None]
    points = torch.rand(1, 100, 3) * 1.1 - 0.55
    px, py, pz = points.unbind(-1)
    want = torch.stack((px, py, pz, px - 2 * py + 3 * pz + 1), -1)
    assert torch.allclose(interpolate(code, points, 0.55), want, atol=1e-5)


def test_the_published_decoder():
    assert sum(p.numel() for p in LocalDecoder(code_size=32).parameters()) == 16_001


def test_a_vector_is_no_place_for_features():
    with pytest.raises(ValueError, match="encoder=pointcloud_planes"):
        LocalDecoder(code_size=0)


def test_a_shape_sees_only_its_own_features():
    decoder, points = LocalDecoder(code_size=4), torch.rand(2, 30, 3)
    code = torch.randn(2, 3, 4, 8, 8)
    other = code.clone()
    other[1] += 1
    a, b = decoder(points, code), decoder(points, other)
    assert torch.equal(a[0], b[0])
    assert not torch.allclose(a[1], b[1])
