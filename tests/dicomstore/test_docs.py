"""docs/dicom-store.md is true for the program."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.dicomstore import faults
from tests.dicomstore.kit import Client

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


def shell(text: str, store: Client) -> str:
    """Lines of the page, for this server."""
    return text.replace("http://127.0.0.1:8042", store.url)


def test_the_curl_lines_work_as_they_stand(store: Client, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    setting = "\n".join(re.findall(r"^(?:scan|study|image)=.*", PAGE, re.MULTILINE))
    lines = [line for line in re.findall(r"^curl .*", PAGE, re.MULTILINE) if "_faults" not in line]
    assert len(lines) >= 5
    for line in lines:
        command = shell(line, store).replace("curl ", "curl -sS --fail-with-body ", 1)
        done = run(f"WEB={store.web}\n{setting}\n{command}", tmp_path)
        assert done.returncode == 0, (line, done.stderr, done.stdout)


def test_the_fault_lines_work_as_they_stand(start: Callable[..., Client], tmp_path: Path) -> None:
    store = start()
    lines = [line for line in re.findall(r"^curl .*", PAGE, re.MULTILINE) if "_faults" in line]
    assert len(lines) >= 2
    for line in lines:
        assert run(shell(line, store), tmp_path).returncode == 0
    rules = store.http.get(f"{store.url}/_faults", timeout=30).json()["rules"]
    assert len(rules) == len(lines)


def run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run lines in a shell whose `python` is this one."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
