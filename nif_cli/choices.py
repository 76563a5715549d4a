"""What there is to choose, read from the YAML files as text, without Hydra and in milliseconds: the groups,
their choices, the keys with their defaults and comments. Help and completion ask here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nif_cli import NifError, conf_folder
from nif_cli.hints import did_you_mean

PARTS = ("batches", "sampling", "rays")  # files of conf/data that others include: no choices
LINE = re.compile(
    r"""(?P<value>(?:[^#"']|"[^"]*"|'[^']*'|(?<=\S)[#'"])*?)(?:(?:^|\s+)#\s?(?P<comment>.*))?"""
)
WORD = re.compile(r"\+{0,2}(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)


@dataclass
class Row:
    """A key's default, as it is written, and its comment."""

    value: str
    comment: str = ""


@dataclass
class Page:
    """A YAML file: its first comment, its defaults list, its keys (dotted) in order."""

    about: str = ""
    defaults: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    rooted: bool = False  # @package _global_: its keys are those of the command, as an experiment's

    @property
    def sentence(self) -> str:
        return re.split(r"(?<!\bal)\.\s+(?=[A-Z])", self.about)[0].removesuffix(".")


@dataclass
class ChosenConfig:
    """What the words given choose: a choice for each group, and all keys."""

    page: Page  # of the command
    groups: dict[str, str | None]
    rows: dict[str, Row]


def read_page(path: Path) -> Page:
    page, above = Page(), []
    about, block = [], ""
    for line in path.read_text(errors="replace").splitlines():
        bare = line.strip()
        if bare.startswith("# @package _global_"):
            page.rooted = True
        elif bare.startswith("#") and not block:
            about.append(bare[1:].strip())
        elif bare.startswith("- ") and block == "defaults":
            page.defaults.append(_split(bare[2:])[0])
        elif bare and not bare.startswith(("#", "- ")):
            indent = len(line) - len(line.lstrip())
            key, _, rest = bare.partition(":")
            above = [(i, k) for i, k in above if i < indent] + [(indent, key)]
            block = above[0][1]
            if block != "defaults":
                page.rows[".".join(k for _, k in above)] = Row(*_split(rest.strip()))
    keys = list(page.rows)
    for key in keys:  # a mapping has no value of its own
        if page.rows[key].value == "" and any(k.startswith(f"{key}.") for k in keys):
            del page.rows[key]
    page.about = " ".join(about)
    return page


def _split(text: str) -> tuple[str, str]:
    found = LINE.fullmatch(text)
    return (found["value"].strip(), found["comment"] or "") if found else (text, "")


def folders(words: Iterable[str]) -> list[Path]:
    """Where groups lie: nif's own, and --config-dir."""
    own = [Path(w.partition("=")[2]).expanduser() for w in words if w.startswith("--config-dir=")]
    return [conf_folder(), *own]


def names(group: str, where: list[Path]) -> list[str]:
    """The choices of a group, sorted."""
    found = {p.stem for folder in where for p in (folder / group).glob("*.yaml")}
    return sorted(found - set(PARTS) if group == "data" else found)


def groups(where: list[Path]) -> list[str]:
    """In the order of the train command's defaults, `hydra` left out; then those of one's own."""
    train = [_entry(e)[0] for e in read_page(where[0] / "train.yaml").defaults]
    own = {p.name for folder in where[1:] if folder.is_dir() for p in folder.iterdir() if p.is_dir()}
    known = [g for g in train if g and g != "hydra"]
    return known + sorted(g for g in own - {*known, "hydra"} if g.isidentifier())


def page_of(group: str, name: str, where: list[Path]) -> Page:
    """The file of a choice; NifError where there is none."""
    for folder in where:
        path = folder / group / f"{name}.yaml"
        if re.fullmatch(r"[\w-]+", name) and path.is_file():
            return read_page(path)
    raise NifError(f"no {group} '{name[:100]}'{did_you_mean(name, names(group, where))}")


def merged(group: str, name: str, where: list[Path]) -> Page:
    """The file of a choice with the keys of those that it includes."""
    page = page_of(group, name, where)
    defaults = page.defaults if "_self_" in page.defaults else ["_self_", *page.defaults]
    rows: dict[str, Row] = {}
    for entry in defaults:
        if entry == "_self_":
            _put(rows, page.rows)
        elif not _entry(entry)[0]:
            _put(rows, merged(group, entry, where).rows)
    return Page(page.about, page.defaults, rows, page.rooted)


def _put(rows: dict[str, Row], new: dict[str, Row]) -> None:
    """The new values; a comment that is not repeated stays."""
    for key, row in new.items():
        before = rows.get(key, row)
        rows[key] = Row(row.value, row.comment or before.comment)


def _entry(entry: str) -> tuple[str | None, str | None]:
    """(group, choice) of a row of a defaults list; (None, None) for a file of the same folder."""
    if ":" not in entry:
        return None, None
    group, _, choice = entry.removeprefix("override ").removeprefix("optional ").partition(":")
    choice = choice.strip()
    return group.strip().lstrip("/").partition("@")[0], None if choice == "null" else choice


def chosen_by(group: str, name: str, where: list[Path]) -> Iterator[tuple[str, str | None]]:
    """What a choice chooses in other groups, first what counts most."""
    page = page_of(group, name, where)
    for entry in page.defaults:
        if entry.startswith("override "):
            other, choice = _entry(entry)
            if other:
                yield other, choice
    for entry in reversed(page.defaults):
        if entry != "_self_" and not _entry(entry)[0]:
            yield from chosen_by(group, entry, where)


def compose(command: str, words: Iterable[str]) -> ChosenConfig:
    """As Hydra composes: words count most, then what an experiment chooses, then a model, then the others.
    NifError names a choice that there is not."""
    words = list(words)
    where = folders(words)
    page = read_page(where[0] / f"{command}.yaml")
    known = groups(where)
    typed = [(m["key"], m["value"]) for w in words if w != "data=auto" and (m := WORD.fullmatch(w))]
    default = {g: c for g, c in map(_entry, page.defaults) if g and g != "hydra"}
    default |= {k: None for k, _ in typed if k in known and k not in default and command == "train"}
    chosen: dict[str, str | None] = {}
    for key, value in typed:
        if key in default:  # of a sweep the first
            chosen[key] = None if value == "null" else value.split(",")[0]
    for group in reversed(default):
        name = chosen.setdefault(group, default[group])
        if name:
            for other, choice in chosen_by(group, name, where):
                if other in default:
                    chosen.setdefault(other, choice)
    rows = dict(page.rows)
    last: dict[str, Row] = {}
    for group in default:
        name = chosen[group]
        if not name:
            continue
        found = merged(group, name, where)
        if found.rooted:
            last |= {k: r for k, r in found.rows.items() if not k.startswith("hydra.")}
        else:
            _put(rows, {f"{group}.{key}": row for key, row in found.rows.items()})
    _put(rows, last)
    for key, value in typed:
        if key not in default:
            _put(rows, {key: Row(value)})
    return ChosenConfig(page, {g: chosen[g] for g in default}, rows)
