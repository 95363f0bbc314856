"""Shared by several files of tests."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.system import ROOT
from infra.local.stack import Stack
from infra.local.topology import Overrides
from tests.pubsub.conftest import Emulator, running

QUICK = Overrides(
    minimum_backoff_s=0.2,
    maximum_backoff_s=2,
    ack_deadline_s=60,
    ledger_max_duration_s=1,
)
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """A Pub/Sub emulator in a separate process."""
    with running() as process:
        yield process


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running system with a short back-off."""
    with Stack(tmp_path_factory.mktemp("stack"), overrides=QUICK) as running_stack:
        yield running_stack


@pytest.fixture
def command(stack: Stack) -> Command:
    """`dicom-functions NAME …` on that system, as a separate process."""

    def call(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(name, *arguments, system=stack.data)

    return call


def run(*arguments: str, system: Path) -> "subprocess.CompletedProcess[str]":
    """`dicom-functions …` on a system."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "DICOM_FUNCTIONS_SYSTEM": str(system)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="session")
def scans() -> dict[str, Path]:
    """Scans that come with pydicom: several modalities and transfer syntaxes."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "SC_rgb_rle.dcm")
    return {name: folder / name for name in names}
