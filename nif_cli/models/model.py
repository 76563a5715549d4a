"""The master seam: a Model takes data while it trains and gives Fields afterwards."""

from __future__ import annotations

import inspect
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor, nn

from nif_cli import NifError, __version__
from nif_cli.data.module import Data
from nif_cli.data.samples import Look, Observation
from nif_cli.data.scene import Scene
from nif_cli.data.shapes import ShapeData
from nif_cli.field import Field, Signal
from nif_cli.geometry.mesh import SPACES, Transform
from nif_cli.models.resuming import reapply

CHECKPOINT_FORMAT = 1  # of a checkpoint's "nif" entry; raised when an older nif could not read it


@dataclass(frozen=True)
class Instance:
    """One shape or scene that a model knows: its id and how it lies in the user's units."""

    id: str
    transform: Transform
    observation: Observation | None = None  # for models that make a field from what is seen of it
    scene: Scene | None = None  # of a radiance field: its cameras and limits, without the pictures


@dataclass
class Inferred:
    """A shape that was not trained on: its field, what making it took (loss, steps, seconds, ...: plain values for a JSON
    file), and the tensors that make it again ('code', or adapted weights by name)."""

    field: Field | Signal
    report: dict[str, Any]
    state: dict[str, Tensor]


class Model(pl.LightningModule):
    """A family of fields. Subclasses say what to minimise (`loss`) and how a known instance becomes a Field (`field`).

    `optimizer(groups)` and `scheduler(optimizer)` make theirs; a scheduler that takes `progress` gets the fraction of the
    training that is done. `lr` is the network's learning rate. `observes` lists the kinds of observation that `infer`
    understands (see data/observing.py), the best first; a model that infers nothing leaves it empty.
    """

    observes: tuple[str, ...] = ()
    units: Mapping[str, str] = {}
    learns: type[Data] = ShapeData  # the kind of data that `adopt` takes
    look: Look | None = None  # what batches should show it of each shape

    def __init__(self, lr: float, optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None = None):
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr={lr}: must be positive")
        self.lr, self._optimizer, self._scheduler = lr, optimizer, scheduler
        self.instances: dict[str, Instance] = {}
        self.space = "ball"  # how shapes are normalised (geometry.mesh.SPACES); that of the data
        self.terms: dict[str, Tensor] = {}  # the last step's loss, for the progress bar
        self.log_every = 50
        self.config: dict[str, Any] = {}  # the resolved configuration that made it; saved with it
        self._random_state: Tensor | None = None
        self._time_of_all = 0.0
        self._seconds_before, self._began = 0.0, time.monotonic()

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """The scalar terms of the loss, already weighted; what is minimised is their sum."""

    @abstractmethod
    def field(self, id: str) -> Field | Signal:
        """The field of a known instance (of a picture: the Signal)."""

    def figures(self, data: Any) -> dict[str, float]:
        """How good it is by its own data, once it is trained: what is cheap to know, for the summary. In `units`."""
        return {}

    def infer(self, observations: Sequence[Observation], **options: Any) -> list[Inferred]:
        """Fields of new shapes from what is seen of them, all together. NifError where the model cannot."""
        raise NifError(
            f"model={type(self).__name__.lower()} knows the shape it was trained on and infers no other; "
            "train model=deepsdf, occupancy or metasdf for that"
        )

    def between(self, first: str, second: str, share: float) -> Field:
        """A shape on the way from one known instance (share 0) to another (share 1). NifError where the model has none."""
        raise NifError(f"interpolate: {type(self).__name__} has no space of shapes to move in; add compose=morph")

    def sample(self, count: int, seed: int = 0) -> list[Field]:
        """New shapes, drawn at random. NifError where the model cannot."""
        raise NifError(f"sample: {type(self).__name__} has no space of shapes to draw from; model=deepsdf has")

    @abstractmethod
    def adopt(self, data: Any) -> None:
        """Before training: take the instances of the data, and say which of its needs the data cannot meet."""

    @abstractmethod
    def allocate(self, ids: list[str]) -> None:
        """Make room for these instances; a checkpoint's state is loaded afterwards."""

    @property
    def bounds(self) -> Tensor:
        """[2, 3]: the box that holds every shape of this model's normalised space."""
        half = SPACES[self.space][1]
        return torch.tensor([[-half] * 3, [half] * 3])

    @cached_property
    def smoothed(self) -> list[Any]:
        """The parts of its networks that bring a prior of their own: modules with a `penalty()`."""
        return [part for part in self.modules() if hasattr(part, "penalty")]

    def parameter_groups(self) -> list[dict]:
        return self.groups_of(self)

    def groups_of(self, module: nn.Module) -> list[dict]:
        """The parameters of a network for the optimizer: weights at `lr`, tables of features (modules with a `table_rate`)
        as much faster, and without Adam's eps, which is larger than the gradients of rows that few points see."""
        tables = {id(p): m.table_rate for m in module.modules() if hasattr(m, "table_rate") for p in m.parameters()}
        groups = [{"params": [p for p in module.parameters() if id(p) not in tables], "lr": self.lr}]
        for rate in sorted(set(tables.values())):  # type: ignore[arg-type]
            of_rate = [p for p in module.parameters() if tables.get(id(p)) == rate]
            groups.append({"params": of_rate, "lr": self.lr * rate, "eps": 1e-15})  # type: ignore[operator]
        return [g for g in groups if g["params"]]

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameter_groups())
        if self._scheduler is None:
            return optimizer
        takes_progress = "progress" in inspect.signature(self._scheduler).parameters
        scheduler = self._scheduler(optimizer, progress=self.progress) if takes_progress else self._scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """trainer.gradient_clip_val: the network's gradients are clipped; those of codes are sparse, and few."""
        if gradient_clip_val:
            dense = [p for p in self.parameters() if p.grad is not None and not p.grad.is_sparse]
            by_value = str(gradient_clip_algorithm) == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            clip(dense, gradient_clip_val)

    def progress(self) -> float:
        """How much of the training is done, in [0, 1]: of trainer.max_steps or trainer.max_time, whichever is more."""
        trainer = self._trainer
        if trainer is None:
            return 0.0
        by_steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
        by_time = self._time_of_all if trainer.world_size > 1 else self._own_time(trainer)
        return min(1.0, max(by_steps, by_time))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.world_size > 1:  # clocks differ between processes, learning rates must not
            self._time_of_all = self.trainer.strategy.broadcast(self._own_time(self.trainer))

    @staticmethod
    def _own_time(trainer: pl.Trainer) -> float:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and callback._duration:
                return callback.time_elapsed() / callback._duration
        return 0.0

    def training_step(self, batch: Any, index: int) -> Tensor:
        terms = self.loss(batch)
        if self.smoothed:
            terms["prior"] = torch.stack([part.penalty() for part in self.smoothed]).sum()
        total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        self.terms = {"loss": total.detach(), **{name: term.detach() for name, term in terms.items()}}
        if self.global_step % self.log_every == 0:
            # straight to the loggers: Lightning's `self.log` would cost as much as a small network's step
            values = {f"train/{name}": float(term) for name, term in self.terms.items()}
            if not all(v == v and abs(v) != float("inf") for v in values.values()):
                raise NifError(
                    f"the loss is not finite after {self.global_step} steps: try a smaller model.lr (it is {self.lr:g})"
                )
            values["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
            values["train/seconds"] = time.monotonic() - self._began
            for logger in self.loggers:
                logger.log_metrics(values, self.global_step)
        return total

    def watched(self, batch: Any) -> dict[str, Tensor]:
        """What is logged of a held-out batch: the loss, and what a model adds to it."""
        return {"val/loss": torch.stack(list(self.loss(batch).values())).sum()}

    def validation_step(self, batch: Any, index: int) -> None:
        self.log_dict(self.watched(batch), batch_size=len(batch))

    def held_out(self, batches: Iterable[Any]) -> dict[str, float]:
        """The means of what is watched over held-out batches."""
        self.eval()
        with torch.no_grad():
            values = [self.watched(b) for b in batches]
        self.train()
        return {name: float(torch.stack([v[name] for v in values]).mean()) for name in values[0]}

    def on_fit_start(self) -> None:
        self._began = time.monotonic() - self._seconds_before

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["nif"] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "config": self.config,
            "space": self.space,
            "instances": [_saved(i) for i in self.instances.values()],
            "seconds": time.monotonic() - self._began,
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resuming: random numbers go on where they stopped, under the settings of now."""
        reapply(self, checkpoint)
        self._seconds_before = float(checkpoint["nif"]["seconds"])
        random = checkpoint["nif"]["random"]
        self._random_state = random["cpu"]
        if random["cuda"] and torch.cuda.device_count() == len(random["cuda"]):
            torch.cuda.set_rng_state_all(random["cuda"])

    def on_train_start(self) -> None:
        if self._random_state is not None:  # last: whatever Lightning drew while it started does not count
            torch.set_rng_state(self._random_state)
            self._random_state = None

    def restore_instances(self, saved: list[dict]) -> None:
        """The instances of a checkpoint, before its weights are loaded."""
        self.allocate([i["id"] for i in saved])
        self.instances = {i["id"]: _restored(i) for i in saved}


def _saved(instance: Instance) -> dict[str, Any]:
    seen = instance.observation.arrays() if instance.observation else {}
    return {
        "id": instance.id,
        **instance.transform.as_dict(),
        **({"observation": {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in seen.items()}} if seen else {}),
        **({"scene": instance.scene.state()} if instance.scene else {}),
    }


def _restored(saved: dict[str, Any]) -> Instance:
    seen = saved.get("observation")
    observation = Observation(**{name: tensor.numpy() for name, tensor in seen.items()}) if seen else None
    transform = Transform(tuple(saved["offset"]), saved["scale"])
    scene = Scene.restored(saved["id"], transform, saved["scene"]) if "scene" in saved else None
    return Instance(saved["id"], transform, observation, scene)
