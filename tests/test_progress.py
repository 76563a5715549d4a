"""Whoever waits is told how far a loop is, with or without a terminal."""

from nif_cli import progress


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TELL", -1.0)
    assert list(progress.watched([3, 1, 2], "chair", "view")) == [3, 1, 2]
    assert capsys.readouterr().out.splitlines() == [f"chair: {k} of 3 views" for k in range(3)]


def test_short_loops_say_nothing(capsys):
    assert list(progress.watched([1, 2], "chair", "view")) == [1, 2]
    out = capsys.readouterr()
    assert out.out + out.err == ""
