"""A run's checkpoints and models, written and read back. Files of strangers are read as data, never run."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from nif_cli import NifError, __version__
from nif_cli.config import build, did_you_mean, locate
from nif_cli.encoders.encoder import Encoder
from nif_cli.fields.network import Encoding, Network, RadianceNetwork
from nif_cli.files import safe_name as safe_name  # what a run is written with
from nif_cli.files import write as write
from nif_cli.geometry.transform import SPACES
from nif_cli.models.model import CHECKPOINT_FORMAT, Model
from nif_cli.run_folders import OUTPUTS as OUTPUTS
from nif_cli.run_paths import located as located
from nif_cli.run_paths import look_first as look_first
from nif_cli.run_paths import paths_of as paths_of
from nif_cli.run_search import find as find
from nif_cli.torch_files import read_torch
from nif_cli.untrusted import shown, whole

BASES = {"field": (Network, RadianceNetwork), "encoding": (Encoding,), "encoder": (Encoder,)}
LARGEST_SIZE = 2**26  # of any number in the configuration of a network
READ_ALLOWED = ("nif_cli.", "torch.optim.", "torch.nn.")  # what a checkpoint's own configuration may name


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nif as plain data. NifError for anything else: other files, code in the pickle, newer
    formats."""
    checkpoint = read_torch(path, "checkpoint")
    nif = checkpoint.get("nif") if isinstance(checkpoint, dict) else None
    if (
        not isinstance(nif, dict)
        or not isinstance(nif.get("config"), dict)
        or not isinstance(nif.get("instances"), list)
    ):
        raise NifError(f"{path}: a checkpoint, but not one of nif")
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in weights.items()
    ):
        raise NifError(f"{path}: its state_dict is not tensors by name")
    if whole(nif.get("format"), f"{path}: nif.format", 1) > CHECKPOINT_FORMAT:
        newer = shown(nif.get("version"), 20)
        raise NifError(
            f"{path}: made by nif {newer}, which is newer than this one ({__version__}); upgrade nif"
        )
    return checkpoint


def make_model(config: dict[str, Any], allowed: tuple[str, ...] | None = None) -> Model:
    """The model that a resolved configuration describes, with fresh weights and no instances yet."""
    extra = {} if allowed is None else {"allowed": allowed}
    for part in ("field", "optimizer", "model"):
        node = config.get(part)
        if not isinstance(node, dict) or "_target_" not in node:
            raise NifError(f"{part}: it has no _target_, the class to build; choose one by {part}=<name>")
    for part, bases in BASES.items():
        node = config.get(part)
        if isinstance(node, dict) and "_target_" in node:
            kind = locate(node["_target_"], part, **extra)
            if not issubclass(kind, bases):
                wanted = " or ".join(f"{b.__module__}.{b.__name__}" for b in bases)
                raise NifError(f"{part}._target_={node['_target_']}: it must be a class below {wanted}")
    field = build(config["field"], "field", **extra)
    encoding = build(config.get("encoding") or None, "encoding", **extra)
    if encoding is not None:
        if "encoding" not in inspect.signature(field.func.__init__).parameters:
            raise NifError(f"encoding: {field.func.__name__} takes none; choose encoding=none or field=mlp")
        field = functools.partial(field, encoding=encoding)
    optimizer = build(config["optimizer"], "optimizer", **extra)
    scheduler = build(config.get("scheduler") or None, "scheduler", **extra)
    for name, made in (("field", field), ("optimizer", optimizer)):
        if not isinstance(made, functools.partial):
            raise NifError(f"{name}: it must have _partial_: true; its model completes it")
    given = {"field": field, "optimizer": optimizer, "scheduler": scheduler}
    if config.get("encoder"):
        kind = locate(config["model"]["_target_"], "model", **extra)
        if "encoder" not in inspect.signature(kind.__init__).parameters:
            raise NifError(f"encoder: {kind.__name__} takes none; choose encoder=none, or model=occupancy")
        given["encoder"] = build(config["encoder"], "encoder", **extra)
    model = build(config["model"], "model", **given, **extra)
    if not isinstance(model, Model):
        raise NifError(f"model._target_={config['model'].get('_target_')}: not a model of nif")
    model.config = config
    return model


def snapshots(run: Path) -> dict[int, Path]:
    """The checkpoints that were kept on the way, by their step."""
    found = (
        re.fullmatch(r"step-(\d{1,18})\.ckpt", p.name) for p in (run / "checkpoints").glob("step-*.ckpt")
    )
    return {int(f[1]): run / "checkpoints" / f[0] for f in found if f}


def load_model(run: Path, which: str | int = "last", device: torch.device | str = "cpu") -> Model:
    """The trained model of a run, in evaluation mode on `device`; the run needs nothing from outside its
    folder."""
    if isinstance(which, int):
        kept = snapshots(run)
        if which not in kept:
            there = ", ".join(map(str, sorted(kept)[-8:]))
            hint = (
                f"there are {there}"
                if kept
                else "it has none; callbacks.snapshots.every_steps=... keeps some"
            )
            raise NifError(f"checkpoint={which}: {run} has no snapshot of this step; {hint}")
        which = f"step-{which}"
    elif which not in ("last", "best"):
        raise NifError(f"checkpoint={which}: must be last or best, or the step of a snapshot")
    path = run / "checkpoints" / f"{which}.ckpt"
    if which == "last" and not path.exists() and (best := path.with_name("best.ckpt")).is_file():
        print(f"{run}: it was stopped before the first last.ckpt; best.ckpt is taken")
        path = best
    checkpoint = read_checkpoint(path)
    nif = checkpoint["nif"]
    config = nif["config"]
    for part in ("field", "encoding", "encoder", "model"):
        _check_numbers(config.get(part), f"{path}: {part}")
    try:
        # On the meta device nothing is allocated: a checkpoint cannot ask for more memory than its own
        # tensors
        with torch.device("meta"), _Undrawn(), _as_many_parameters(checkpoint["state_dict"]):
            model = make_model(config, READ_ALLOWED)
            space = nif.get("space", "ball")
            if not isinstance(space, str) or space not in SPACES:
                raise ValueError(f"no normalised space '{shown(space)}'")
            model.space = space
            model.restore_instances(nif["instances"])
        model.load_state_dict(_fitting(model, checkpoint["state_dict"]), strict=True, assign=True)
    except NifError as error:
        raise NifError(f"{path}: {shown(error, 400)}") from error
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise NifError(
            f"{path}: its weights do not fit its configuration ({shown(' '.join(lines[:2]), 200)})"
        ) from error
    return model.to(device).eval()


class _Undrawn(TorchFunctionMode):
    """Within, a tensor that should be filled with normal numbers stays as it is: on the meta device torch's
    compiler would be loaded first, a second for nothing."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith("normal_"):  # torch.Tensor's and those of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_numbers(node: Any, where: str) -> None:
    """NifError for a number in a stranger's configuration that no network has: NaN, or sizes that only a loop
    would find to be too large."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            _check_numbers(value, f"{where}.{shown(key, 30)}")
    elif (
        isinstance(node, int | float)
        and not isinstance(node, bool)
        and not (abs(node) <= LARGEST_SIZE if isinstance(node, int) else math.isfinite(node))
    ):
        raise NifError(f"{where} is {shown(repr(node), 30)}; no network has such a number")


@contextmanager
def _as_many_parameters(weights: dict[str, Any]) -> Iterator[None]:
    """ValueError as soon as a model that is built has many more parameters than there are weights for
    them."""
    most, count = 1000 + 4 * len(weights), 0

    def counted(module: torch.nn.Module, name: str, parameter: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(
                f"it describes more than {most} parameters; there are weights for {len(weights)}"
            )

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def _fitting(model: Model, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the model's own types. ValueError where a type cannot be meant, or numbers are not
    finite."""
    own, found = model.state_dict(), {}
    for name, tensor in weights.items():
        dtype = own[name].dtype if name in own else tensor.dtype
        if dtype != tensor.dtype and not (dtype.is_floating_point and tensor.dtype.is_floating_point):
            raise ValueError(f"{name} is {tensor.dtype}; it must be {dtype}")
        found[name] = tensor.to(dtype)
        if dtype.is_floating_point and not bool(torch.isfinite(found[name]).all()):
            raise ValueError(
                f"{shown(name)} holds NaN or infinite values: its training had failed; try checkpoint=best"
            )
    return found


def select(known: list[str], spec: Any) -> list[str]:
    """The instances that `instances=` names: ids, globs, a count, 'all'; None is the first 8. NifError for an
    unknown one."""
    if spec is None:
        return known[:8]
    if spec == "all":
        return known
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdigit() and spec not in known):
        if int(spec) < 1:
            raise NifError(f"instances={spec}: at least 1")
        return known[: int(spec)]
    wanted = spec if isinstance(spec, list) else [spec]
    chosen: list[str] = []
    for pattern in map(str, wanted):
        found = [id for id in known if id == pattern] or fnmatch.filter(known, pattern)
        if not found:
            raise NifError(f"instances: no '{pattern}' in this run{did_you_mean(pattern, known[:20])}")
        chosen += [id for id in found if id not in chosen]
    return chosen


def output_path(output: str | None, default: Path) -> Path:
    """Where `output=` says, or a place in the run."""
    return Path(output).expanduser() if output else default


def device_for(name: str) -> torch.device:
    """The torch device that `device=` names; auto is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise NifError(f"device={name}: must be auto, cpu, cuda or cuda:n")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            have = "is no CUDA device" if count == 0 else f"are {count}"
            raise NifError(f"device={name}: there {have} here; use device=auto or device=cpu")
    return device


def write_config(run: Path, config: dict[str, Any]) -> None:
    write(run / "config.yaml", yaml.safe_dump(config, sort_keys=False))
