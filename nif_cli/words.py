"""Words of the command line as the shell hands them over, and words to be pasted back into a shell.

Hydra reads `key=value` in a grammar of its own, in which brackets, commas, quotes, accents and `${...}` mean
something. Where a key holds a path the value is the path, as typed; this module writes it so that Hydra reads
just that."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nif_cli import NifError

PATHS = (
    *(
        "input",
        "output",
        "run",
        "resume",
        "init_from",
        "output_dir",
        "folder",
        "data_root",
        "mesh",
        "reference",
        "scan",
        "mask",
    ),
    *("path", "normalise", "split", "dataset", "category", "shape", "appearance"),
)
"""Keys whose values are paths or names. Below `data` those of IN_DATA, however deep."""
IN_DATA = ("path", "root", "split", "observations", "images")
# names, globs or a count: quoted only where Hydra's grammar cannot read them
NAMES = (
    "instances",
    "data.instances",
    "views",
    "background",
)

KEY = re.compile(r"(?P<sign>\+{0,2})(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
FUNCTION = re.compile(r"(?:choice|glob|shuffle|sort|tag)\(.*\)", re.DOTALL)  # Hydra's own, of sweeps


def as_typed(words: Iterable[str]) -> list[str]:
    """The words for Hydra. A path is taken as it stands, whatever its characters, except that
    - a value in quotes is what the quotes hold, `null` is null, `[a,b]` a list of paths: unless there is a
    file of just
      that name;
    - in a sweep (-m) commas separate paths; one that has a comma itself, or begins with a bracket, stands in
    quotes."""
    words = list(words)
    sweeping = any(_is_sweep(word) for word in words)
    flags = ["-m"] if sweeping else []  # in front: Hydra reads no words on both sides of it
    return flags + [_word(word, sweeping) for word in words if not (sweeping and _is_sweep(word))]


def _is_sweep(word: str) -> bool:
    return word == "-m" or (word.startswith("--mu") and "--multirun".startswith(word))


def holds_a_path(key: str) -> bool:
    return (
        key in PATHS
        or key == "encoder.weights"
        or (key.startswith("data.") and key.rpartition(".")[2] in IN_DATA)
    )


def _word(word: str, sweeping: bool) -> str:
    if word.startswith("="):  # Hydra takes it for a group without a name
        raise NifError(f"{word[:300]}: no key before '='; a word is key=value")
    found = KEY.fullmatch(word)
    if not found:
        return word
    key, value = found["key"], found["value"]
    if key in NAMES and not _hydra_reads(word):
        return f"{found['sign']}{key}={_names(value)}"
    if not holds_a_path(key) or not value:
        return word
    if not sweeping:
        return f"{found['sign']}{key}={_path(value)}"
    if FUNCTION.fullmatch(value):
        return word
    return f"{found['sign']}{key}={','.join(_path(part) for part in _parts(value))}"


def _path(value: str) -> str:
    """One value: a path, or one of the forms that mean something else where no file is called so."""
    if value.lower() == "null":
        return value
    if not os.path.lexists(value):
        if QUOTED.fullmatch(value):
            return quoted(_home(_unquoted(value)))
        if value.startswith("[") and value.endswith("]"):
            return f"[{','.join(_path(part) for part in _parts(value[1:-1]))}]"
    return quoted(_home(value))


def _names(value: str) -> str:
    if value.startswith("[") and value.endswith("]"):
        parts = [
            part if _hydra_reads(f"a={part}") else quoted(_unquoted(part)) for part in _parts(value[1:-1])
        ]
        return f"[{','.join(parts)}]"
    return quoted(_unquoted(value))


def _parts(text: str) -> Iterator[str]:
    """What commas separate, without the spaces around. A part that is in quotes, or a whole list in brackets,
    may hold commas itself."""
    text = text.strip()
    while text:
        part = next(
            (
                p
                for p in (QUOTED.match(text), _bracketed(text))
                if p and re.match(r"\s*(,|\Z)", text[p.end() :])
            ),
            None,
        )
        end = part.end() if part else (text + ",").index(",")
        yield text[:end].strip()
        text = text[end:].lstrip().removeprefix(",").strip()


def _bracketed(text: str) -> re.Match[str] | None:
    return re.match(r"\[[^\[\]]*\]", text)


def _home(path: str) -> str:
    """`~/x` and `~user/x` made absolute, and so is a file that is called ~x: pathlib would look for a user
    x."""
    if not os.path.normpath(path).startswith("~"):
        return path
    full = os.path.expanduser(path)
    return os.path.abspath(path) if full == path or os.path.lexists(path) else full


def _unquoted(value: str) -> str:
    """The text of a quoted value, by Hydra's rule: a backslash counts only before a quote of the same
    kind."""
    if not QUOTED.fullmatch(value):
        return value
    quote, inner = value[0], value[1:-1]
    inner = re.sub(rf"(\\+)({quote}|\Z)", lambda m: "\\" * (len(m[1]) // 2) + m[2], inner)
    return re.sub(r"(\\*)\\\$\{", lambda m: "\\" * (len(m[1]) // 2) + "${", inner)


def quoted(text: str) -> str:
    """A string as a value of Hydra's command line: it comes out of the composed configuration as it went
    in."""
    text = literal(text)
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ("\\" if m[2] else "") + m[2], text) + '"'


def literal(text: str) -> str:
    """A string for OmegaConf in which `${...}` is text and no interpolation."""
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", text)


def _hydra_reads(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def paste(*words: object) -> str:
    """Words to be pasted into a shell (bash, zsh), each `key=path` read back by `as_typed` as the same
    path."""
    return " ".join(_pasted(str(word)) for word in words)


def _pasted(word: str) -> str:
    found = KEY.fullmatch(word)
    if (
        found
        and holds_a_path(found["key"])
        and re.match(r"[~\[\"'\s]|(null|latest)\Z", found["value"], re.IGNORECASE)
    ):
        word = f"{found['sign']}{found['key']}=./{found['value']}"
    if word.isprintable():
        return shlex.quote(word)
    text = "".join(c if c.isprintable() and c not in "'\\" else _escape(c) for c in word)
    return f"$'{text}'"


def _escape(character: str) -> str:
    return (
        "\\" + character
        if character in "'\\"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
    )


def as_words(keys: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys as words of the command line."""
    found = []
    for key, value in keys.items():
        if isinstance(value, Mapping):
            found += as_words(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={_value(value)}")
    return found


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_value, value))}]"
    text = str(value)
    plain = isinstance(value, int | float) or re.fullmatch(r"[\w./+-]+", text)
    return text if plain else quoted(text)
