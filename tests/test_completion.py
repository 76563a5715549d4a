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

from nif_cli.completion import SCRIPTS, files, last_word
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
