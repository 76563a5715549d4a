"""Resuming under changed settings. Lightning restores the options of optimizer and schedule from a
checkpoint; what the user has changed since goes before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nif_cli import NifError

if TYPE_CHECKING:
    from nif_cli.models.model import Model


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a configuration; a list is a value."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Keys whose values differ, with the new ones (None: gone)."""
    before, after = dict(leaves(old)), dict(leaves(new))
    missing = object()
    return {k: after.get(k) for k in {**before, **after} if before.get(k, missing) != after.get(k, missing)}


def reapply(model: Model, checkpoint: dict[str, Any]) -> None:
    """Put the model's own settings into the checkpoint, before it is restored: rates, decay and the like of
    the optimizer, values of the schedule and of callbacks. What has not been changed stays bit for bit.
    NifError names what cannot be."""
    new = changed(checkpoint["nif"]["config"], model.config)
    made = model.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    states, schedules = checkpoint.get("optimizer_states") or [], checkpoint.get("lr_schedulers") or []
    if len(states) != 1 or len(schedules) != int(isinstance(made, dict)):
        raise NifError(
            "resume: another optimizer or scheduler than the run was trained with; init_from starts a new run"
        )
    saved, fresh = states[0]["param_groups"], optimizer.param_groups
    if [len(g["params"]) for g in saved] != [len(g["params"]) for g in fresh]:
        raise NifError(
            "resume: its optimizer does not fit the model any more "
            f"({', '.join(new) or 'other parameters'} changed)"
        )
    bases = []
    for old, own in zip(saved, fresh, strict=True):
        base = old.get("initial_lr", old["lr"])
        wanted = own.get("initial_lr", own["lr"])
        if wanted != base:  # the schedule goes on where it was, from another height
            old["lr"] = old["lr"] * wanted / base if base else wanted
        bases.append(wanted)
        if "initial_lr" in old:
            old["initial_lr"] = wanted
        for key, value in own.items():
            if key not in ("params", "lr", "initial_lr") and old.get(key) != value:
                old[key] = value
    if schedules:
        _reapply_schedule(schedules[0], made["lr_scheduler"]["scheduler"], bases, new)
    for key, value in new.items():
        part, _, rest = key.partition(".")
        name, _, option = rest.partition(".")
        node = (model.config.get("callbacks") or {}).get(name) if part == "callbacks" else None
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            for own, state in (checkpoint.get("callbacks") or {}).items():
                if (
                    str(own).startswith(node["_target_"].rpartition(".")[2])
                    and isinstance(state, dict)
                    and option in state
                ):
                    state[option] = value


def _reapply_schedule(state: dict[str, Any], fresh: Any, bases: list[float], new: dict[str, Any]) -> None:
    if "base_lrs" in state and list(state["base_lrs"]) != bases:
        state["base_lrs"] = bases
    own = fresh.state_dict()
    for key, value in new.items():
        part, _, option = key.partition(".")
        if part != "scheduler" or option in ("", "_target_", "_partial_"):
            continue
        if option in own:  # as gamma and step_size of torch's
            state[option] = own[option]
        elif not type(fresh).__module__.startswith(
            "nif_cli."
        ):  # ours take everything from their own arguments
            raise NifError(
                f"{key}={value}: {type(fresh).__name__} cannot change it when a run is resumed; init_from "
                "starts anew"
            )
