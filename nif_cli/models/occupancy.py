"""Occupancy networks (Mescheder et al. 2019; convolutional: Peng et al. 2020): whether a point is inside,
from what is seen of the shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import ConditioningSpec, Needs
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.data.shapes.samples import (
    DepthView,
    Images,
    Known,
    Observation,
    PointSamples,
    Scan,
    ShapeSamples,
    VoxelGrid,
)
from nif_cli.encoders.encoder import Encoder
from nif_cli.field import BoundField, Field, bind
from nif_cli.fields.network import Network
from nif_cli.geometry.transform import SPACES
from nif_cli.models.model import Inferred, Instance, Model

LEAST = 16  # points of a cloud


class Occupancy(Model):
    """The network's value is the logit of being inside; the surface is where the probability is `threshold`.

    `encoder` turns what is seen (a point cloud, an image, voxels) into the code that conditions the network;
    without one it learns a single shape. With the encoder of points and occupancies (encoder=vae) the code is
    a random variable, and shapes can be drawn: `kl` weighs its divergence from N(0, I). Loss: binary
    cross-entropy, averaged over the points or (`reduction: sum`, as published) summed over those of a shape.
    `balanced`: half of a batch's points are inside.
    """

    def __init__(
        self,
        field: Callable[..., Network],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        encoder: Encoder | None = None,
        *,
        lr: float = 1e-3,
        threshold: float = 0.5,
        reduction: Literal["mean", "sum"] = "mean",
        balanced: bool = False,
        kl: float = 1e-3,
        mirror: Literal["none", "x", "y", "z"] = "none",
    ):
        super().__init__(lr, optimizer, scheduler)
        if not 0 < threshold < 1 or kl < 0:
            raise ValueError(f"threshold={threshold}, kl={kl}: threshold must be in (0, 1), kl 0 or more")
        self.encoder = encoder
        self.code_size = 0 if encoder is None else encoder.code_size
        self.network = field(dim=3, out=1, code_size=self.code_size)
        local = encoder is not None and encoder.local
        if local != self.network.local:
            gives = "feature planes or a grid" if local else "one code a shape"
            needs = (
                "field=local"
                if local
                else "field=onet, film, concat, or another that takes a code; field=local does not"
            )
            raise ValueError(f"encoder: {type(encoder).__name__} gives {gives}, which needs {needs}")
        # the network ends in logits: where their sigmoid is the threshold
        self.level = math.log(threshold / (1 - threshold))
        self.reduction, self.kl = reduction, kl
        self.mirror = "xyz".find(mirror)
        kind = None if encoder is None else encoder.kind
        if kind == "image" and mirror != "none":
            raise ValueError(f"mirror={mirror}: an image of the mirrored shape is not at hand; mirror=none")
        self.observes = () if kind is None else (kind,)
        self.look: ConditioningSpec | None = None  # what it is shown of each shape
        if encoder is not None and encoder.kind != "samples":
            self.look = ConditioningSpec(encoder.kind, encoder.size, encoder.noise, encoder.views)
        self.needs = Needs("model=occupancy", ("inside",), self.look, occupancy=True, balanced=balanced)

    def attach_data(self, data: ShapeData) -> None:
        shapes = data.meet(self.needs)
        if self.encoder is None and len(shapes) > 1:
            raise NifError(
                f"model=occupancy without encoder learns one shape and the data holds {len(shapes)} "
                f"({shapes[0].id}, {shapes[1].id}, ...): choose encoder=pointcloud, image, voxels, ..., or "
                "vae, or name one of data.instances"
            )
        if self.encoder is None:
            self.instances = {s.id: Instance(s.id, s.transform) for s in shapes}
        else:
            shown = data.test_shapes(8) or shapes[:8]
            generator = torch.Generator().manual_seed(0)
            found = [Instance(s.id, s.transform, self._observation(s, generator)) for s in shown]
            self.instances = {i.id: i for i in found}
        self.allocate([])

    def allocate(self, ids: list[str]) -> None:
        half_side = SPACES[self.space][1] * (1.0 if self.encoder is None else self.encoder.span)
        for part in filter(None, (self.network, self.encoder)):
            part.half_side = half_side

    def _observation(self, shape: ShapeSamples, generator: torch.Generator) -> Observation | None:
        """What the encoder sees of a shape that is kept with the run."""
        seen = shape.known or Known()
        if self.look is None:
            assert shape.inside is not None or shape.distance is not None
            inside = shape.inside if shape.inside is not None else shape.distance > 0  # type: ignore[operator]
            return self._thinned(PointSamples(np.asarray(shape.points), inside=np.asarray(inside)), generator)
        if self.look.kind == "image":
            return Images(seen.images.pixels[:1]) if isinstance(seen.images, Images) else None
        if self.look.kind == "voxels":
            return seen.voxels if isinstance(seen.voxels, VoxelGrid) else None
        points = torch.from_numpy(np.array(shape.surface, np.float32))
        points = points[torch.randint(len(points), (self.look.size,), generator=generator)]
        points = points + self.look.noise * torch.randn(points.shape, generator=generator)
        return Scan(points.numpy())

    def _thinned(
        self, seen: PointSamples | Scan | DepthView, generator: torch.Generator
    ) -> PointSamples | Scan:
        """As many points as the encoder learns from; fewer are repeated."""
        assert self.encoder is not None
        size, count = self.encoder.size, len(seen.points)
        order = torch.randperm(count, generator=generator)
        index = order.repeat(-(-size // count))[:size].numpy()
        points = np.asarray(seen.points, np.float32)[index]
        if not isinstance(seen, PointSamples):
            return Scan(points)
        inside = seen.inside if seen.inside is not None else seen.distance > 0  # type: ignore[operator]
        return PointSamples(points, inside=np.asarray(inside)[index])

    def encode(self, observations: Sequence[Observation | None]) -> Tensor:
        """The codes of shapes from what is seen of them, [S, ...]. NifError where an observation is not what
        it takes."""
        assert self.encoder is not None
        made = {"image": self._pixels, "voxels": self._grid}.get(self.encoder.kind, self._points)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(np.stack(a))).to(self.device)
            for a in zip(*map(made, observations), strict=True)
        ]
        with torch.no_grad():
            codes = self.encoder(*tensors).float()
        return codes[:, : self.code_size] if self.encoder.variational else codes

    def _pixels(self, seen: Observation | None) -> list[np.ndarray]:
        assert self.encoder is not None
        size = self.encoder.size
        if not isinstance(seen, Images) or not len(seen.pixels):
            raise NifError("this model makes shapes from images, and no image is given")
        pixels = seen.pixels[0]
        if pixels.shape != (size, size, 3):
            raise NifError(
                f"an image of {pixels.shape}: this model takes {size} x {size} pixels of three colours"
            )
        return [pixels.transpose(2, 0, 1)]

    def _grid(self, seen: Observation | None) -> list[np.ndarray]:
        assert self.encoder is not None
        size = self.encoder.size
        if not isinstance(seen, VoxelGrid) or seen.occupied.shape != (size,) * 3:
            has = f"one of {seen.occupied.shape}" if isinstance(seen, VoxelGrid) else "none"
            raise NifError(f"this model makes shapes from voxel grids of {size}^3, and {has} is given")
        if not seen.occupied.any() or seen.occupied.all():
            raise NifError(
                f"the voxel grid is {'full' if seen.occupied.any() else 'empty'}; there is no surface in it"
            )
        return [seen.occupied]

    def _points(self, seen: Observation | None) -> list[np.ndarray]:
        assert self.encoder is not None
        scans = self.encoder.kind == "points"
        if not isinstance(seen, (Scan, DepthView) if scans else PointSamples) or len(seen.points) < LEAST:
            has = (
                len(seen.points) if isinstance(seen, (Scan, DepthView) if scans else PointSamples) else "none"
            )
            words = "points on the surface" if scans else "points with their occupancy"
            raise NifError(
                f"this model makes shapes from {words}: at least {LEAST} are needed, {has} are given"
            )
        wrong = int((~np.isfinite(seen.points)).any(1).sum())
        if wrong:
            raise NifError(f"{wrong} of {len(seen.points)} points are NaN or infinite")
        return list(self._thinned(seen, torch.Generator().manual_seed(0)).arrays().values())

    def bound(self, code: Tensor | None) -> BoundField:
        """The field of a code; in evaluation a vector is folded into the network."""
        network = self.network
        if not self.training and not network.local:
            network, code = network.fold(code)
        return bind(network, code, level=self.level, bounds=self.bounds, truncation=0.0)

    def field(self, id: str) -> BoundField:
        seen = self._seen(id)
        return self.bound(None if self.encoder is None else self.encode([seen])[0])

    def _seen(self, id: str) -> Observation | None:
        if id not in self.instances:
            raise NifError(
                f"no instance '{id}' in this run; it has {', '.join(list(self.instances)[:5])}, ..."
            )
        return self.instances[id].observation

    def between(self, first: str, second: str, share: float) -> Field:
        """A shape on the straight line between the codes of two instances."""
        if self.encoder is None:
            return super().between(first, second, share)
        a, b = self.encode([self._seen(first), self._seen(second)])
        return self.bound(torch.lerp(a, b, share))

    def sample(self, count: int, seed: int = 0) -> list[Field]:
        """Shapes drawn from the prior N(0, I) of the codes (encoder=vae)."""
        if self.encoder is None or not self.encoder.variational:
            return super().sample(count, seed)
        codes = torch.randn(count, self.code_size, generator=torch.Generator().manual_seed(seed))
        return [self.bound(code) for code in codes.to(self.device)]

    def infer(self, observations: Sequence[Observation], **options: Any) -> list[Inferred]:
        if self.encoder is None:
            return super().infer(observations, **options)
        options.pop("seed", None)  # nothing is drawn here
        if options:
            raise NifError(
                f"no option '{next(iter(options))}': model=occupancy makes shapes in one go, there is "
                "nothing to set"
            )
        was = self.training
        self.eval()
        found = [Inferred(self.bound(code), {}, {"code": code}) for code in self.encode(observations)]
        self.train(was)
        return found

    def loss(self, batch: ShapeBatch) -> dict[str, Tensor]:
        return self._loss(batch)[0]

    def _loss(self, batch: ShapeBatch) -> tuple[dict[str, Tensor], Tensor]:
        """The terms, and the logits that they are of."""
        points, seen, inside = batch.points, batch.seen, batch.inside
        if self.training and self.mirror >= 0:
            points, seen = self._mirrored(points, seen)
        terms, code = {}, None
        if self.encoder is not None and self.encoder.variational:
            mean, log_var = self.encoder(points, inside).chunk(2, -1)
            # drawn so that mean and variance have a gradient (Kingma and Welling 2014, section 2.4)
            code = mean + torch.randn_like(mean) * (0.5 * log_var).exp() if self.training else mean
            # KL(N(mean, var) || N(0, I)) in closed form (Kingma and Welling 2014, appendix B)
            terms["kl"] = self.kl * 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1).mean()
        elif self.encoder is not None:
            code = self.encoder(seen)
        logits = self.network(points, code)[..., 0].float()
        bce = F.binary_cross_entropy_with_logits(logits, inside.float())
        return {"bce": bce * (points.shape[1] if self.reduction == "sum" else 1), **terms}, logits

    def _mirrored(self, points: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Half of the shapes of a batch, mirrored: furniture is furniture in a mirror too. Not for
        images."""
        sign = torch.ones(len(points), 1, 3, device=points.device)
        flipped = torch.rand(len(points), device=points.device) < 0.5
        sign[flipped, 0, self.mirror] = -1
        if seen is not None and self.observes == ("voxels",):
            seen = torch.where(flipped[:, None, None, None], seen.flip(1 + self.mirror), seen)
        elif seen is not None:
            seen = seen * sign
        return points * sign, seen

    def validation_metrics(self, batch: ShapeBatch) -> dict[str, Tensor]:
        """Beside the loss the mean intersection over union at the held-out points, as they are
        distributed."""
        terms, logits = self._loss(batch)
        said, true = logits > self.level, batch.inside
        iou = (said & true).sum(1) / (said | true).sum(1).clamp(min=1)
        return {"val/loss": torch.stack(list(terms.values())).sum(), "val/iou": iou.mean()}
