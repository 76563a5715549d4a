"""The Python page is true: its blocks run, one after the other, and print what it says they print."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import nif_cli

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


def test_the_python_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```(python|text)\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) > 8
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert printed == text
            continue
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(text, str(PAGE), "exec"), names)
        printed = out.getvalue()
    assert isinstance(names["run"], nif_cli.Run)
