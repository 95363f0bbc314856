"""Kill -9 and random faults, in short; `python -m tests.chaos` is the long run."""

from pathlib import Path

import pytest

from tests.chaos import Options, run


@pytest.mark.serial
def test_an_export_and_deletes_complete_whatever_is_killed_and_whatever_faults(
    tmp_path: Path,
) -> None:
    options = Options(
        instances=400, joined=80, studies=8, kill_every_s=2.0, slice_size=60, timeout_s=450
    )
    report = run(options, tmp_path)
    assert not report.wrong
    assert report.kills > 0
    assert report.faults
