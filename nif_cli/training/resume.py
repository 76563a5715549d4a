"""Going on with a run, and starting from the weights of another."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from nif_cli import NifError, conf_folder, runs
from nif_cli.composition import AUTO as AUTO
from nif_cli.models.model import Model
from nif_cli.run_folders import ABOUT, read_small
from nif_cli.training.durations import seconds_of
from nif_cli.training.reapply import leaves
from nif_cli.untrusted import shown
from nif_cli.yaml_files import read_plain, without_interpolations

SERVICES = ("WandbLogger", "CometLogger", "NeptuneLogger")  # that send unless they are told not to


def goes_on(cfg: DictConfig) -> Path | None:
    """resume=auto: the run in the folder that output_dir= or name= says; None where there is none yet. One
    command starts it and goes on with it: on machines that take jobs away."""
    if not cfg.output_dir and cfg.name is None:
        raise NifError("resume=auto: starts a run or goes on with it: give output_dir=<its folder>")
    folder = Path(cfg.output_dir).expanduser() if cfg.output_dir else runs.OUTPUTS / str(cfg.name)
    if any((folder / "checkpoints" / f"{which}.ckpt").is_file() for which in ("last", "best")):
        return folder
    if (folder / "config.yaml").is_file() and (folder / ABOUT).is_file():
        return folder
    for left in ("config.yaml", ABOUT, "checkpoints"):  # killed while it was made
        with suppress(OSError):
            (folder / left).rmdir() if left == "checkpoints" else (folder / left).unlink()
    return None


def typed_again(run: Path, overrides: list[str]) -> list[str]:
    """What a command with resume=auto says of a run that is there: its choices and its beginning it has
    made."""
    about = read_small(run / ABOUT)
    said = about.get("overrides") if isinstance(about, dict) else None
    known = {o for o in said if isinstance(o, str)} if isinstance(said, list) else set()
    kept = []
    for text in overrides:
        key = OverridesParser.create().parse_override(text).key_or_group
        made = (conf_folder() / key).is_dir() and text in known
        if not (made or key in ("output_dir", "name", "init_from")):
            kept.append(text)
    return kept


def resumed_config(run: Path, overrides: list[str], composed: DictConfig) -> DictConfig:
    """The run's own configuration, with the values that the command line changes; of groups callbacks= and
    logger= only, which are taken as `composed`."""
    if not (run / "config.yaml").is_file():
        raise NifError(f"resume={run}: it has no config.yaml")
    plain = read_plain(run / "config.yaml")
    if not isinstance(plain, dict) or any(
        isinstance(value, list) for key, value in plain.items() if key != "tag"
    ):
        raise NifError(f"{run / 'config.yaml'}: not the configuration of a run")
    # a stranger's file may name the secrets of our environment
    cfg: Any = OmegaConf.create(without_interpolations(plain))
    OmegaConf.set_struct(cfg, True)
    typed: set[str] = set()
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if key == "resume":
            continue
        if key in ("init_from", "output_dir", "name"):
            raise NifError(
                f"resume goes on with a run in its own folder; {key} is for a new one: give one of them"
            )
        if key in ("callbacks", "logger") and isinstance(override.value(), str):
            OmegaConf.update(
                cfg, key, OmegaConf.to_container(composed[key], resolve=True), merge=False, force_add=True
            )
            typed.add(key)
            continue
        if (conf_folder() / key).is_dir() and key != "hydra":
            raise NifError(
                f"{key}={override.get_value_element_as_str()}: a resumed run keeps its {key}; init_from "
                "starts a new one"
            )
        if isinstance(cfg.get("paths"), DictConfig):  # typed anew: as seen from here
            with open_dict(cfg):
                cfg.paths.pop(key, None)
        parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else None
        # its class is asked whether there is such a key
        known = isinstance(parent, DictConfig) and "_target_" in parent
        OmegaConf.update(cfg, key, override.value(), force_add=override.is_add() or known or key == "tag")
        typed.add(key)
    data = cfg.get("data")
    if isinstance(data, DictConfig):
        runs.look_first({str(k): v for k, v in data.items() if f"data.{k}" not in typed})
    _check_addresses(OmegaConf.to_container(cfg), typed)
    cfg.resume = cfg.output_dir = cfg.init_from = None
    return cfg


def _check_addresses(config: Any, typed: set[str]) -> None:
    """NifError for an address in the net that the run names and the user did not: it may be a stranger's,
    and what is logged would be sent there. So too for a logger that has the address of its own service."""
    loggers = config.get("logger")
    for name, node in loggers.items() if isinstance(loggers, dict) else ():
        if not isinstance(node, dict) or not str(node.get("_target_")).endswith(SERVICES):
            continue
        # wandb.init's own `mode` and `settings` would overrule it
        unsent = node.get("offline") is True and not {"mode", "settings"} & node.keys()
        if not unsent and not typed & {"logger", f"logger.{name}.offline"}:
            raise NifError(
                f"logger.{name}: so says the run, and what it logs would be sent; type "
                f"logger.{name}.offline=false if it is meant, or logger=csv"
            )
    for part in ("logger", "callbacks", "trainer"):
        for key, value in leaves(config.get(part), part):
            for text in value if isinstance(value, list) else [value]:
                elsewhere = isinstance(text, str) and "://" in text and not text.startswith("file:")
                if elsewhere and not any(key == t or key.startswith(f"{t}.") for t in typed):
                    raise NifError(
                        f"{key}={shown(text)}: so says the run, and what it logs would be sent there; type "
                        f"{key}=... if it is meant, or logger=csv"
                    )


def why_finished(trainer: dict[str, Any], checkpoint: dict[str, Any]) -> str | None:
    """Whether a resumed run has had all its steps or all its time, and what would give it more."""
    steps, limit = int(checkpoint["global_step"]), trainer.get("max_steps") or -1
    if 0 <= limit <= steps:
        return f"it has had its {steps:,} steps; give a larger trainer.max_steps"
    limit = seconds_of(trainer.get("max_time"))
    if limit is not None:
        had = float(checkpoint["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train", 0.0))
        if had >= limit:
            return f"it has had its time; give a longer trainer.max_time than {trainer['max_time']}"
    return None


def start_from(model: Model, run: Path) -> None:
    """init_from: the weights of another run where names and shapes agree; NifError when the networks
    differ."""
    checkpoint = runs.read_checkpoint(run / "checkpoints" / "last.ckpt")
    theirs = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith(("network.", "encoder."))}
    ours = {k: v for k, v in model.state_dict().items() if k.startswith(("network.", "encoder."))}
    wrong = sorted(ours.keys() ^ theirs.keys()) or [k for k in ours if ours[k].shape != theirs[k].shape]
    if wrong:
        k = wrong[0]
        a, b = (str(list(d[k].shape)) if k in d else "absent" for d in (theirs, ours))
        raise NifError(
            f"init_from={run}: another network than this one ({k} is {a} there and {b} here); use its "
            "model and field"
        )
    model.load_state_dict(theirs, strict=False)
    codes = checkpoint["state_dict"].get("codes.weight")
    if codes is not None:
        model.restore_instances(checkpoint["nif"]["instances"])
        model.load_state_dict({"codes.weight": codes}, strict=False)
