"""The data that a run is compared with."""

from __future__ import annotations

from typing import Any

from nif_cli import NifError, runs
from nif_cli.config import build, check_node
from nif_cli.data.datamodule import Data
from nif_cli.models.model import Model


def data_of(model: Model, data: dict[str, Any] | None = None, split: str | None = None) -> Data:
    """The data to compare with: the run's own, with the user's changes, or another source."""
    given = data or {}
    stranger = "_target_" not in given  # the run's own, wherever it lies now; a run may be a stranger's
    if stranger:
        own = {k: v for k, v in (model.config.get("data") or {}).items() if k not in given}
        own = runs.located({**model.config, "data": own})["data"]
        runs.look_first(own)
        given = {**own, **given}
    node = dict(given)
    if split is not None:
        node["split"] = split
    node.pop("instances", None) if split is not None else None
    node.setdefault("seed", 0)
    check_node(node, "data")
    made = build(node, "data", **({"allowed": runs.READ_ALLOWED} if stranger else {}))
    if not isinstance(made, model.learns):
        raise NifError(
            f"evaluate: this run is of {model.learns.holds}, the data holds "
            f"{getattr(made, 'holds', 'none of it')}"
        )
    made.expect(model.needs)
    return made
