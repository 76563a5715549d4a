"""Encoders of point clouds: sizes as published, and what must not matter does not."""

import pytest
import torch

from nif_cli.encoders.pointcloud import LatentEncoder, LocalPointNet, PointNet
from nif_cli.encoders.unet import UNet
from nif_cli.fields.local import interpolate


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(layout: str, **settings) -> LocalPointNet:
    options = dict(code_size=8, layout=layout, resolution=8, width=8, blocks=3, unet_depth=2, unet_width=8)
    return LocalPointNet(**{**options, **settings}).eval()


def test_the_published_sizes():
    """By hand: PointNet 3 -> 1024, five blocks 1024 -> 512 with a shortcut, -> 512; 3 -> 64, five blocks 64
    -> 32, -> 32 and a U-Net 32-64-128-256 with transposed convolutions; the same with one of three levels in
    a grid."""
    block = 1024 * 512 + 512 + 512 * 512 + 512 + 1024 * 512
    assert size(PointNet(512)) == 3 * 1024 + 1024 + 5 * block + 512 * 512 + 512
    local = 3 * 64 + 64 + 5 * (64 * 32 + 32 + 32 * 32 + 32 + 64 * 32) + 32 * 32 + 32
    assert size(LocalPointNet()) - size(UNet(2, 32, 32, 32, 4)) == local == 27_232

    def conv(a: int, b: int, k: int = 9) -> int:
        return k * a * b + b

    down = sum(conv(a, b) + conv(b, b) for a, b in ((32, 32), (32, 64), (64, 128), (128, 256)))
    up = sum(conv(2 * b, b, 4) + conv(2 * b, b) + conv(b, b) for b in (128, 64, 32))
    assert size(UNet(2, 32, 32, 32, 4)) == down + up + conv(32, 32, 1) == 1_934_976

    def norm_conv(a: int, b: int) -> int:
        return 2 * a + 27 * a * b

    pairs = (
        (32, 32),
        (32, 32),
        (32, 32),
        (32, 64),
        (64, 64),
        (64, 128),
        (192, 64),
        (64, 64),
        (96, 32),
        (32, 32),
    )
    assert size(UNet(3, 32, 32, 32, 3)) == sum(norm_conv(a, b) for a, b in pairs) + conv(32, 32, 1)


@pytest.mark.parametrize(
    "make", [lambda: PointNet(16, width=16).eval(), lambda: small("planes"), lambda: small("grid")]
)
def test_neither_the_order_of_points_nor_the_other_shapes_matter(make):
    encoder, points = make(), torch.rand(2, 60, 3) * 2 - 1
    code = encoder(points)
    assert torch.allclose(encoder(points[:, torch.randperm(60)]), code, atol=1e-4)
    assert torch.allclose(encoder(points[1:])[0], code[1], atol=1e-4)
    assert not torch.allclose(code[0], code[1], atol=1e-3)


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("layout", ["planes", "grid"])
def test_a_cloud_given_twice_is_the_same_cloud(layout, pool):
    encoder, points = small(layout, pool=pool), torch.rand(1, 40, 3) * 2 - 1
    assert torch.allclose(encoder(points), encoder(points.repeat(1, 2, 1)), atol=1e-4)


@pytest.mark.parametrize("layout", ["planes", "grid"])
def test_features_lie_where_they_are_looked_up(layout):
    """A point at a node leaves its feature at that node: with the U-Net out of the way, interpolation finds
    it there."""
    encoder = small(layout)
    encoder.half_side = 0.55
    encoder.register_module("unet", torch.nn.Identity())
    node = torch.tensor([[[1, 6, 3]]]) / 7 * 1.1 - 0.55
    with torch.no_grad():
        code = encoder(node)
        there, elsewhere = interpolate(code, node, 0.55), interpolate(code, -node, 0.55)
        feature = encoder.last(encoder_features(encoder, node))
    assert torch.allclose(there[0, 0], (3 if layout == "planes" else 1) * feature[0], atol=1e-5)
    assert not torch.allclose(there, elsewhere, atol=1e-3)


def encoder_features(encoder: LocalPointNet, points: torch.Tensor) -> torch.Tensor:
    """One point alone: the pooled features of its cell, in every plane, are its own."""
    h = encoder.first(points[0])
    for i, block in enumerate(encoder.blocks):
        h = block(torch.cat((h, (3 if encoder.layout == "planes" else 1) * h), -1) if i else h)
    return h


def test_the_latent_encoder_sees_what_is_inside():
    encoder, points = LatentEncoder(4, width=16), torch.rand(2, 50, 3)
    assert encoder(points, points[..., 0] > 0.5).shape == (2, 8)
    assert not torch.allclose(encoder(points, points[..., 0] > 0.5), encoder(points, points[..., 0] > 0.2))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"resolution": 9}, "resolution=9"),
        ({"code_size": 2}, "code_size=2"),
        ({"noise": -1.0}, "noise"),
        ({"points": 0}, "points=0"),
    ],
)
def test_impossible_settings_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        small("planes", **settings)
