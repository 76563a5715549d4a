"""What nif train asks of any data, whatever it holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl


class Data(pl.LightningDataModule):
    """A Lightning data module whose batch k is a function of (seed, k), drawn on the training device."""

    holds = "data"  # what a source has, in words
    kind = "shapes"  # what one of them is called in evaluation.json
    space = "ball"  # how its instances are normalised: a key of geometry.mesh.SPACES
    batch_points: int

    @abstractmethod
    def prepare(self) -> Sequence[Any]:
        """Read or make everything, once. Each instance has an `id`, a `transform` and a `report` for the screen."""

    @abstractmethod
    def summary(self) -> str:
        """How much there is, in words."""

    def setup(self, stage: str | None = None) -> None:
        self.prepare()
