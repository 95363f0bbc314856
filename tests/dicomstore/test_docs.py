"""docs/dicom-store.md says what the program does."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.dicomstore import faults
from tests.dicomstore.kit import Client, dicom

PAGE = (Path(__file__).parents[2] / "docs" / "dicom-store.md").read_text()


def test_every_flag_is_documented_and_no_other() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "infra.local.dicomstore", "--help"], capture_output=True, text=True
    )
    flags = set(re.findall(r"--[a-z][a-z-]+", shown.stdout)) - {"--help"}
    table = PAGE.partition("| flag |")[2].partition("## ")[0]
    assert set(re.findall(r"--[a-z][a-z-]+", table)) == flags


def test_every_fault_kind_and_key_is_documented() -> None:
    section = PAGE.partition("## Faults on demand")[2]
    words = set(re.findall(r"`([a-z_]+)`", section))
    assert words >= {*faults.KINDS, *faults.KNOWN}


def test_the_curl_lines_work_as_they_stand(store: Client, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    (tmp_path / "scan.dcm").write_bytes(dicom("1.2", "1.3", "1.4"))
    lines = [line for line in re.findall(r"^curl .*", PAGE, re.MULTILINE) if "rendered" not in line]
    assert len(lines) >= 6
    for line in lines:
        command = line.replace("http://127.0.0.1:8042", store.url).replace(
            "curl ", "curl -sS --fail-with-body ", 1
        )
        if "_faults" in line:
            command += f"; curl -sS -X DELETE {store.url}/_faults"
        done = subprocess.run(
            ["bash", "-ec", f"WEB={store.web}; {command}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (line, done.stderr, done.stdout)
