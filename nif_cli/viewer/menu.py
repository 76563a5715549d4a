"""What there is to look at: the fields of a run by name, made when they are chosen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli.field import Field, Signal
from nif_cli.geometry.transform import Transform
from nif_cli.inference.open_run import OpenRun
from nif_cli.models.deepsdf import DeepSdf

KEPT = 4  # fields, which may hold adapted weights each
DIRECTIONS = 5  # of the codes, those in which they differ most


class Menu:
    """The instances that the keys choose, or what compose=, interpolate= and sample= make of them."""

    def __init__(self, run: OpenRun):
        self.run = run
        config = run.config
        made = run.composed or config.interpolate or config.sample or config.offset or config.shell
        self._made = {name: (field, place) for name, field, place in run.fields()} if made else {}
        self._kept: dict[str, Field | Signal] = {}
        self.names = list(self._made) or list(run.instances)

    def field(self, name: str) -> Field | Signal:
        if name in self._made:
            return self._made[name][0]
        if name not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[name] = self.run.model.field(name)
        return self._kept[name]

    def transform(self, name: str) -> Transform:
        return self._made[name][1] if name in self._made else self.run.model.instances[name].transform

    @property
    def codes(self) -> CodeSpace | None:
        """Where the run has learned a code for each of several instances."""
        model = self.run.model
        if self._made or not isinstance(model, DeepSdf) or len(model.instances) < 2:
            return None
        return CodeSpace(model)


class CodeSpace:
    """The learned codes, and the directions in which they differ most."""

    def __init__(self, model: DeepSdf):
        self._model = model
        codes = torch.stack([model.code(id).detach() for id in model.instances])
        _, sigma, v = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
        sigma = sigma / max(1, len(codes) - 1) ** 0.5
        count = min(DIRECTIONS, len(codes) - 1, len(sigma))
        self.directions: Float[Tensor, "K Z"] = sigma[:count, None] * v[:count]
        """Each as long as the codes' standard deviation along it."""

    def field(self, first: str, second: str, share: float, steps: list[float]) -> Field:
        """The shape on the way from one instance to another, moved by so many standard deviations along each
        direction."""
        code = torch.lerp(self._model.code(first), self._model.code(second), share).detach()
        moved = code + torch.tensor(steps).to(code) @ self.directions[: len(steps)]
        return self._model.decoded(moved)
