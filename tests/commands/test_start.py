"""The start of `commands`: the settings that it needs, and what it imports before the first
request, which makes a cold start longer."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.contract.function_process import ROOT

LOADED = """
import sys
import functions_framework
bare = set(sys.modules)
import main
main.commands
print(*{name.split(".")[0] for name in set(sys.modules) - bare})
print(*(name for name in sys.modules if name.startswith("google.")))
"""
ENVIRON = {
    "DICOM_STORE": "projects/p/locations/l/datasets/d/dicomStores/s",
    "STATE_BUCKET": "dicom-state",
    "EXPORTS_TOPIC": "projects/local/topics/dicom-exports",
    "DELETES_TOPIC": "projects/local/topics/dicom-deletes",
    "EXPORT_DESTINATIONS": "gs://dicom-export",
}


def started(code: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["EXPORTS_TOPIC", "DELETES_TOPIC", "EXPORT_DESTINATIONS"])
def test_it_does_not_start_without_a_setting_that_commands_need(name: str) -> None:
    without = {key: value for key, value in ENVIRON.items() if key != name}
    run = started("import main; main.commands", without)
    assert run.returncode == 1
    assert f"commands: {name} is not set" in run.stderr


def test_libraries_are_loaded_when_they_are_first_used() -> None:
    run = started(LOADED, ENVIRON)
    assert run.returncode == 0
    loaded = set(run.stdout.split())
    assert not loaded & {"requests", "grpc", "pydicom", "google.cloud.storage", "google.auth"}
