"""What a run is on disk: found, written, read back. Files of strangers are read as data, never run."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import math
import os
import re
import time
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
from nif_cli.torch_files import read_torch
from nif_cli.untrusted import shown, whole

OUTPUTS = Path("outputs")
BASES = {"field": (Network, RadianceNetwork), "encoding": (Encoding,), "encoder": (Encoder,)}
MANY_FILES = 300_000  # of a run, or of its data: nobody's are more, unless told
LARGEST_SIZE = 2**26  # of any number in the configuration of a network
READ_ALLOWED = ("nif_cli.", "torch.optim.", "torch.nn.")  # what a checkpoint's own configuration may name


def find(run: str | None, key: str = "run") -> Path:
    """The folder of a run: the one named, or (None, 'latest') the latest started under ./outputs that has a
    checkpoint. To be resumed it needs none: what was stopped before the first begins again."""
    if run is None or run == "latest":
        found = [p.parent for p in OUTPUTS.rglob("config.yaml") if key == "resume" or _checkpoints(p.parent)]
        if not found:
            raise NifError(
                f"no run with a checkpoint under ./{OUTPUTS}; train one (nif train), or name one: "
                f"{key}=<folder>"
            )
        return _without_ways_out(max(found, key=lambda p: (p / "config.yaml").stat().st_mtime_ns), key)
    path = Path(run).expanduser()
    if not path.exists():
        raise NifError(f"{key}={run}: no such folder")
    if (path / "checkpoints").is_dir() and (_checkpoints(path) or not (path / "config.yaml").is_file()):
        return _without_ways_out(path, key)
    if not (path / "config.yaml").is_file():
        raise NifError(
            f"{key}={run}: not a run (it has no checkpoints folder); a run is what 'nif train' makes"
        )
    if key != "resume":
        raise NifError(
            f"{key}={run}: a run that was stopped before anything was saved; nif train resume={run} begins "
            "it again"
        )
    return _without_ways_out(path, key)


def _without_ways_out(run: Path, key: str) -> Path:
    """The run, if none of its links leads out of it: results, checkpoints and logs would be written through
    them."""
    home, seen = os.path.realpath(run), 0
    for folder, folders, files in os.walk(run):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path) and os.path.commonpath([home, os.path.realpath(path)]) != home:
                raise NifError(
                    f"{key}={shown(run, 300)}: its {os.path.relpath(path, run)} is a link out of it; put a "
                    "copy there"
                )
        seen += len(folders) + len(files)
        if seen > MANY_FILES:
            break
    return run


def look_first(data: dict[str, Any]) -> None:
    """NifError where the data that a run (not the user) names is a folder that nobody would walk unasked, as
    / is."""
    for key in ("path", "root", "observations"):
        value = data.get(key)
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, str) or not os.path.isdir(os.path.expanduser(path)):
                continue
            seen, end = 0, time.monotonic() + 15
            for _, folders, files in os.walk(os.path.expanduser(path)):
                seen += len(folders) + len(files)
                if seen > MANY_FILES or time.monotonic() > end:
                    raise NifError(
                        f"data.{key}={shown(path)}: so says the run, and there are more than {seen:,} files; "
                        f"type data.{key}=... if they are meant"
                    )


def _checkpoints(run: Path) -> bool:
    return any((run / "checkpoints" / f"{which}.ckpt").is_file() for which in ("last", "best"))


PATHS = ("path", "root", "observations")  # keys of data that name files


def paths_of(config: dict[str, Any]) -> dict[str, Any]:
    """Where the files that a configuration names lie, absolute, by key; what it says already of paths that
    have not been changed stays."""
    data, paths, found = config.get("data"), config.get("paths"), {}
    before: dict[str, Any] = paths if isinstance(paths, dict) else {}
    data = data if isinstance(data, dict) else {}
    for key in PATHS:
        typed = data.get(key)
        if typed in (None, "???") or not isinstance(typed, str | list):
            continue
        known = before.get(f"data.{key}")
        if isinstance(known, dict) and known.get("typed") == typed:
            found[f"data.{key}"] = known
        else:
            absolute = [
                os.path.abspath(Path(str(t)).expanduser())
                for t in ([typed] if isinstance(typed, str) else typed)
            ]
            found[f"data.{key}"] = {
                "typed": typed,
                "absolute": absolute[0] if isinstance(typed, str) else absolute,
            }
    return found


def located(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run with the paths of its data as they are to be found from here: where they lay
    when the run began, else as they were typed. NifError says which key to give when they are nowhere."""
    paths, data = config.get("paths"), config.get("data")
    if not isinstance(paths, dict) or not isinstance(data, dict):
        return config
    data = dict(data)
    for key, known in paths.items():
        name = str(key).removeprefix("data.")
        if (
            not isinstance(known, dict)
            or name not in PATHS
            or name not in data
            or data[name] != known.get("typed")
        ):
            continue
        absolute = known.get("absolute")
        for choice in (absolute, data[name]):
            if choice and all(
                isinstance(p, str) and _exists(p) for p in (choice if isinstance(choice, list) else [choice])
            ):
                if choice != absolute:
                    print(f"{key}: {absolute} is there no more; {choice} is taken, seen from here")
                data[name] = choice
                break
        else:
            here = paths_of({"data": {name: data[name]}})[str(key)]["absolute"]
            was = "" if here == absolute else f" (it was {absolute})"  # typed just now, it never was anywhere
            raise NifError(f"{key}={data[name]}: no such file or folder{was}; give {key}=<where it is now>")
    return {**config, "data": data}


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


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


def load(run: Path, which: str = "last", device: torch.device | str = "cpu") -> Model:
    """The trained model of a run, in evaluation mode on `device`; the run needs nothing from outside its
    folder."""
    if which not in ("last", "best"):
        raise NifError(f"checkpoint={which}: must be last or best")
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
