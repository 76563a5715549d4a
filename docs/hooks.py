"""The reference of every key, made from conf/ whenever the site is built: its comments are the text."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from nif_cli import choices, conf_folder

CONF = conf_folder()
GROUPS = {
    "model": "What is learned, and by which loss.",
    "field": "The network that is the field.",
    "encoding": "What a network sees of a place (`field=mlp` goes with any).",
    "encoder": "What sees a new shape (`model=occupancy`).",
    "data": "What is learned from.",
    "experiment": "Settings that belong together, published ones and small ones.",
    "trainer": "How long, on what.",
    "optimizer": "Steps.",
    "scheduler": "Rates.",
    "callbacks": "What happens beside the training.",
    "logger": "Where curves go.",
}
INTERNAL = ("hydra",)


def on_config(config: Any) -> Any:
    pages = [{name: f"reference/{name}.md"} for name in ("commands", *GROUPS)]
    entry = {"Reference": ["reference/index.md", *pages]}
    names = [next(iter(item)) for item in config.nav]
    config.nav.insert(names.index("Gallery"), entry)
    return config


def on_files(files: Files, config: Any) -> Files:
    pages = {"index": index(), "commands": commands()} | {name: group(name) for name in GROUPS}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def index() -> str:
    rows = [f"| [`{name}=`]({name}.md) | {text} |" for name, text in GROUPS.items()]
    head = "Made from the files in `conf/`. A group is chosen by name (`field=siren`), a key is set by path\n"
    head += "(`field.width=64`). `nif train --cfg job` prints the whole of what the words given choose.\n"
    table = ["| group | |", "|---|---|", *rows]
    return "\n".join(
        ["# Reference", "", head, "[Keys of the commands](commands.md), and the groups:", "", *table]
    )


def commands() -> str:
    parts = ["# Commands", ""]
    for path in sorted(CONF.glob("*.yaml")):
        comment, keys, _ = read(path)
        parts += [f"## nif {path.stem}", "", comment.removeprefix(f"nif {path.stem}: "), "", *table(keys)]
    return "\n".join(parts)


def group(name: str) -> str:
    parts = [f"# {name}", "", GROUPS[name], ""]
    for path in sorted((CONF / name).glob("*.yaml")):
        comment, keys, parents = read(path)
        parts += [f"## {name}={path.stem}", "", comment, ""]
        if parents:
            parts += ["Begins with: " + ", ".join(f"`{p}`" for p in parents) + ".", ""]
        parts += table(keys, "" if name == "experiment" else f"{name}.")
    return "\n".join(parts)


def read(path: Path) -> tuple[str, list[tuple[str, str, str]], list[str]]:
    """The comment above a YAML file, its keys (path, default, comment), and the choices it begins with."""
    page = choices.read_page(path)
    keys = [
        (key, row.value, row.comment)
        for key, row in page.rows.items()
        if key.split(".")[0] not in INTERNAL and key.rpartition(".")[2] not in ("_target_", "_partial_")
    ]
    begins = [entry for entry in page.defaults if entry != "_self_" and "_schema" not in entry]
    parents = [re.sub(r"override /?(\w+)(?:@\S+)?: ", r"\1=", b).replace(": ", "=") for b in begins]
    return html.escape(page.about, quote=False), keys, parents


def table(keys: list[tuple[str, str, str]], prefix: str = "") -> list[str]:
    if not keys:
        return ["No keys of its own.", ""]
    rows = []
    for key, value, comment in keys:
        default = "*to be given*" if value == "???" else f"`{value}`" if value else ""
        cells = (f"`{prefix}{key}`", default, html.escape(comment, quote=False))
        rows.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return ["| key | default | |", "|---|---|---|", *rows, ""]
