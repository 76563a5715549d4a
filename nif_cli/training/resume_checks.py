"""What goes on when a run is resumed: from which checkpoint, and which of its settings may have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nif_cli import NifError, runs
from nif_cli.models.model import Model
from nif_cli.training.reapply import changed, reapply
from nif_cli.untrusted import shown, whole

KEPT = ("field", "encoding", "encoder")  # what the weights mean
TUNED = ("dropout", "table_rate", "smoothness", "noise", "weights")  # ... but for how they are learned
KINDS = ("model", "data", "optimizer", "scheduler")


def checkpoint_of(run: Path) -> tuple[Path | None, dict[str, Any]]:
    """Where a run goes on, and what is in it: its last checkpoint, else its best; None where it was stopped
    before the first."""
    last, best = (run / "checkpoints" / f"{which}.ckpt" for which in ("last", "best"))
    path = last if last.exists() or not best.exists() else best
    if not path.exists():
        print(f"{run}: it was stopped before anything was saved, and begins again")
        return None, {}
    found = runs.read_checkpoint(path)
    if found.get("pruned"):
        raise NifError(
            f"resume={run}: it was pruned to its weights and cannot go on; init_from={run} starts from them"
        )
    if "optimizer_states" not in found:
        raise NifError(
            f"resume={run}: it was imported, without the state of its optimizer; use init_from={run}"
        )
    for key, kind in (("optimizer_states", list), ("lr_schedulers", list), ("callbacks", dict)):
        if not isinstance(found.get(key, kind()), kind):
            raise NifError(
                f"{path}: damaged: its {key} is no {kind.__name__}; init_from={run} takes its weights"
            )
    whole(found.get("global_step"), f"{path}: global_step", 0, 2**62)
    _check_progress(found.get("loops", {}), f"{path}: loops")
    if path == best:
        print(f"{run}: no last.ckpt; it goes on from best.ckpt, step {int(found['global_step']):,}")
    return path, found


def _check_progress(node: Any, where: str) -> None:
    """NifError for a count of the trainer that is none: with NaN steps a training never ends."""
    if isinstance(node, dict):
        for key, value in node.items():
            _check_progress(value, f"{where}.{shown(key)}")
    elif not isinstance(node, bool):
        whole(node, where, 0, 2**62)


def check_settings(run: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """NifError for a setting that a run keeps; `old` is what its checkpoint was trained with."""
    for key, value in changed(old, new).items():
        part, _, rest = key.partition(".")
        last = rest.rpartition(".")[2]
        kept = (part in KEPT and last not in TUNED) or (part in KINDS and last == "_target_") or key == "seed"
        if kept:
            raise NifError(
                f"{key}={value}: a resumed run keeps its {part} (it was {_value(old, key)}); "
                f"init_from={run} starts a new run"
            )


def check_fit(run: Path, model: Model, checkpoint: dict[str, Any]) -> None:
    """NifError if the checkpoint's weights, or the state of its optimizer, are not this model's: named by
    what has changed since. `checkpoint` is changed as Lightning's own will be."""
    theirs, ours = checkpoint["state_dict"], model.state_dict()
    wrong = sorted(ours.keys() ^ theirs.keys()) or [k for k in ours if ours[k].shape != theirs[k].shape]
    if wrong:
        since = [
            k
            for k in changed(checkpoint["nif"]["config"], model.config)
            if k.startswith(("model.", "field.", "data."))
        ]
        what = ", ".join(since[:3]) or "config.yaml"
        raise NifError(
            f"{what}: the weights of {run} do not fit any more ({wrong[0]}); init_from={run} starts a new run"
        )
    reapply(model, checkpoint)


def check_instances(run: Path, model: Model, saved: list[dict[str, Any]]) -> None:
    """NifError if the data are not those that the run learned from: other shapes, or the same names lying
    elsewhere."""
    ids = [i["id"] for i in saved]
    if ids != list(model.instances):
        raise NifError(
            f"resume={run}: its data has changed since ({len(ids)} shapes then, {len(model.instances)} "
            "now); use init_from"
        )
    for was, now in zip(saved, model.instances.values(), strict=True):
        scale, offset = float(was["scale"]), [float(x) for x in was["offset"]]
        size = 1 / max(now.transform.scale, 1e-30)
        far = max(abs(a - b) for a, b in zip(offset, now.transform.offset, strict=True))
        if abs(scale / now.transform.scale - 1) > 1e-3 or far > 1e-3 * size:
            raise NifError(
                f"resume={run}: {now.id} has another size or place now than the run learned; use "
                f"init_from={run}"
            )


def _value(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
