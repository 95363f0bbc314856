"""What `commands` imports before the first request, which makes a cold start longer."""

import subprocess
import sys

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


def test_libraries_are_loaded_when_they_are_first_used() -> None:
    command = [sys.executable, "-c", LOADED]
    run = subprocess.run(
        command, env=ENVIRON, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(run.stdout.split())
    assert not loaded & {"requests", "grpc", "pydicom", "google.cloud.storage", "google.auth"}
