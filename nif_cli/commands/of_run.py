"""What the commands on a finished run share: which run, which device, which instances, and saying so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nif_cli import runs
from nif_cli.models.model import Model


@dataclass
class OpenRun:
    path: Path
    model: Model
    device: torch.device
    instances: list[str]


def open_run(config: dict[str, Any]) -> OpenRun:
    """The run, model and instances that a command's keys name; says which, where the user did not."""
    device = runs.device_for(config["device"])
    path = runs.find(config["run"])
    model = runs.load(path, config["checkpoint"], device)
    known = list(model.instances)
    chosen = runs.select(known, config["instances"])
    if config["run"] is None:
        print(f"run: {path}")
    if len(chosen) < len(known):
        more = "" if config["instances"] is not None else "; instances=all takes them all"
        print(f"{len(chosen)} of {len(known)} instances{more}")
    return OpenRun(path, model, device, chosen)
