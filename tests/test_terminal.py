"""Standard output: no escapes of strangers, and neither a full disk nor a closed pipe is a bug or the end of
the work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nif_cli.terminal import Printable, printable


def test_nothing_but_text_is_printed():
    stream = io.StringIO()
    print("a\x1b[2J\x1b]0;x\x07b\u202ec\rd\x08 ä\udcff", "\tx", file=Printable(stream))  # type: ignore[call-overload]
    assert stream.getvalue() == "a?[2J?]0;x?b?c?d? ä? \tx\n"
    assert printable("plain\nlines") == "plain\nlines"


def test_a_terminal_without_our_letters():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    print("späne", file=Printable(stream))  # type: ignore[call-overload]
    stream.flush()
    assert raw.getvalue() == b"sp\\xe4ne\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["-V"], ["train", "--cfg", "job"]])
def test_an_output_that_is_full(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nif_cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "nif: standard output: cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_work_is_done_though_nobody_can_read_of_it(tiny, tmp_path):
    command = [sys.executable, "-m", "nif_cli", "train", *tiny, "data.count=1", "trainer.max_steps=2"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "output_dir=full"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "nif: standard output: cannot be written: No space left on device"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*command, "output_dir=closed"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert "rror" not in done.stderr
    assert done.returncode == 0
    for name in ("full", "closed"):
        assert (tmp_path / name / "checkpoints" / "last.ckpt").is_file()
        assert (tmp_path / name / "summary.json").is_file()


def test_both_outputs_closed():
    done = subprocess.run(f"'{sys.executable}' -m nif_cli -V >&- 2>&-", shell=True, check=False)
    assert done.returncode in (0, 1)
