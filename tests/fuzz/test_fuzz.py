"""A few hundred hostile files of every kind: each is read or refused in a line. `make fuzz n=10000` tries more."""

import pytest

from fuzz.run import fuzz


@pytest.mark.slow
def test_hostile_files_are_read_or_refused(tmp_path):
    found, _ = fuzz(400, failures=tmp_path / "failures", quiet=True)
    failed = [v for v in found if v.failed]
    assert not failed, "\n".join(f"{v.number} {v.file} ({v.how}): {v.outcome}: {v.says}" for v in failed)
    assert {v.outcome for v in found} == {"ok", "refused"}
