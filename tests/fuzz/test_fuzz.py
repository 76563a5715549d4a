"""A few hundred hostile files of every kind: each is read or refused in a line. `make fuzz n=10000` tries
more."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import mutations


@pytest.mark.slow
def test_hostile_files_are_read_or_refused(tmp_path):
    """In a process of its own: readers run in forks, which must come from one without threads."""
    command = [
        sys.executable,
        str(Path(mutations.__file__).with_name("run.py")),
        "--n",
        "300",
        "--random",
        "0",
    ]
    done = subprocess.run(
        [*command, "--failures", str(tmp_path / "failures")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert "0 of 300 failed" in done.stdout
