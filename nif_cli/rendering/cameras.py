"""What a lens does to a ray: calibrated cameras with distortion, undone exactly.

A camera's parameters are fx, fy, cx, cy (pixels; the corner of the image is (0, 0), the first pixel's
centre (0.5, 0.5)), k1..k6, p1, p2 of OpenCV's model, or k1..k4 of its fisheye model (Kannala and Brandt
2006). Other projections keep their numbers there too: k1 of the division model (Fitzgibbon 2001), k1 and k2
are alpha and beta of the enhanced unified model (Khomutenko et al. 2016), an image of the whole sphere has
none.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.rendering.ndc import Ndc, _turned
from nif_cli.rendering.rays import Rays

PARAMETERS = 12
NEWTON_STEPS = 8  # at most: convergence is quadratic, real lenses need three or four
LONGEST_FOCAL = 1e5  # times the image's longest side: beyond it float32 cannot tell the rays apart


@dataclass(frozen=True)
class Camera:
    """A calibrated camera. `ValueError` for what no camera can be. `projection`: one of CLOSED, where it is
    neither OpenCV's perspective nor its fisheye."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    fisheye: bool = False
    projection: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 2**16 or not 1 <= self.height <= 2**16:
            raise ValueError(f"an image of {self.width} x {self.height} pixels: 1 to 65536 a side")
        numbers = astuple(self)[2:14]
        if not (self.fx > 0 and self.fy > 0) or not all(math.isfinite(v) for v in numbers):
            raise ValueError(
                f"a focal length of {self.fx:g}, {self.fy:g} pixels: must be positive, and all parameters "
                "finite"
            )
        longest = max(self.width, self.height)
        if (
            not longest / LONGEST_FOCAL
            <= min(self.fx, self.fy)
            <= max(self.fx, self.fy)
            <= longest * LONGEST_FOCAL
        ):
            raise ValueError(
                f"a focal length of {self.fx:g}, {self.fy:g} pixels for an image of {self.width} x "
                f"{self.height}"
            )
        if max(abs(self.cx - self.width / 2), abs(self.cy - self.height / 2)) > 100 * longest:
            raise ValueError(
                f"a principal point at {self.cx:g}, {self.cy:g} for an image of {self.width} x {self.height}"
            )
        if max(map(abs, numbers[4:])) > 1e9:
            raise ValueError(f"a distortion of {max(numbers[4:], key=abs):g}")
        if self.projection not in ("", *CLOSED) or (self.fisheye and self.projection):
            raise ValueError(
                f"a projection '{self.projection}': there are {', '.join(CLOSED)}, or fisheye, or neither"
            )
        if self.projection == "eucm" and not (0 <= self.k1 <= 1 and self.k2 > 0):
            raise ValueError(f"alpha={self.k1:g}, beta={self.k2:g}: alpha is between 0 and 1, beta positive")

    @property
    def kind(self) -> str:
        """How it projects: "perspective", "fisheye", or one of CLOSED."""
        return self.projection or ("fisheye" if self.fisheye else "perspective")

    @property
    def parameters(self) -> Float[Tensor, "12"]:
        """fx, fy, cx, cy, k1..k6, p1, p2, float64."""
        return torch.tensor(astuple(self)[2:14], dtype=torch.float64)

    def resized(self, width: int, height: int) -> Camera:
        """The same lens before an image of another size."""
        x, y = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y
        )


def distorted(
    parameters: Float[Tensor, "*batch 12"], xy: Float[Tensor, "*batch 2"]
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch 2 2"]]:
    """Where OpenCV's lens puts the point xy of the plane z = 1, and the Jacobian of that."""
    k1, k2, k3, k4, k5, k6, p1, p2 = parameters[..., 4:].unbind(-1)
    x, y = xy.unbind(-1)
    r = x * x + y * y
    over, under = 1 + r * (k1 + r * (k2 + r * k3)), 1 + r * (k4 + r * (k5 + r * k6))
    radial = over / under
    slope = (
        k1 + r * (2 * k2 + 3 * r * k3) - radial * (k4 + r * (2 * k5 + 3 * r * k6))
    ) / under  # d radial / d r^2
    to = torch.stack(
        (
            x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x),
            y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y,
        ),
        -1,
    )
    across = 2 * (x * y * slope + p1 * x + p2 * y)
    rows = (
        radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x,
        across,
        across,
        radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x,
    )
    return to, torch.stack(rows, -1).unflatten(-1, (2, 2))


def unproject(
    parameters: Float[Tensor, "*batch 12"],
    pixels: Float[Tensor, "*batch 2"],
    kind: str | bool = False,
    distorts: bool = True,
) -> Float[Tensor, "*batch 3"]:
    """The unit direction (OpenGL axes of the camera) that the lens sends to `pixels`; Newton's method, in the
    precision of the arguments. NaN where no direction does (beyond the reach of a fisheye, or of a polynomial
    that turns back). `kind`: a camera's, or whether it is a fisheye. Without `distorts` all k and p are known
    to be 0."""
    goal = (pixels - parameters[..., 2:4]) / parameters[..., :2]
    if kind in CLOSED:
        local = CLOSED[kind](parameters, goal)  # type: ignore[index]
        return torch.nn.functional.normalize(local, dim=-1)
    if kind in (True, "fisheye"):
        k1, k2, k3, k4 = parameters[..., 4:8].unbind(-1)
        radius = goal.norm(dim=-1)
        angle = radius.clone()
        for _ in range(NEWTON_STEPS):
            s = angle * angle
            value = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) - radius
            angle = angle - value / (1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4))))
        angle = torch.where((angle >= 0) & (angle <= math.pi), angle, math.nan)
        side = goal * (angle.sin() / radius.clamp(min=torch.finfo(radius.dtype).tiny))[..., None]
        return torch.cat((side * side.new_tensor([1.0, -1.0]), -angle.cos()[..., None]), -1)
    xy = goal
    if distorts:
        for _ in range(NEWTON_STEPS):
            to, ((a, b), (c, d)) = _parts(parameters, xy)
            ex, ey = (to - goal).unbind(-1)
            if not xy.is_cuda and bool(
                ((to - goal).abs() <= 4 * torch.finfo(xy.dtype).eps * (1 + goal.abs())).all()
            ):
                break  # on a GPU the question would cost more than the steps
            det = a * d - b * c
            xy = xy - torch.stack(((d * ex - b * ey) / det, (a * ey - c * ex) / det), -1)
        to, ((a, b), (c, d)) = _parts(parameters, xy)
        found = ((to - goal).norm(dim=-1) < 1e-4 * (1 + goal.norm(dim=-1))) & (a * d - b * c > 0)
        found &= (xy * goal).sum(-1) > -1e-3  # far out a folded polynomial comes back on the other side
        xy = torch.where(found[..., None], xy, math.nan)
    local = torch.cat((xy * xy.new_tensor([1.0, -1.0]), -torch.ones_like(xy[..., :1])), -1)
    return torch.nn.functional.normalize(local, dim=-1)


def _division(parameters: Tensor, goal: Tensor) -> Tensor:
    ahead = 1 + parameters[..., 4] * (goal * goal).sum(-1)
    return torch.stack((goal[..., 0], -goal[..., 1], -torch.where(ahead > 0, ahead, math.nan)), -1)


def _eucm(parameters: Tensor, goal: Tensor) -> Tensor:
    alpha, beta = parameters[..., 4], parameters[..., 5]
    r = beta * (goal * goal).sum(-1)
    root = (1 - (2 * alpha - 1) * r).sqrt()  # NaN beyond its reach
    ahead = (1 - alpha * alpha * r) / (alpha * root + 1 - alpha)
    return torch.stack((goal[..., 0], -goal[..., 1], -ahead), -1)


def _sphere(parameters: Tensor, goal: Tensor) -> Tensor:
    """`goal` are longitude (to the right) and latitude (down) of the direction."""
    longitude, latitude = goal.unbind(-1)
    there = (longitude.abs() <= math.pi + 1e-6) & (latitude.abs() <= math.pi / 2 + 1e-6)
    level = torch.where(there, latitude.cos(), math.nan)
    return torch.stack((level * longitude.sin(), -latitude.sin(), -level * longitude.cos()), -1)


CLOSED = {"division": _division, "eucm": _eucm, "sphere": _sphere}
"""Projections that are undone without iteration."""


def _parts(parameters: Tensor, xy: Tensor) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
    to, jacobian = distorted(parameters, xy)
    return to, tuple(row.unbind(-1) for row in jacobian.unbind(-2))


def project(camera: Camera, local: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2"]:
    """The pixel where a point (OpenGL axes of the camera) is seen; NaN behind a camera that is no fisheye
    and sees no sphere."""
    p = camera.parameters.to(local)
    x, y, ahead = local[..., 0], -local[..., 1], -local[..., 2]
    if camera.projection == "sphere":
        plane = torch.stack((torch.atan2(x, ahead), torch.atan2(y, torch.hypot(x, ahead))), -1)
    elif camera.projection == "division":
        root = (ahead * ahead - 4 * p[4] * (x * x + y * y)).sqrt()  # NaN where the lens sees nothing
        plane = torch.stack((x, y), -1) * (2 / torch.where(ahead > 0, ahead + root, math.nan))[..., None]
    elif camera.projection == "eucm":
        depth = p[4] * (p[5] * (x * x + y * y) + ahead * ahead).sqrt() + (1 - p[4]) * ahead
        plane = torch.stack((x, y), -1) / torch.where((ahead > 0) & (depth > 0), depth, math.nan)[..., None]
    elif camera.fisheye:
        side = torch.hypot(x, y)
        angle = torch.atan2(side, ahead)
        s = angle * angle
        radius = angle * (1 + s * (p[4] + s * (p[5] + s * (p[6] + s * p[7]))))
        plane = torch.stack((x, y), -1) * (radius / side.clamp(min=1e-30))[..., None]
    else:
        ahead = torch.where(ahead > 0, ahead, math.nan)
        plane, _ = distorted(p.expand(*local.shape[:-1], PARAMETERS), torch.stack((x / ahead, y / ahead), -1))
    return plane * p[:2] + p[2:4]


def camera_directions(camera: Camera) -> Float[Tensor, "R 3"]:
    """The directions (OpenGL axes of the camera, unit) through all pixel centres, row by row from the top
    left; float32."""
    v, u = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    pixels = torch.stack((u, v), -1).reshape(-1, 2).double()
    distorts = bool((camera.parameters[4:] != 0).any())
    parts = [
        unproject(camera.parameters.expand(len(p), -1), p, camera.kind, distorts) for p in pixels.split(2**18)
    ]
    return torch.cat(parts).float()


def camera_rays(
    pose: Float[Tensor, "3 4"],
    camera: Camera,
    ndc: Ndc | None = None,
    local: Float[Tensor, "R 3"] | None = None,
) -> Rays:
    """The rays through all pixel centres of a camera, row by row from the top left, on the pose's device; or
    those that look to `local` in its axes."""
    local = camera_directions(camera) if local is None else local
    directions = _turned(local.to(pose), pose[:, :3])
    rays = Rays(pose[:, 3].expand_as(directions), directions)
    return rays if ndc is None else ndc.rays(rays)
