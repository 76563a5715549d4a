"""Images of radiance fields by calibrated cameras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nif_cli import NifError
from nif_cli.files import available_memory
from nif_cli.rendering.cameras import Camera, camera_rays
from nif_cli.rendering.image_files import displayed
from nif_cli.rendering.ndc import Ndc
from nif_cli.rendering.volume import RadianceField, volume_render

CHANNELS = ("rgb", "depth", "opacity", "normal")


@dataclass
class Photograph:
    """What a camera sees, on the CPU. `depth` is measured along the rays, in the user's units, inf where
    there is nothing; `normals` are unit, in the camera's axes, zero where there is nothing."""

    color: Float[Tensor, "H W 3"]
    depth: Float[Tensor, "H W"]
    opacity: Float[Tensor, "H W"]
    normals: Float[Tensor, "H W 3"] | None

    def values(self, channel: str) -> Float[np.ndarray, "..."]:
        """A channel as it is: [H, W, 3] or [H, W], float32."""
        found = {"rgb": self.color, "depth": self.depth, "opacity": self.opacity, "normal": self.normals}[
            channel
        ]
        assert found is not None
        return found.float().numpy()

    def image(self, channel: str, depths: tuple[float, float] | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """A channel to look at: depth from white (near) to black (far) between `depths`, normals as colours
        on white."""
        if channel == "rgb":
            return displayed(self.color)
        if channel == "normal":
            assert self.normals is not None
            covered = self.opacity[..., None] * (self.normals.norm(dim=-1, keepdim=True) > 0)
            return displayed((0.5 + 0.5 * self.normals) * covered + 1 - covered)
        grey = self.opacity
        if channel == "depth":
            low, high = depths or self.range()
            grey = torch.nan_to_num((high - self.depth) / max(high - low, 1e-12), neginf=0.0)
        return displayed(grey[..., None].expand(-1, -1, 3))

    def range(self) -> tuple[float, float]:
        """The depths between which nearly all that is opaque lies."""
        found = self.depth[torch.isfinite(self.depth) & (self.opacity > 0.5)]
        if not len(found):
            return 0.0, 1.0
        found = found[:: max(1, len(found) // 100_000)]
        return float(found.quantile(0.01)), float(found.quantile(0.99))


def photograph(
    field: RadianceField,
    pose: Float[Tensor, "3 4"],
    camera: Camera,
    near: float,
    far: float,
    *,
    ndc: Ndc | None = None,
    background: str | None = None,
    scale: float = 1.0,
    normals: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> Photograph:
    """`near` and `far` are in units of normalised space, of which the user's units are 1 / `scale`. A pixel
    that the lens sees nothing through is background. NifError for more pixels than fit in memory."""
    if 200 * camera.width * camera.height > available_memory():
        raise NifError(
            f"size: {camera.width} x {camera.height} pixels do not fit in memory; give a smaller size="
        )
    rays = camera_rays(pose, camera, ndc)
    seen = torch.isfinite(rays.directions).all(1)
    lit = (rays if bool(seen.all()) else rays[seen]).to(device)
    first, last = (torch.full_like(lit.origins[:, 0], x) for x in (near, far))
    behind = "white" if background == "random" else background
    image = volume_render(field, lit, first, last, behind, normals=normals, progress=progress)
    depth = image.depth.cpu()
    if ndc is not None:
        here = lit.to("cpu")
        places = ndc.to_world(here.origins + depth.clamp(max=0.9999)[:, None] * here.directions)
        depth = torch.where(torch.isfinite(depth), (places - pose[:, 3]).norm(dim=-1), torch.inf)
    shape = (camera.height, camera.width)

    def whole(values: Tensor, empty: float) -> Tensor:
        made = torch.full((len(seen), *values.shape[1:]), empty)
        made[seen] = values.float().cpu()
        return made.view(*shape, *values.shape[1:])

    turned = None if image.normals is None else whole(image.normals.cpu() @ pose[:, :3], 0.0)
    color, opacity = whole(image.color, float(behind == "white")), whole(image.opacity, 0.0)
    return Photograph(color, whole(depth / scale, torch.inf), opacity, turned)
