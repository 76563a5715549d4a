"""What published numbers of views were measured on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViewProtocol:
    """Images are compared as 8-bit PNGs (mean over views of each one's PSNR; SSIM by an 11 x 11 Gaussian
    window, sigma 1.5, valid padding); `background` is what transparent ones lie on, None: what the run was
    trained with. `published` is what the published numbers were measured on, beside which other sizes are
    named."""

    published: str
    sizes: tuple[tuple[int, int], ...] = ()
    background: str | None = None


VIEW_PROTOCOLS = {
    "blender": ViewProtocol("200 test views of 800 x 800 pixels, white background", ((800, 800),), "white"),
    "llff": ViewProtocol("every 8th image, 1008 x 756 pixels (images_4)", ((1008, 756),)),
    "mip360": ViewProtocol(
        "every 8th image in the order of names, a quarter of the size outdoors, half indoors"
    ),
}
