"""TAB in real shells: names of files are offered, put into the line quoted, and never expanded."""

from __future__ import annotations

import os
import pty
import select
import shutil
import sys
import time
from pathlib import Path

import pytest
from narrowing import sure

from nif_cli.completion import SCRIPTS, answers, files, last_word, values
from nif_cli.schemas import SCHEMAS
from nif_cli.words import paste

START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SET_UP = {
    "bash": 'eval "$(nif -sc install=bash)"; PS1=REA"DY> "',
    "zsh": (
        'autoload -Uz compinit; compinit -u -D; eval "$(nif -sc install=zsh)"; unsetopt prompt_cr; '
        'PS1=REA"DY> "'
    ),
    "fish": 'nif -sc install=fish | source; function fish_prompt; echo "REA""DY> "; end',
}


class Terminal:
    """A shell in a terminal of its own, which is typed to."""

    def __init__(self, shell: str, folder: Path, environment: dict[str, str]):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(START[shell][0], START[shell], environment)

    def type(self, text: str, until: str, seconds: float = 60) -> str:
        os.write(self.fd, text.encode())
        seen, end = "", time.monotonic() + seconds
        while until not in seen and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    seen += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    break
        return seen

    def close(self) -> None:
        os.close(self.fd)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_files_name_is_not_run_at_tab(shell, tmp_path):
    name = "$(touch PWNED) `touch PWNED`; touch PWNED (1)[2] ä's.obj"
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    place, programs = tmp_path / "place", tmp_path / "programs"
    place.mkdir()
    programs.mkdir()
    (place / name).touch()
    shim = programs / "nif"
    shim.write_text(
        f'#!/bin/sh\nif [ "$1" = "-sc" ]; then exec "{sys.executable}" -m nif_cli "$@"; fi\nprintf '
        '"GOT:%s:END" "$2"\n'
    )
    shim.chmod(0o755)
    root = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": root,
        "HOME": str(tmp_path),
    }
    environment |= {"TERM": "dumb" if shell != "fish" else "xterm", "LC_ALL": "C.UTF-8"}
    terminal = Terminal(shell, place, environment)
    try:
        terminal.type(SET_UP[shell] + "\n", "READY> ", 30)
        terminal.type("nif train data.path=./\t", "obj", 60)
        seen = terminal.type("\n", ":END", 20)
    finally:
        terminal.close()
    assert not list(tmp_path.rglob("PWNED"))
    assert f"GOT:data.path=./{name}:END" in seen.replace("\r\n", "")


def test_files(tmp_path):
    for name in ("a (1).obj", "ab", "b", ".hidden", "a\nb"):
        Path(name).touch()
    Path("a d").mkdir()
    assert files("data.path=a") == ["data.path=a (1).obj", "data.path=a d/", "data.path=ab"]
    assert files(f"+data.path={tmp_path}/.h") == [f"+data.path={tmp_path}/.hidden"]
    assert files("run=nowhere/x") == []
    assert files("model.lr=a") is None
    assert files("tra") is None


@pytest.mark.parametrize("name", ["a b", "$(x)", "it's", 'q"q', "a\\b", "ä#&", ""])
def test_the_last_word_is_what_the_shell_would_hand_over(name):
    assert last_word("nif train " + paste(f"data.path={name}")) == f"data.path={name}"
    assert last_word(f'nif train "data.path={name}') == f"data.path={name}" or set(name) & set('"\\')
    assert last_word("nif train x=1 ") == ""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_without_compopt(tmp_path):
    """As that of macOS: a finished word gets its space, one that goes on does not."""
    (tmp_path / "place").mkdir()
    shim = tmp_path / "nif"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nif_cli "$@"\n')
    shim.chmod(0o755)
    root = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": root,
        "TERM": "dumb",
    }
    terminal = Terminal("bash", tmp_path / "place", environment)
    try:
        terminal.type("enable -n compopt; " + SET_UP["bash"] + "\n", "READY> ", 30)
        seen = terminal.type("echo; nif ext\t", "extract ", 60)
        seen += terminal.type("reso\t", "resolution=", 60)
    finally:
        terminal.close()
    assert "extract " in seen
    assert "resolution=" in seen
    assert "resolution= " not in seen
    assert "not found" not in seen


def test_values(run):
    formats = ("ply", "obj", "glb", "stl", "off", "html", "points", "npz", "onnx")
    assert answers("extract", [], "format=") == [f"format={f}" for f in formats]
    assert "camera=spiral" in sure(answers("render", [], "camera=s"))
    assert answers("extract", [], "largest=t") == ["largest=true"]
    assert answers("train", [], "model=sd") == ["model=sdf"]
    assert answers("train", ["-m"], "field=relu,sir") == ["field=relu,siren", "field=relu,siren_small"]
    assert answers("train", ["model=nerf"], "field.fi") == ["field.finest="]
    assert answers("train", [], "mod") == ["model=", "model."]
    assert "init_from=latest" in sure(answers("train", [], "init_from="))
    assert values("evaluate", "protocol")
    for command, schema in SCHEMAS.items():
        for key in schema.__dataclass_fields__:
            answers(command, [], f"{key}=")


def test_recent_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("outputs/sdf-meshes/b", "outputs/sdf-meshes/a", "outputs/sweeps/s/0")):
        Path(name).mkdir(parents=True)
        (Path(name) / "config.yaml").touch()
        os.utime(Path(name) / "config.yaml", (k, k))
    shown = sure(answers("extract", [], "run="))
    assert shown[:4] == [
        "run=latest",
        "run=outputs/sweeps/s/0",
        "run=outputs/sdf-meshes/a",
        "run=outputs/sdf-meshes/b",
    ]
    assert sure(answers("extract", [], "run=outputs/sdf-meshes/a"))[0] == "run=outputs/sdf-meshes/a"


def test_a_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bunny.obj").touch()
    assert answers("train", [], "bun") == ["bunny.obj"]
