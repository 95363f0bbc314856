"""The whole system in a temporary folder on free ports, started once for the tests of a module."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.clients import Watch
from infra.local.stack import Stack
from infra.local.topology import Overrides

QUICK = Overrides(
    minimum_backoff_s=0.2, maximum_backoff_s=2, ack_deadline_s=60, ledger_max_duration_s=1
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running system with a short back-off."""
    with Stack(tmp_path_factory.mktemp("stack"), overrides=QUICK) as running:
        yield running


class Seen:
    """The outcomes that were published while a test runs."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.records: list[dict[str, Any]] = []

    def until(
        self, enough: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 60
    ) -> list[dict[str, Any]]:
        """Every record so far, once there are enough.

        Raises:
            AssertionError: they did not come; says which did.
        """
        end = time.monotonic() + timeout_s
        while not enough(self.records):
            words = [(r.get("outcome"), r.get("reason"), r.get("name")) for r in self.records]
            assert time.monotonic() < end, f"only these outcomes came: {words}"
            self.records += self._watch.take()
        return self.records

    def of(self, name: str, count: int = 1, timeout_s: float = 60) -> list[dict[str, Any]]:
        """The first `count` records of the object of this name."""

        def mine(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [record for record in records if record.get("name") == name]

        return mine(self.until(lambda records: len(mine(records)) >= count, timeout_s))

    def answer(self, request_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """The record of a command."""
        found = self.until(
            lambda records: any(r.get("request_id") == request_id for r in records), timeout_s
        )
        return next(record for record in found if record.get("request_id") == request_id)


@pytest.fixture
def seen(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Seen]:
    """The outcomes published from the test's begin on."""
    name = f"projects/local/subscriptions/seen-{abs(hash(request.node.nodeid))}"
    with Watch(stack.pubsub, stack.topology.topics["outcomes"], name) as watch:
        yield Seen(watch)


@pytest.fixture(scope="session")
def scans() -> dict[str, Path]:
    """Scans that come with pydicom: several modalities and transfer syntaxes."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = (
        "CT_small.dcm",
        "MR_small.dcm",
        "JPEG2000.dcm",
        "rtplan.dcm",
        "SC_rgb_rle.dcm",
        "US1_J2KI.dcm",
    )
    return {name: folder / name for name in names}
