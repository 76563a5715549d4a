"""Whoever waits is told how far a loop is, with or without a terminal."""

import io
import sys
import time

import pytest

from nif_cli import progress


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TELL", -1.0)
    assert list(progress.watched([3, 1, 2], "chair", "view")) == [3, 1, 2]
    assert capsys.readouterr().out.splitlines() == [f"chair: {k} of 3 views" for k in range(3)]


def test_short_loops_say_nothing(capsys):
    assert list(progress.watched([1, 2], "chair", "view")) == [1, 2]
    out = capsys.readouterr()
    assert out.out + out.err == ""


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("wait", ["busy", "watched"])
def test_a_terminal_sees_what_is_slow_before_it_is_done(monkeypatch, wait):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "SHOWN", 0.05)

    def seen():
        until = time.monotonic() + 20
        while "armadillo" not in screen.getvalue():
            assert time.monotonic() < until
            time.sleep(0.01)

    if wait == "busy":
        with progress.busy("reading armadillo"):
            seen()
    else:
        for _ in progress.watched([1], "armadillo", "view"):
            seen()
    assert screen.getvalue().rsplit("\r", 2)[-2].strip() == ""  # and nothing is left of it


def test_what_is_quick_is_not_seen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.busy("reading"):
        pass
    assert screen.getvalue() == ""


def test_a_log_is_told_of_what_is_slow(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TELL", 0.02)
    with progress.Bar(3, "samples", "shape") as bar:
        bar.update()
        time.sleep(0.3)
    assert "samples: 1 of 3 shapes\n" in capsys.readouterr().out
