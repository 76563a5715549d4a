"""One shape in one network: a signed distance, learned from distances (DeepSDF's regression) or from points
with normals and the eikonal equation (IGR, Gropp et al. 2020; SIREN, Sitzmann et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.datamodule import Needs
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.pool import ShapeBatch
from nif_cli.field import BoundField, bind
from nif_cli.fields.network import Network
from nif_cli.losses import clamped_l1, eikonal, normal_alignment, off_surface
from nif_cli.models.model import Instance, Model


class Sdf(Model):
    """`objective: regression` fits distances clamped to +-`clamp`; `objective: eikonal` sees only points with
    normals: value 0 and gradient along the normal on the surface, a gradient of norm 1 everywhere, no zero
    elsewhere. The four weights are those of SIREN's section 4.2. `objective: sal` sees bare points: | |value|
    - distance to the nearest of them | (SAL, Atzmon and Lipman 2020, eq. 1), which has the signed distance
    among its minima; a network that starts as a sphere (field=igr) finds it.
    """

    def __init__(
        self,
        field: Callable[..., Network],
        optimizer: Callable[..., Any],
        scheduler: Callable[..., Any] | None = None,
        *,
        lr: float = 1e-3,
        objective: Literal["regression", "eikonal", "sal"] = "regression",
        clamp: float = 0.1,
        surface_weight: float = 3e3,
        off_surface_weight: float = 1e2,
        normal_weight: float = 1e2,
        eikonal_weight: float = 5e1,
    ):
        super().__init__(lr, optimizer, scheduler)
        if not clamp > 0:
            raise ValueError(f"clamp={clamp}: must be positive")
        self.network = field(dim=3, out=1, code_size=0)
        self.objective, self.clamp = objective, clamp
        self.weights = (surface_weight, off_surface_weight, normal_weight, eikonal_weight)
        self.needs = Needs(
            f"model=sdf with objective={objective}",
            ({"regression": "distance", "eikonal": "normals", "sal": "surface"}[objective],),  # type: ignore[arg-type]
            surface_share=0.5 if objective == "eikonal" else 0.0,
            unsigned=objective == "sal",
        )

    def attach_data(self, data: ShapeData) -> None:
        shapes = data.meet(self.needs)
        if len(shapes) > 1:
            raise NifError(
                f"model=sdf learns one shape and the data holds {len(shapes)} ({shapes[0].id}, "
                f"{shapes[1].id}, ...): "
                "name one file or one of data.instances, or use model=deepsdf"
            )
        points, distance = shapes[0].points, shapes[0].distance
        if distance is not None:
            self.network.fill(lambda: (points, np.clip(distance, -self.clamp, self.clamp)[:, None]))
        self.instances = {s.id: Instance(s.id, s.transform) for s in shapes}

    def allocate(self, ids: list[str]) -> None:
        pass

    def field(self, id: str) -> BoundField:
        network = self.network if self.training else self.network.fold(None)[0]
        return bind(
            network,
            bounds=self.bounds,
            truncation=self.clamp if self.objective == "regression" else float("inf"),
        )

    def loss(self, batch: ShapeBatch) -> dict[str, Tensor]:
        if self.objective == "sal":
            assert batch.distance is not None
            return {
                "l1": (self.network(batch.points, None)[..., 0].abs() - batch.distance.abs()).abs().mean()
            }
        if self.objective == "regression" or batch.surface is None or batch.normals is None:
            # a held-out batch of a source with distances has no surface: the eikonal kind is watched by its
            # distances too
            assert batch.distance is not None
            return {"l1": clamped_l1(self.network(batch.points, None)[..., 0], batch.distance, self.clamp)}
        on = batch.surface
        # held-out batches too: the loss is of the field's own gradient
        with torch.enable_grad():
            # the eikonal equation holds in all of space: points drawn anew each step stand for it
            anywhere = torch.rand_like(on) * 2 - 1
            points = torch.cat((on, anywhere), 1).requires_grad_(True)
            value = self.network(points, None)[..., 0]
            # kept in the graph: the weights learn through it, by mixed second derivatives
            (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=True)
        n = on.shape[1]
        surface, off, normal, unit = self.weights
        return {
            "surface": surface * value[:, :n].abs().mean(),
            "off_surface": off * off_surface(value[:, n:]),
            "normal": normal * normal_alignment(gradient[:, :n], batch.normals),
            "eikonal": unit * eikonal(gradient),
        }
