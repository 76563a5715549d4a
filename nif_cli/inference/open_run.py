"""What the commands on a finished run share: which run, which device, which instances, and saying so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nif_cli import NifError, runs
from nif_cli.field import Field, Signal
from nif_cli.geometry.transform import Transform
from nif_cli.inference import edits as inference_edits
from nif_cli.models.model import Model
from nif_cli.progress import busy
from nif_cli.schemas import OfShapes


@dataclass
class OpenRun:
    path: Path
    model: Model
    device: torch.device
    instances: list[str]
    config: OfShapes
    composed: list[inference_edits.Operand]  # what compose= puts together, of this run or of several

    def fields(self) -> Iterator[tuple[str, Field | Signal, Transform]]:
        """(name, field, transform to the user's units) of the instances; with interpolate= of the shapes
        between two of them, with sample= of new ones (in normalised space), with compose= of what they make
        together."""
        if self.composed:
            yield from inference_edits.composed(self.composed, self.config, self.device)
            return
        edits = [key for key in ("offset", "shell") if getattr(self.config, key)]
        for name, field, transform in self._learned():
            if edits:
                if not isinstance(field, Field) or field.bounds.shape[1] != 3:
                    raise NifError(f"{edits[0]}: is for shapes in space, and {name} is none")
                unit = transform.scale if self.config.frame == "original" else 1.0
                name, field = (
                    f"{'-'.join(edits)}/{name}",
                    inference_edits.edited(field, self.config, unit, self.device),
                )
            yield name, field, transform

    def _learned(self) -> Iterator[tuple[str, Field | Signal, Transform]]:
        steps, count = self.config.interpolate, self.config.sample
        if steps is not None:
            first, second = self.instances
            a, b = (self.model.instances[id].transform for id in self.instances)
            for k in range(steps):
                share = k / (steps - 1)
                yield (
                    f"interpolation/{pair_name(first, second)}/{k:03d}",
                    self.model.between(first, second, share),
                    a.towards(b, share),
                )
        elif count is not None:
            for k, field in enumerate(self.model.sample(count, self.config.seed)):
                yield f"samples/seed{self.config.seed}_{k:03d}", field, Transform()
        else:
            for id in self.instances:
                with busy(f"{id}: opening"):
                    field = self.model.field(id)
                yield id, field, self.model.instances[id].transform


def pair_name(first: str, second: str) -> str:
    """What the way between two instances is called in files."""
    return f"{first}--{second}".replace("/", "_")


def open_run(config: OfShapes) -> OpenRun:
    """The run (or runs), model and instances that a command's keys name; says which, where the user did
    not."""
    device = runs.device_for(config.device)
    inference_edits.check_keys(config)
    steps, count = config.interpolate, config.sample
    if steps is not None and count is not None:
        raise NifError("interpolate and sample: give one of them")
    if isinstance(config.run, list) or config.compose is not None:
        named = config.run if isinstance(config.run, list) else [config.run]
        paths = [runs.find(None if run is None else str(run)) for run in named]
        if config.run is None:
            print(f"run: {paths[0]}")
        with busy("opening the runs"):
            models = [runs.load_model(path, config.checkpoint, device) for path in paths]
        chosen = inference_edits.operands(models, config.instances, config.compose)
        return OpenRun(paths[0], models[0], device, [id for id, _ in chosen], config, chosen)
    path = runs.find(None if config.run is None else str(config.run))
    with busy("opening the run"):
        model = runs.load_model(path, config.checkpoint, device)
    known = list(model.instances)
    chosen = runs.select(known, config.instances)
    if config.run is None:
        print(f"run: {path}")
    if steps is not None and len(chosen) != 2:
        raise NifError(
            f"interpolate goes between two instances: give instances=[a,b] ({len(chosen)} are chosen)"
        )
    if count is None and steps is None and len(chosen) < len(known):
        more = "" if config.instances is not None else "; instances=all takes them all"
        print(f"{len(chosen)} of {len(known)} instances{more}")
    return OpenRun(path, model, device, chosen, config, [])
