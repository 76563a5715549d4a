"""metrics.csv, and what a run writes while it trains."""

import csv
from pathlib import Path

import pytest

from nif_cli.training.callbacks import Checkpoints
from nif_cli.training.csv_logger import CsvLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_step_and_a_column_a_metric(tmp_path):
    """A metric that comes later gets its column; earlier rows have none of it."""
    logger = CsvLogger(str(tmp_path))
    logger.log_metrics({"loss": 1.5}, 0)
    logger.log_metrics({"loss": 0.5, "val/loss": 0.25, "epoch": 3}, 50)
    assert rows(tmp_path) == [
        {"step": "0", "loss": "1.5", "val/loss": ""},
        {"step": "50", "loss": "0.5", "val/loss": "0.25"},
    ]


def test_a_resumed_run_goes_on_with_the_same_file(tmp_path):
    CsvLogger(str(tmp_path)).log_metrics({"a": 1, "b": 2}, 0)
    CsvLogger(str(tmp_path)).log_metrics({"b": 3}, 10)
    assert [(r["step"], r["a"], r["b"]) for r in rows(tmp_path)] == [("0", "1", "2"), ("10", "", "3")]


def test_later_rows_are_forgotten(tmp_path):
    """A run that is resumed at a step makes what came after it again."""
    logger = CsvLogger(str(tmp_path))
    for step in (0, 10, 20, 30):
        logger.log_metrics({"a": step}, step)
    logger.forget_after(15)
    logger.log_metrics({"a": 20}, 20)
    assert [r["step"] for r in rows(tmp_path)] == ["0", "10", "20"]


def test_nothing_to_say_is_no_row(tmp_path):
    CsvLogger(str(tmp_path)).log_metrics({"epoch": 1}, 5)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_period_is_positive():
    with pytest.raises(ValueError, match="every_minutes"):
        Checkpoints(every_minutes=0)
