"""The floors of the house: a file imports only from lower floors, or from its own folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nif_cli

ROOT = Path(nif_cli.__file__).parent
FLOORS = [
    ["__init__", "compiled", "field", "files", "moved", "progress", "torch_files", "untrusted"],
    ["geometry"],
    ["rendering", "metrics", "losses"],
    ["fields", "data"],
    ["encoders", "optim"],
    ["models"],
    [
        "choices",
        "config",
        "schemas",
        "hints",
        "hydra_errors",
        "run_comparison",
        "run_folders",
        "run_paths",
        "run_search",
        "run_upkeep",
        "runs",
        "small_files",
        "terminal",
        "words",
        "composition",
        "hydra_node",
        "yaml_files",
    ],
    ["training", "inference"],
    ["evaluation", "export", "viewer"],
    ["attempts", "cli", "completion", "help", "commands", "library", "__main__"],
]
FILES = sorted(ROOT.rglob("*.py"))


def part(module: str) -> str:
    """The first name below the package: 'nif_cli.geometry.mesh' -> 'geometry', 'nif_cli' -> '__init__'."""
    return [*module.split("."), "__init__"][1]


def floor(name: str) -> int:
    for number, names in enumerate(FLOORS):
        if name in names:
            return number
    raise AssertionError(f"nif_cli.{name} is on no floor: see the design page")


def imports(path: Path) -> Iterator[str]:
    """Every module of the package that a file imports, also inside functions."""
    package = ("nif_cli", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "nif_cli")
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            if module == "nif_cli":  # from nif_cli import runs: a module, or a name of the package itself
                for a in node.names:
                    below = (ROOT / a.name).is_dir() or (ROOT / f"{a.name}.py").is_file()
                    yield f"nif_cli.{a.name}" if below else "nif_cli"
            elif module.split(".")[0] == "nif_cli":
                yield module


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    folder = len(path.relative_to(ROOT).parts) > 1
    for module in imports(path):
        other = part(module)
        # files at the top are one folder a floor
        beside = other == own if folder else floor(other) == floor(own)
        assert beside or floor(other) < floor(own), f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_pure_floors_know_neither_hydra_nor_lightning(path: Path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    if floor(own) > 1 and own not in ("fields", "encoders"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] not in ("hydra", "omegaconf", "pytorch_lightning", "lightning"), (
                f"{path}: {name}"
            )


WINGS = {"shapes": [], "scenes": ["shapes"], "images": ["shapes"]}  # and what each may see of the others


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.relative_to(ROOT).parts[0] == "data"],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_wings_of_data_stand_apart(path: Path):
    """Shapes know neither scenes nor images; what is common to all knows none of them. A format trains
    nothing."""
    own = path.relative_to(ROOT).parts[1] if len(path.relative_to(ROOT).parts) > 2 else None
    for module in imports(path):
        parts = module.split(".")
        if len(parts) > 2 and parts[1] == "data" and parts[2] in WINGS:
            assert parts[2] == own or parts[2] in WINGS.get(own or "", []), (
                f"{path.relative_to(ROOT)} imports {module}"
            )
        if path.parent.name == "formats":
            assert parts[-1] != "datamodule", f"{path.relative_to(ROOT)} imports {module}"


def test_no_circles():
    """Function-level and TYPE_CHECKING imports included."""
    names = {".".join(("nif_cli", *p.relative_to(ROOT).with_suffix("").parts)): p for p in FILES}
    seen: dict[str, set[str]] = {}
    for name, path in names.items():
        seen[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nif_cli":
                seen[name] |= {m for a in node.names if (m := f"{node.module}.{a.name}") in names} or {
                    node.module or ""
                }
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(seen.get(name, ())):
                visit(other, [*way, name])
            done.add(name)

    for name in names:
        visit(name, [])


def test_the_checker_sees_every_kind_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Inside functions, `from nif_cli import x` and relative ones are seen; names of the package are floor
    0."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "geometry").mkdir()
    (tmp_path / "runs.py").touch()
    path = tmp_path / "geometry" / "mesh.py"
    path.write_text(
        "import os, nif_cli.models.sdf\ndef f():\n    from nif_cli import NifError, runs\n    from ..data "
        "import toy\n    from .sampling import x\n"
    )
    found = [part(module) for module in imports(path)]
    assert sorted(found) == ["__init__", "data", "geometry", "models", "runs"]


def test_only_training_needs_lightning():
    """It takes a second to import, and whoever opens a run need not have it."""
    commands = ("extract", "render", "reconstruct", "evaluate", "prepare", "import_deepsdf")
    code = "; ".join(f"import nif_cli.commands.{name}" for name in commands)
    code += (
        "; import sys; print([m for m in sys.modules if m.startswith(('pytorch_lightning', 'lightning'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_map_in_the_docs_names_every_room():
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    rooms = [name for names in FLOORS for name in names if not name.startswith("__")]
    assert [name for name in rooms if f"`{name}`" not in page and f"`{name}/`" not in page] == []
    files = re.findall(r"`((?:\w+/)*\w+\.(?:py|yaml))`", page)
    known = {p.name for p in (*ROOT.rglob("*.py"), *ROOT.parent.glob("tests/**/*.py"))}
    assert [name for name in files if name.rpartition("/")[2] not in known] == []


PROTOCOLS = {"main": "what a command's module runs (commands/__init__.py); of cli.py, what `nif` runs"}


def test_no_two_public_names_are_the_same():
    """Who reads `load(...)` need not look which; names that implement a protocol on purpose are listed."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, set()).add(path.relative_to(ROOT).as_posix())
    twice = {name: where for name, where in found.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in PROTOCOLS} == {}
    assert set(PROTOCOLS) <= set(twice)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path: Path):
    """A file says one thing in 300 lines, a function in 60."""
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
