"""Words that mean something else than they say to Hydra: `nif train bunny.obj`, `--resolution 64`. What is
meant is done and said; what may mean two things is a question with the answers in it."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path

from nif_cli import NifError, choices
from nif_cli.choices import WORD
from nif_cli.hints import did_you_mean
from nif_cli.untrusted import one_line, shown
from nif_cli.words import paste

HYDRA = (
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"),
    *("config-path", "config-name", "config-dir", "info", "experimental-rerun"),
)
TAKING = ("cfg", "package", "config-path", "config-name", "config-dir", "info", "experimental-rerun")
SHORT = ("-c", "-p", "-cp", "-cn", "-cd", "-i")  # the same, short: the next word is theirs
TAKES = {  # the key of a word without one
    "train": "data.path",
    "prepare": "input",
    "reconstruct": "input",
    "extract": "run",
    "render": "run",
    "view": "run",
    "evaluate": "run",
    "import-deepsdf": "folder",
}
ELSEWHERE = {  # what other programs call it
    "epochs": "trainer.max_steps",
    "steps": "trainer.max_steps",
    "iterations": "trainer.max_steps",
    "learning_rate": "model.lr",
    "batch_size": "data.batch_points",
    "gpu": "device",
    "gpus": "device",
    "out": "output",
}


class Usage(NifError):
    """A word that is not written as nif's are."""


def meant(command: str, args: list[str]) -> list[str]:
    """The words that are meant; says what it makes of a file or folder. NifError asks where it may be
    several."""
    _no_options(command, args)
    bare = [
        k
        for k, word in enumerate(args)
        if "=" not in word and not word.startswith(("-", "+")) and not (k and _takes(args[k - 1]))
    ]
    paths = [args[k] for k in bare if _is_path(command, args[k])]
    rest = [word for k, word in enumerate(args) if k not in bare or word not in paths]
    if command == "train":
        return _data(paths, rest)
    if not paths:
        return args
    key = TAKES.get(command)
    if key is None:
        return args
    if command == "evaluate" and all(Path(p).is_file() for p in paths) and len(paths) <= 2:
        return [f"{k}={p}" for k, p in zip(("mesh", "reference"), paths, strict=False)] + rest
    if any(w.startswith(f"{key}=") for w in rest):
        raise NifError(f"{shown(paths[0], 300)}: {key}= is given too; write one of them")
    return [f"{key}={_value(paths)}", *rest]


def _takes(word: str) -> bool:
    """Whether a flag of Hydra's, maybe cut short, takes the next word."""
    name = word[2:] if word.startswith("--") else ""
    return word in SHORT or any(name and flag.startswith(name) for flag in TAKING)


def _value(paths: list[str]) -> str:
    if len(paths) == 1:
        return paths[0]
    return "[" + ",".join('"' + p.replace("\\", "\\\\").replace('"', '\\"') + '"' for p in paths) + "]"


def _is_path(command: str, word: str) -> bool:
    """Whether a word without '=' is a path, or was to be one (then it must be there)."""
    if command in TAKES and command != "train" and TAKES[command] == "run" and word == "latest":
        return True
    if os.path.lexists(os.path.expanduser(word)):
        return True
    where = choices.folders([])
    groups = [g for g in choices.groups(where) if word in choices.names(g, where)]
    if command == "train" and groups:
        raise Usage(f"{word}: write {' or '.join(f'{g}={word}' for g in groups)}")
    if "/" in word or re.search(r"\.[A-Za-z]\w{1,5}$", word):
        if "*" in word or "?" in word:
            return command in ("prepare", "reconstruct")
        raise NifError(f"{shown(word, 300)}: no such file or folder")
    return False


def _data(paths: list[str], words: list[str]) -> list[str]:
    """Words of training in which the reader of a path is named."""
    given = {m["key"]: m["value"] for w in words if (m := WORD.fullmatch(w))}
    typed = next((k for k in ("data.path", "data.root") if k in given), None)
    auto = given.get("data") == "auto"
    if auto:
        words = [w for w in words if w not in ("data=auto", "+data=auto")]
        given.pop("data")
    if len(paths) > 1:
        raise NifError(f"{shown(paths[1], 300)}: train takes one file or folder; put them into one folder")
    if paths and typed:
        raise NifError(f"{shown(paths[0], 300)}: {typed}= is given too; write one of them")
    if auto and not paths and not typed:
        raise NifError("data=auto looks at a file or folder: give data.path=...")
    if not paths and (typed is None or "data" in given or given.get("resume", "auto") != "auto"):
        return words
    if not paths and not auto:
        data = choices.compose("train", words).groups["data"]
        rows = choices.merged("data", data, choices.folders(words)).rows if data else {}
        if str(typed).removeprefix("data.") in rows:
            return words
    path = paths[0] if paths else given[str(typed)]
    if not os.path.lexists(os.path.expanduser(path)):
        if auto:
            raise NifError(f"{typed}={shown(path, 300)}: no such file or folder")
        return words
    words = [w for w in words if not (m := WORD.fullmatch(w)) or m["key"] != typed]
    return [*_recognised(path, words, given), *words]


def _recognised(path: str, words: list[str], given: dict[str, str]) -> list[str]:
    """The words for a path, said in a line; a question where it may be read in several ways."""
    from nif_cli.data.recognise import recognise

    where = choices.folders(words)
    if data := given.get("data"):
        rows = choices.merged("data", data, where).rows
        key = next((k for k in ("path", "root") if k in rows), None)
        if key is None:
            raise NifError(f"{shown(path, 300)}: data={data} takes no file; leave data= out")
        return [f"data.{key}={path}"]
    model = None
    if "model" in given or "experiment" in given:
        model = choices.compose("train", words).groups["model"]
    try:
        readings = recognise(Path(path).expanduser())
    except OSError as error:
        raise NifError(f"{shown(path, 300)}: cannot be read: {error.strerror or one_line(error)}") from error
    fitting = [r for r in readings if r.model == model or model in dict(r.others)]
    readings = fitting or readings
    if len(readings) > 1:
        answers = "; ".join(
            f"{paste('nif', 'train', *r.words(model), f'{r.key}={r.path}')} ({r.what})" for r in readings[:4]
        )
        scene = (
            ""
            if model or not any(r.model == "metasdf" for r in readings)
            else f"; a scene needs cameras: nif prepare input={path} output=<folder> finds them (by COLMAP)"
        )
        raise NifError(f"{shown(path, 300)}: which is meant? {answers}{scene}")
    (reading,) = readings
    made = [*reading.words(model), f"{reading.key}={reading.path}"]
    print(f"{shown(path, 300)}: {reading.what}: {paste(*made)}", flush=True)
    return made


def _no_options(command: str, args: list[str]) -> None:
    """Usage for `--key value`, with how it is written here."""
    for k, word in enumerate(args):
        if not word.startswith("--") or word == "--":
            continue
        name, _, value = word[2:].partition("=")
        if any(flag.startswith(name) for flag in HYDRA) and name:
            continue
        after = args[k + 1] if k + 1 < len(args) and not args[k + 1].startswith("-") else None
        value = value or (after if after is not None and "=" not in after else "") or "..."
        key = _key(command, name.replace("-", "_"))
        if (
            key in ("data", "input", "path")
            and command == "train"
            and os.path.lexists(os.path.expanduser(value))
        ):
            raise Usage(f"nif has no --{shown(name)}; write {paste('nif', 'train', value)}")
        under = name.replace("-", "_")
        owners = [c for c in TAKES if under in choices.read_page(choices.conf_folder() / f"{c}.yaml").rows]
        if key is None and owners:
            raise Usage(
                f"nif has no --{shown(name)}; {under}={shown(value, 100)} is written, for nif "
                f"{', '.join(owners)}"
            )
        if key is None:
            known = [*_keys(command), *HYDRA]
            raise Usage(f"nif has no --{shown(name)}; a word is key=value{did_you_mean(name, known)}")
        raise Usage(f"nif has no --{shown(name)}; write {paste(f'{key}={value}')}")


def _keys(command: str) -> list[str]:
    composed = choices.compose(command, [])
    return [*composed.groups, *(k for k in composed.rows if not k.endswith("_"))]


def _key(command: str, name: str) -> str | None:
    """The key of the command that an option's name stands for."""
    known = _keys(command)
    if name in known or (command == "train" and name in ("input", "path")):
        return name
    other = ELSEWHERE.get(name)
    if other in known:
        return other
    if name == "out" and "output_dir" in known:
        return "output_dir"
    below = [k for k in known if k.rpartition(".")[2] == name and not k.startswith(("callbacks.", "logger."))]
    if below:
        return min(below, key=lambda k: not k.startswith("model."))
    close = get_close_matches(name, known, 1, 0.8)
    return close[0] if close else None
