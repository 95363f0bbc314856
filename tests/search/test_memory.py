"""Answers of any size in the same memory: measured as the peak of the process."""

import http.client
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.search.kit import Answer, FakeStore, Function, Received, function, row

pytestmark = pytest.mark.serial
MIB = 1024 * 1024
ROWS = 50_000


@pytest.fixture
def fresh(store: FakeStore, tmp_path: Path) -> Iterator[Function]:
    """A function of its own, so that its peak is this test's."""
    with function(store.url, tmp_path) as running:
        store.answers(Answer(body=b"[{}]"))
        for _ in range(20):
            assert running.send("/instances").status == 200
            assert running.send("/instances", headers={"Accept": "text/csv"}).status == 200
            assert running.send("/studies/1.2").status == 200
        yield running


def peak_mib(running: Function) -> float:
    """Of the workers; the master answers nothing."""
    worker = psutil.Process(running.pid).children()[0]
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def large(rows: int) -> Iterator[bytes]:
    one = json.dumps(row(t00080018="1.2.3.4", t00100010="x" * 600)).encode()
    yield b"["
    for number in range(0, rows, 100):
        yield b",".join([one] * 100) + (b"," if number + 100 < rows else b"]")


def distinct(modality: str, number: int) -> bytes:
    """A row that is like no other."""
    return json.dumps(row(t00080018=f"{modality}.{number}", t00204000="x" * 3000)).encode()


def read(running: Function, target: str, accept: str) -> int:
    """How many bytes the answer has, without keeping them."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    connection.request("GET", target, headers={"Accept": accept})
    response = connection.getresponse()
    assert response.status == 200
    size = 0
    while chunk := response.read(MIB):
        size += len(chunk)
    connection.close()
    return size


@pytest.mark.parametrize("accept", ["application/dicom+json", "text/csv"])
def test_fifty_thousand_rows_cost_no_more_than_one(
    fresh: Function, store: FakeStore, accept: str
) -> None:
    before = peak_mib(fresh)
    store.plan = lambda request: (
        Answer(body=large(ROWS)) if "offset" not in request.query else Answer(204, b"")
    )
    size = read(fresh, f"/instances?limit={ROWS}&includefield=PatientName", accept)
    assert size > 25 * MIB
    assert peak_mib(fresh) - before < 16


def test_an_answer_that_is_put_together_costs_no_more_than_another(
    fresh: Function, store: FakeStore
) -> None:
    def plan(request: Received) -> Answer:
        modality = request.query.partition("Modality=")[2][:2]
        return Answer(
            body=(
                b"[" * (n == 0) + distinct(modality, n) + (b"]" if n == 24_999 else b",")
                for n in range(25_000)
            )
        )

    before = peak_mib(fresh)
    store.plan = plan
    for offset in (0, 40_000):
        target = f"/instances?Modality=CT,MR&limit={ROWS}&offset={offset}&includefield=all"
        assert read(fresh, target, "application/dicom+json") > 3.5 * MIB
    assert peak_mib(fresh) - before < 16


def test_a_retrieve_of_a_gibibyte_costs_no_more_than_a_small_one(
    fresh: Function, store: FakeStore
) -> None:
    before = peak_mib(fresh)
    piece = bytes(MIB)
    store.plan = lambda _: Answer(
        body=itertools.repeat(piece, 1024), headers={"Content-Type": "application/octet-stream"}
    )
    assert read(fresh, "/studies/1.2", "*/*") == 1024 * MIB
    assert peak_mib(fresh) - before < 16
