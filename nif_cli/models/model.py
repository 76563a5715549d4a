"""The master seam: a Model takes data while it trains and gives Fields afterwards."""

from __future__ import annotations

import inspect
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nif_cli import NifError, __version__
from nif_cli.data.datamodule import Data, Needs
from nif_cli.data.scenes.scene import Scene
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.samples import Observation, observation_of
from nif_cli.field import Field, Signal
from nif_cli.fields.network import Encoding, Network
from nif_cli.geometry.transform import SPACES, Transform
from nif_cli.untrusted import number, numbers, shown, text

CHECKPOINT_FORMAT = 1  # of a checkpoint's "nif" entry; raised when an older nif could not read it


FARTHEST = 1e30  # offsets and scales of a user's units, as meshes may have them
# of an observation's arrays: number of axes, lengths that the last may have (none: any), kind of the numbers
OBSERVED = {
    "points": (2, (3,), "f"),
    "normals": (2, (3,), "f"),
    "samples": (2, (2, 3), "f"),
    "distance": (1, (), "f"),
    "inside": (1, (), "b"),
    "free": (2, (3,), "f"),
    "colors": (2, (1, 3, 4), "f"),
    "pixels": (4, (1, 3, 4), "u"),
    "occupied": (3, (), "b"),
}


@dataclass(frozen=True)
class Instance:
    """One shape or scene that a model knows: its id and how it lies in the user's units."""

    id: str
    transform: Transform
    observation: Observation | None = None  # for models that make a field from what is seen of it
    scene: Scene | None = None  # of a radiance field: its cameras and limits, without the images


@dataclass
class Inferred:
    """A shape that was not trained on: its field, what making it took (loss, steps, seconds, ...: plain
    values for a JSON file), and the tensors that make it again ('code', or adapted weights by name)."""

    field: Field | Signal
    report: dict[str, Any]
    state: dict[str, Tensor]


class Model(nn.Module):
    """A family of fields: a plain module, which training/lightning.py trains. Subclasses say what to minimise
    (`loss`) and how a known instance becomes a Field (`field`).

    `optimizer(groups)` and `scheduler(optimizer)` make theirs; a scheduler that takes `progress` gets the
    fraction of the training that is done. `lr` is the network's learning rate. `observes` lists the kinds of
    observation that `infer` understands (see data/shapes/observations.py), the best first; a model that
    infers nothing leaves it empty.
    """

    observes: tuple[str, ...] = ()
    units: ClassVar[Mapping[str, str]] = {}
    learns: type[Data] = ShapeData  # the kind of data that `attach_data` takes
    needs = Needs()  # what it asks of its data
    clip: float | None = None  # the norm that gradients are clipped to where the user says nothing

    def __init__(self, lr: float, optimizer: Callable[..., Any], scheduler: Callable[..., Any] | None = None):
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr={lr}: must be positive")
        self.lr, self._optimizer, self._scheduler = lr, optimizer, scheduler
        self.instances: dict[str, Instance] = {}
        self.space = "ball"  # how shapes are normalised (geometry.transform.SPACES); that of the data
        self.config: dict[str, Any] = {}  # the resolved configuration that made it; saved with it
        self.step = 0  # of the training; the trainer counts
        # how much of the training is done, in [0, 1]; the trainer knows
        self.progress: Callable[[], float] = lambda: 0.0
        self._began = time.monotonic()

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """The scalar terms of the loss, already weighted; what is minimised is their sum."""

    @abstractmethod
    def field(self, id: str) -> Field | Signal:
        """The field of a known instance (of an image: the Signal)."""

    def final_metrics(self, data: Any) -> dict[str, float]:
        """How good it is by its own data, once it is trained: what is cheap to know, for the summary. In
        `units`."""
        return {}

    def infer(self, observations: Sequence[Observation], **options: Any) -> list[Inferred]:
        """Fields of new shapes from what is seen of them, all together. NifError where the model cannot."""
        raise NifError(
            f"model={type(self).__name__.lower()} knows the shape it was trained on and infers no other; "
            "train model=deepsdf, occupancy or metasdf for that"
        )

    def between(self, first: str, second: str, share: float) -> Field:
        """A shape on the way from one known instance (share 0) to another (share 1). NifError where the model
        has none."""
        raise NifError(
            f"interpolate: {type(self).__name__} has no space of shapes to move in; add compose=morph"
        )

    def sample(self, count: int, seed: int = 0) -> list[Field]:
        """New shapes, drawn at random. NifError where the model cannot."""
        raise NifError(
            f"sample: {type(self).__name__} has no space of shapes to draw from; model=deepsdf has"
        )

    @abstractmethod
    def attach_data(self, data: Any) -> None:
        """Before training: take the instances of the data, which meets the model's `needs`."""

    @abstractmethod
    def allocate(self, ids: list[str]) -> None:
        """Make room for these instances; a checkpoint's state is loaded afterwards."""

    @property
    def bounds(self) -> Tensor:
        """[2, 3]: the box that holds every shape of this model's normalised space."""
        half = SPACES[self.space][1]
        return torch.tensor([[-half] * 3, [half] * 3])

    @cached_property
    def networks(self) -> list[Network]:
        return [part for part in self.modules() if isinstance(part, Network)]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def parameter_groups(self) -> list[dict]:
        return self.groups_of(self)

    def groups_of(self, module: nn.Module) -> list[dict]:
        """The parameters of a network for the optimizer: weights at `lr`, tables of features (modules with a
        `table_rate`) as much faster, and without Adam's eps, which is larger than the gradients of rows that
        few points see."""
        parts = [
            m for m in module.modules() if isinstance(m, Network | Encoding) and m.table_rate is not None
        ]
        tables = {id(p): part.table_rate for part in parts for p in part.parameters()}
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
        scheduler = (
            self._scheduler(optimizer, progress=self.progress)
            if takes_progress
            else self._scheduler(optimizer)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def terms(self, batch: Any) -> dict[str, Tensor]:
        """What a training step minimises the sum of: the loss, and the priors that networks bring of their
        own."""
        terms = self.loss(batch)
        priors = [prior for network in self.networks if (prior := network.penalty()) is not None]
        return {**terms, "prior": torch.stack(priors).sum()} if priors else terms

    def begin(self) -> None:
        """Called when the training, or what is left of it, begins."""

    def before_step(self) -> None:
        """Called before each training step."""

    def after_step(self) -> None:
        """Called after each training step."""

    def validation_metrics(self, batch: Any) -> dict[str, Tensor]:
        """What is logged of a held-out batch: the loss, and what a model adds to it."""
        return {"val/loss": torch.stack(list(self.loss(batch).values())).sum()}

    def held_out(self, batches: Iterable[Any]) -> dict[str, float]:
        """The means of what is watched over held-out batches."""
        self.eval()
        with torch.no_grad():
            values = [self.validation_metrics(b) for b in batches]
        self.train()
        return {name: float(torch.stack([v[name] for v in values]).mean()) for name in values[0]}

    @property
    def seconds(self) -> float:
        """That it has been trained for, those before a resume included."""
        return time.monotonic() - self._began

    def start_clock(self, seconds_before: float = 0.0) -> None:
        self._began = time.monotonic() - seconds_before

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "config": self.config,
            "space": self.space,
            "instances": [_saved(i) for i in self.instances.values()],
            "seconds": self.seconds,
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }

    def restore_instances(self, saved: list[dict]) -> None:
        """The instances of a checkpoint, before its weights are loaded. NifError for what is none."""
        found = [_restored(i, f"instance {k}") for k, i in enumerate(saved)]
        self.allocate([i.id for i in found])
        self.instances = {i.id: i for i in found}
        if len(self.instances) < len(found):
            raise NifError("two of its instances have the same id")


def _saved(instance: Instance) -> dict[str, Any]:
    seen = instance.observation.arrays() if instance.observation else {}
    return {
        "id": instance.id,
        **instance.transform.as_dict(),
        **(
            {"observation": {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in seen.items()}}
            if seen
            else {}
        ),
        **({"scene": instance.scene.state()} if instance.scene else {}),
    }


def _restored(saved: Any, where: str) -> Instance:
    """An instance of a checkpoint, which may be a stranger's."""
    if not isinstance(saved, dict):
        raise NifError(f"{where}: a {type(saved).__name__}, where id, offset and scale belong")
    id = text(saved.get("id"), f"{where}: id")
    where = f"instance '{shown(id, 40)}'"
    x, y, z = numbers(saved.get("offset"), f"{where}: offset", (3,), -FARTHEST, FARTHEST).tolist()
    transform = Transform((x, y, z), number(saved.get("scale"), f"{where}: scale", 1 / FARTHEST, FARTHEST))
    seen = saved.get("observation")
    observation = _observation(seen, where) if seen else None
    scene = Scene.restored(id, transform, saved["scene"]) if "scene" in saved else None
    return Instance(id, transform, observation, scene)


def _observation(saved: Any, where: str) -> Observation:
    """An observation by its arrays: of the numbers of axes and the types that they have when a run is
    made."""
    if not isinstance(saved, dict) or not saved.keys() <= OBSERVED.keys():
        raise NifError(f"{where}: its observation is not arrays by name ({', '.join(OBSERVED)})")
    found = {}
    for name, tensor in saved.items():
        axes, last, kind = OBSERVED[name]
        if (
            not isinstance(tensor, Tensor)
            or tensor.dim() != axes
            or (last and tensor.shape[-1] not in last)
            or not (tensor.numel() or name == "free")
        ):
            shape = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise NifError(
                f"{where}: its {name} are {shape}; they must have {axes} axes"
                + f", the last of {last}" * bool(last)
            )
        array = tensor.detach().contiguous().numpy()
        if array.dtype.kind != kind or (kind == "f" and not np.isfinite(array).all()):
            raise NifError(f"{where}: its {name} are {array.dtype}, or not finite")
        found[name] = array
    lengths = {len(found[n]) for n in ("samples", "distance", "inside", "colors") if n in found}
    if len(lengths) > 1 or ("normals" in found and len(found["normals"]) != len(found.get("points", ()))):
        raise NifError(f"{where}: the arrays of its observation are not of one length")
    try:
        return observation_of(found)
    except NifError as error:
        raise NifError(f"{where}: its observation: {error}") from error
