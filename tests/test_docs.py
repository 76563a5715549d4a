"""Every command on every page runs, on small inputs of the names it gives, and leaves what the page promises.

Budgets are cut to seconds: what a page says of quality is not tested here, what it says of words is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pages_inputs
import pytest
import yaml
from conftest import Result

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = ("joblib", "trainer.devices=2", "spline,voxel", "nerf_codes", "shape=lamp_02", "curve=")
GALLERY = ROOT / "docs" / "gallery.md"  # fifty trainings: all of them slow

AT_MOST: dict[str, dict[str, float]] = {
    "train": {
        "trainer.max_steps": 40,
        "data.count": 12,
        "data.samples": 1500,
        "data.surface_samples": 400,
        "data.batch_points": 256,
        "data.batch_rays": 64,
        "data.size": 16,
        "data.views": 4,
        "field.width": 24,
        "field.layers": 2,
        "field.skip": 1,
        "field.blocks": 1,
        "field.resolution": 24,
        "field.detail": 24,
        "field.levels": 2,
        "field.log2_table": 8,
        "field.finest": 32,
        "encoding.levels": 3,
        "encoding.log2_table": 8,
        "encoding.finest": 32,
        "encoding.resolution": 16,
        "encoder.width": 8,
        "encoder.blocks": 2,
        "encoder.code_size": 8,
        "encoder.resolution": 16,
        "encoder.unet_depth": 2,
        "encoder.unet_width": 8,
        "encoder.points": 100,
        "encoder.size": 32,
        "encoder.views": 2,
        "model.code_size": 4,
        "model.resolution": 32,
        "model.samples": 1024,
        "model.first_samples": 1024,
        "model.steps": 48,
        "model.first_steps": 48,
        "model.coarse": 8,
        "model.fine": 8,
    },
    "extract": {"resolution": 24, "sample": 2},
    "render": {"size": 24, "frames": 2, "interpolate": 2, "sample": 2},
    "evaluate": {"resolution": 24, "points": 200, "instances": 2, "steps": 5},
    "reconstruct": {"resolution": 24, "points": 200, "steps": 5, "restarts": 2},
    "prepare": {"samples": 1000, "surface_samples": 500, "solid_resolution": 24, "workers": 1},
}
OF_GRID = ("model.resolution", "model.samples", "model.first_samples", "model.steps", "model.first_steps")
LEAVES = {  # what a command leaves, below the folder
    "train": r"checkpoints/last\.ckpt|sweep\.csv",
    "extract": r"meshes/.*\.(ply|glb|obj|svg|html|npz)",
    "render": r"renders/.*\.(png|gif|mp4|npy)",
    "evaluate": r"(evaluation|adaptation|curve).*\.json",
    "reconstruct": r"reconstructions/",
    "prepare": r"report\.json",
    "import-deepsdf": r"checkpoints/",
}


def blocks(text: str) -> list[str]:
    """The lines of fenced and of indented blocks, less those marked as text: what a command prints."""
    lines, fence = [], ""
    for line in text.splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence not in ("", "```text") or (not fence and line.startswith("    ")):
            lines.append(line.strip().removeprefix("$ "))
    return lines


def commands(page: Path) -> list[list[str]]:
    lines = [line for line in blocks(page.read_text()) if line.startswith("nif ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def slow(command: list[str]) -> bool:
    return any(word in " ".join(command) for word in SLOW)


def flat(node: object, above: str = "") -> dict[str, object]:
    if not isinstance(node, dict):
        return {above: node}
    return {k: v for key, value in node.items() for k, v in flat(value, f"{above}.{key}".strip(".")).items()}


def cut(nif: Callable[..., Result], command: list[str], number: int) -> list[str]:
    """The command, the page's number-th, with small budgets: what it gives is lowered where it stands, the
    rest is appended."""
    name, words = command[0], command[1:]
    if name not in AT_MOST or any(w in ("--help", "--cfg") for w in words):
        return command
    most, given = AT_MOST[name], {w.partition("=")[0]: w.partition("=")[2] for w in words}
    lowered = []
    for word in words:
        key, _, value = word.partition("=")
        small = key in most and value.isdigit() and float(value) > most[key]
        lowered.append(f"{key}={most[key]:g}" if small else word)
    if name != "train":
        known = {
            "extract": ["resolution"],
            "render": ["size", "frames"],
            "evaluate": ["resolution", "points"],
            "reconstruct": ["resolution", "points"],
            "prepare": list(most),
        }[name]
        return [name, *lowered, *(f"{k}={most[k]:g}" for k in known if k not in given)]
    if given.get("resume", "auto") != "auto":
        return [name, *lowered, f"trainer.max_steps={most['trainer.max_steps'] + 5 * (number + 1)}"]
    groups = [f"{k}={v}" for k, v in (("callbacks", "quiet"), ("logger", "csv")) if k not in given]
    single = [re.sub(r"^([\w.]+=[\w.-]+),.*", r"\1", w) for w in words if w != "-m" and "launcher" not in w]
    shown = nif(name, *single, "--cfg", "job")
    assert shown.code == 0, (command, shown.err)
    composed = flat(yaml.safe_load(shown.out))
    grid = "NerfNetwork" not in str(composed.get("field._target_"))
    other = ("model.coarse", "model.fine") if grid else OF_GRID  # of the other sampler
    for key, value in composed.items():
        if key in other:
            continue
        large = value is None or (isinstance(value, int | float) and value > most.get(key, 0))
        varied = "-m" in words and "field" in given and key.startswith(("field.", "encoding."))
        if key in most and key not in given and large and not varied:
            groups.append(f"{key}={most[key]:g}")
    if composed.get("field.skips") and "-m" not in words:
        groups.append("field.skips=[]")
    return [name, *lowered, *groups]


def files(folder: Path) -> dict[str, int]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in found}


def alone(*words: str) -> Result:
    """In a process of its own: what starts others must not find pytest's command line, nor the checks of
    types, which no pickle holds."""
    done = subprocess.run([sys.executable, "-m", "nif_cli", *words], capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


def go_through(page: Path, nif: Callable[..., Result], folder: Path, chosen: list[list[str]]) -> None:
    pages_inputs.make(folder, " ".join(" ".join(c) for c in chosen))
    for number, command in enumerate(chosen):
        before = files(folder)
        words = cut(nif, command, number)
        several = re.search(r"joblib|trainer\.(devices|num_nodes)=", " ".join(words))
        result = (alone if several else nif)(*words)
        told = f"{page.name}: nif {shlex.join(command)}\n  ran as nif {shlex.join(words)}\n"
        assert result.code == 0, told + result.out[-2000:] + result.err[-2000:]
        if any(word.startswith("mesh=") for word in command):
            assert "two_way" in result.out, told + result.out  # a table only
        elif command[0] in LEAVES and not {"--help", "--cfg"} & set(command):
            new = [name for name, at in files(folder).items() if before.get(name) != at]
            assert any(re.search(LEAVES[command[0]], name) for name in new), told + str(new)


def named(pages: list[Path]) -> list:
    return [pytest.param(page, id=page.relative_to(ROOT).with_suffix("").as_posix()) for page in pages]


@pytest.fixture
def small_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no keys, and is far more than a page's small shapes need: the points of published protocols,
    views of reconstructions, the sheet that ends a comparison."""
    monkeypatch.setattr("nif_cli.metrics.protocols.ONET_POINTS", 2000)
    monkeypatch.setattr("nif_cli.metrics.protocols.SRB_POINTS", 2000)
    monkeypatch.setattr("nif_cli.commands.reconstruct.SIZE", 24)
    monkeypatch.setattr("nif_cli.training.sweep.SIZE", 48)
    monkeypatch.setattr("nif_cli.training.sweep.RESOLUTION", 24)


@pytest.mark.parametrize("page", named([p for p in PAGES if commands(p) and p != GALLERY]))
def test_commands_of_a_page(page: Path, nif: Callable[..., Result], tmp_path: Path, small_reports):
    go_through(page, nif, tmp_path, [c for c in commands(page) if not slow(c)])


@pytest.mark.slow
@pytest.mark.parametrize("page", named([p for p in PAGES if p == GALLERY or any(map(slow, commands(p)))]))
def test_slow_commands_of_a_page(page: Path, nif: Callable[..., Result], tmp_path: Path):
    go_through(page, nif, tmp_path, commands(page))


@pytest.mark.parametrize("page", named([p for p in PAGES if re.search("`nif [a-z-]+ ", p.read_text())]))
def test_commands_within_a_sentence_have_keys_that_exist(page: Path, nif: Callable[..., Result], tmp_path):
    pages_inputs.make(tmp_path, page.read_text())
    for span in re.findall(r"`nif ([^`]+)`", page.read_text().replace("\n", " ")):
        words = shlex.split(span)
        if len(words) < 2 or words[0] == "runs" or {"-m", "--help", "--cfg"} & set(words) or "<" in span:
            continue
        result = nif(*words) if words[0] == "help" else nif(*words, "--cfg", "job")
        assert result.code == 0, f"{page.name}: nif {span}\n{result.err}"


def test_there_are_commands_to_run():
    assert sum(len(commands(page)) for page in PAGES) >= 100
