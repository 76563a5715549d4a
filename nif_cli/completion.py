"""What TAB offers in bash, zsh and fish. Names of files are handed over as they are, a line each; no shell
expands them, and each is quoted where it is put into the line: a file may be called `$(rm -r x)`."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable

from nif_cli import NifError, choices
from nif_cli.words import KEY, holds_a_path

MOST = 1000  # names that anybody looks through
RECENT = 20  # runs
OF_RUNS = ("run", "resume", "init_from")  # keys that name a run

SCRIPTS = {
    "bash": r"""_nif() {
    local word k
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$(printf %q "$word")")
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_POINT="$COMP_POINT" nif -sc query=bash 2>/dev/null)
    if type compopt >/dev/null 2>&1; then
        [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    else
        for ((k = 0; k < ${#COMPREPLY[@]}; k++)); do
            [[ ${COMPREPLY[k]} == *[=./] ]] || COMPREPLY[k]+=' '
        done
    fi
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
if type compopt >/dev/null 2>&1; then complete -F _nif nif; else complete -o nospace -F _nif nif; fi""",
    "zsh": r"""_nif() {
    local -a found
    local line="${BUFFER[1,CURSOR]}"
    found=("${(@f)$(COMP_LINE="$line" COMP_POINT=$CURSOR nif -sc query=zsh 2>/dev/null)}")
    [[ -n $found[1] ]] && compadd -U -S '' -- "${found[@]}"
}
compdef _nif nif""",
    "fish": "complete -c nif -f -a"
    " '(COMP_LINE=(commandline -cp | string collect) nif -sc query=fish 2>/dev/null)'",
}


def last_word(line: str) -> str:
    """The word at the end of the line, its quotes and backslashes undone; nothing is expanded."""
    word, quote, k = "", "", 0
    while k < len(line):
        c = line[k]
        if quote:
            if c == quote:
                quote = ""
            elif c == "\\" and quote == '"' and line[k + 1 : k + 2] in ('"', "\\", "$", "`"):
                k += 1
                word += line[k]
            else:
                word += c
        elif c in "'\"":
            quote = c
        elif c == "\\":
            k += 1
            word += line[k : k + 1]
        elif c in " \t\n":
            word = ""
        else:
            word += c
        k += 1
    return word


def files(word: str) -> list[str] | None:
    """The words that the names of files make of `key=the beginning of a path`; None where no path is
    typed."""
    found = KEY.fullmatch(word)
    if not found or not holds_a_path(found["key"]):
        return None
    folder, start = os.path.split(found["value"])
    before = word[: len(word) - len(start)]
    names = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not start.startswith(".")
                if entry.name.startswith(start) and not hidden and entry.name.isprintable():
                    names.append(before + entry.name + "/" * entry.is_dir())
                if len(names) > MOST:
                    break
    except OSError:
        return []
    return sorted(names)


def recent_runs() -> list[str]:
    """The runs under ./outputs, newest first."""
    from nif_cli.run_folders import all_runs

    found = (str(run.path) for run in all_runs())
    return [path for path in found if path.isprintable()][:RECENT]


def answers(command: str, before: Iterable[str], word: str) -> list[str] | None:
    """What may stand for the beginning of a word: choices of a group, values of a key, runs, files, keys.
    None where only Hydra could know."""
    found = KEY.fullmatch(word)
    if found is None:
        return _keys(command, before, word)
    key, value = found["key"], found["value"]
    head = word[: len(word) - len(value)]
    if key in OF_RUNS:
        runs = [
            f"{head}{r}"
            for r in ("latest", *["auto"] * (key == "resume"), *recent_runs())
            if r.startswith(value)
        ]
        return list(dict.fromkeys([*runs, *(files(word) or [])]))
    if (paths := files(word)) is not None:
        return paths
    where = choices.folders(before)
    if command == "train" and key in choices.groups(where):
        given, comma, last = value.rpartition(",")  # of a sweep the last
        names = [*(["auto"] if key == "data" and not comma else []), *choices.names(key, where)]
        return [f"{head}{given}{comma}{n}" for n in names if n.startswith(last)]
    known = values(command, key)
    if known:
        return [f"{head}{v}" for v in known if v.startswith(value)]
    return None


def values(command: str, key: str) -> list[str]:
    """The values that a root key takes, where they can be listed."""
    from nif_cli.schemas import SCHEMAS

    if command not in SCHEMAS:
        return []
    hint = typing.get_type_hints(SCHEMAS[command]).get(key)
    return [str(v) for v in _listed(hint)]


def _listed(hint: object) -> list[object]:
    if hint is bool:
        return ["true", "false"]
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return list(dict.fromkeys(v for inner in typing.get_args(hint) for v in _listed(inner)))


def _keys(command: str, before: Iterable[str], word: str) -> list[str] | None:
    """Keys that begin so: level by level, as folders are; files, where a command takes them."""
    sign = word[: len(word) - len(word.lstrip("+"))]
    start = word[len(sign) :]
    try:
        composed = choices.compose(command, before)
    except (NifError, OSError):
        return None
    names = [f"{g}=" for g in composed.groups]
    for key in composed.rows:
        if key.rpartition(".")[2] not in ("_target_", "_partial_"):
            rest = key[len(start) :]
            names.append(key[: len(start)] + (rest.partition(".")[0] + "." if "." in rest else f"{rest}="))
    found = [sign + n for n in dict.fromkeys(names) if n.startswith(start)]
    if start and not sign and "=" not in word:
        found += [w.removeprefix("input=") for w in files(f"input={word}") or []]
    return found or None
