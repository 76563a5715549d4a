"""PSNR and SSIM: their closed forms, and SSIM against a slow reading of the paper."""

import math

import numpy as np
import pytest
import torch

from nif_cli.metrics.image import compare_images, psnr, ssim, ssim_map


def test_psnr_of_a_constant_difference():
    a = torch.rand(8, 9, 3)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(a, a + 0.01) == pytest.approx(40, abs=1e-2)


def test_ssim_of_constant_images_is_their_luminance_term():
    """Without variance only (2 mx my + C1) / (mx^2 + my^2 + C1) is left."""
    a, b = torch.full((16, 16, 1), 0.5), torch.full((16, 16, 1), 0.25)
    assert ssim(a, a) == pytest.approx(1)
    assert ssim(a, b) == pytest.approx((2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4))


def test_ssim_is_the_papers(rng):
    a, b = rng.random((13, 15)), rng.random((13, 15))
    x = np.arange(11) - 5
    window = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    expected = np.empty((3, 5))
    for i in range(3):
        for j in range(5):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            expected[i, j] = (
                (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
            )
    found = ssim_map(torch.from_numpy(a)[..., None].float(), torch.from_numpy(b)[..., None].float())
    assert np.allclose(found[..., 0].numpy(), expected, atol=1e-5)


def test_ssim_where():
    """Only the chosen pixels count; the margin of the window is left out."""
    a = torch.rand(40, 40, 3)
    b = a.clone()
    b[:, 20:] = 0
    left = torch.zeros(40, 40, dtype=torch.bool)
    left[:, :14] = True
    assert ssim(a, b, left) == pytest.approx(1)
    assert ssim(a, b, ~left) < 0.8


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="11 pixels"):
        ssim_map(torch.rand(10, 30, 3), torch.rand(10, 30, 3))


@pytest.mark.parametrize("size", [8, 16])
def test_the_table_has_what_the_functions_say(size):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, 3, generator=generator) for _ in range(2))
    where = torch.rand(size, size, generator=generator) < 0.7
    found, masked = compare_images(a, b), compare_images(a, b, where)
    assert list(found) == list(masked) == (["psnr", "ssim"] if size >= 11 else ["psnr"])
    assert found["psnr"] == psnr(a, b)
    assert masked["psnr"] == psnr(a[where], b[where])
    if size >= 11:
        assert (found["ssim"], masked["ssim"]) == (ssim(a, b), ssim(a, b, where))
