"""Reconcile's memory does not grow with the ledger."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.system import ROOT
from tests.cli.desk import system_file
from tests.cli.ledger_server import IN_A_FILE, LOST

MIB = 1024 * 1024
MEASURED = """
import resource, sys
from cli.app import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(status)
"""


@contextmanager
def ledger(records: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.cli.ledger_server", str(records)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def reconciled(folder: Path, records: int) -> tuple[str, int]:
    """The counts, and the most memory it took, bytes."""
    with ledger(records) as url:
        file = folder / f"{records}.json"
        file.write_text(json.dumps(system_file(url, url)))
        arguments = ["reconcile", "--dry-run", "--system", str(file)]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    counts, most = done.stdout.splitlines()
    return counts, int(most)


@pytest.mark.serial
def test_a_million_records_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    few, few_bytes = reconciled(tmp_path, 2 * IN_A_FILE)
    many, many_bytes = reconciled(tmp_path, 40 * IN_A_FILE)
    assert few.startswith(f"{LOST} to publish, 52993 outcomes, ")
    assert many.startswith(f"{LOST} to publish, 1002993 outcomes, ")
    assert many_bytes - few_bytes < 32 * MIB
