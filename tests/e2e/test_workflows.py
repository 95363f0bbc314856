"""From stored instances to webhooks, in short; `python -m tests.workflows` is the long run."""

import dataclasses
from pathlib import Path

import pytest

from tests.workflows import Options, run

SMALL = Options(
    studies=12,
    records=8,
    uploads=3,
    requests=4,
    down_s=5.0,
    timeout_s=300,
)


@pytest.mark.serial
@pytest.mark.parametrize("kill_every_s", [0.0, 2.0], ids=["no-fault", "kills"])
def test_every_study_is_reported_and_every_webhook_called(
    tmp_path: Path, kill_every_s: float
) -> None:
    report = run(dataclasses.replace(SMALL, kill_every_s=kill_every_s), tmp_path)
    assert not report.wrong
