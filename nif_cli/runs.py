"""What a run is on disk: found, written, read back. Files of strangers are read as data, never run."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
import pickle
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml

from nif_cli import NifError, __version__
from nif_cli.config import build, did_you_mean, locate
from nif_cli.files import safe_name as safe_name  # what a run is written with
from nif_cli.files import write as write
from nif_cli.geometry.mesh import SPACES
from nif_cli.models.model import CHECKPOINT_FORMAT, Model
from nif_cli.untrusted import shown

OUTPUTS = Path("outputs")
MANY_FILES = 300_000  # of a run, or of its data: nobody's are more, unless told
READ_ALLOWED = ("nif_cli.", "torch.optim.", "torch.nn.")  # what a checkpoint's own configuration may name


def find(run: str | None, key: str = "run") -> Path:
    """The folder of a run: the one named, or (None, 'latest') the latest started under ./outputs that has a checkpoint."""
    if run is None or run == "latest":
        found = [p.parent.parent for p in OUTPUTS.rglob("checkpoints/last.ckpt")]
        found = [p for p in found if (p / "config.yaml").is_file()]
        if not found:
            raise NifError(f"no run with a checkpoint under ./{OUTPUTS}; train one (nif train), or name one: {key}=<folder>")
        return _without_ways_out(max(found, key=lambda p: (p / "config.yaml").stat().st_mtime_ns), key)
    path = Path(run).expanduser()
    if not path.exists():
        raise NifError(f"{key}={run}: no such folder")
    if not (path / "checkpoints").is_dir():
        raise NifError(f"{key}={run}: not a run (it has no checkpoints folder); a run is what 'nif train' makes")
    return _without_ways_out(path, key)


def _without_ways_out(run: Path, key: str) -> Path:
    """The run, if none of its links leads out of it: results, checkpoints and logs would be written through them."""
    home, seen = os.path.realpath(run), 0
    for folder, folders, files in os.walk(run):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path) and os.path.commonpath([home, os.path.realpath(path)]) != home:
                raise NifError(f"{key}={shown(run, 300)}: its {os.path.relpath(path, run)} is a link out of it; put a copy there")
        seen += len(folders) + len(files)
        if seen > MANY_FILES:
            break
    return run


def look_first(data: dict[str, Any]) -> None:
    """NifError where the data that a run (not the user) names is a folder that nobody would walk unasked, as / is."""
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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nif as plain data. NifError for anything else: other files, code in the pickle, newer formats."""
    if not path.is_file():
        raise NifError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * path.stat().st_size + 2**20:
                raise NifError(f"{path}: refused, it would unpack to more than it is")
            damaged = archive.testzip()
            if damaged:
                raise NifError(f"{path}: damaged ({damaged})")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NifError(f"{path}: refused, it holds more than tensors and plain data, which could run code") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise NifError(f"{path}: damaged, or no checkpoint ({str(error).splitlines()[0][:100]})") from error
    nif = checkpoint.get("nif") if isinstance(checkpoint, dict) else None
    if not isinstance(nif, dict) or not isinstance(nif.get("config"), dict) or "state_dict" not in checkpoint:
        raise NifError(f"{path}: a checkpoint, but not one of nif")
    if not isinstance(nif.get("format"), int) or nif["format"] > CHECKPOINT_FORMAT:
        raise NifError(f"{path}: made by nif {nif.get('version')}, which is newer than this one ({__version__}); upgrade nif")
    return checkpoint


def make_model(config: dict[str, Any], allowed: tuple[str, ...] | None = None) -> Model:
    """The model that a resolved configuration describes, with fresh weights and no instances yet."""
    extra = {} if allowed is None else {"allowed": allowed}
    for part in ("field", "optimizer", "model"):
        node = config.get(part)
        if not isinstance(node, dict) or "_target_" not in node:
            raise NifError(f"{part}: it has no _target_, the class to build; choose one by {part}=<name>")
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
    if getattr(getattr(model, "network", None), "local", False) and not getattr(getattr(model, "encoder", None), "local", False):
        raise NifError("field: this one takes feature planes or a grid; it goes with model=occupancy encoder=pointcloud_planes")
    model.config = config
    return model


def load(run: Path, which: str = "last", device: torch.device | str = "cpu") -> Model:
    """The trained model of a run, in evaluation mode on `device`; the run needs nothing from outside its folder."""
    if which not in ("last", "best"):
        raise NifError(f"checkpoint={which}: must be last or best")
    path = run / "checkpoints" / f"{which}.ckpt"
    checkpoint = read_checkpoint(path)
    nif = checkpoint["nif"]
    try:
        # On the meta device nothing is allocated: a checkpoint cannot ask for more memory than its own tensors
        with torch.device("meta"):
            model = make_model(nif["config"], READ_ALLOWED)
            if nif.get("space", "ball") not in SPACES:
                raise ValueError(f"no normalised space '{nif['space']}'")
            model.space = nif.get("space", "ball")
            model.restore_instances(nif["instances"])
        model.load_state_dict(checkpoint["state_dict"], strict=True, assign=True)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NifError(f"{path}: its weights do not fit its configuration ({' '.join(lines[:2])[:200]})") from error
    return model.to(device).eval()


def select(known: list[str], spec: Any) -> list[str]:
    """The instances that `instances=` names: ids, globs, a count, 'all'; None is the first 8. NifError for an unknown one."""
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
