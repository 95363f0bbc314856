"""Exports with faults: what is retried, what is given up, and what is written only once."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from functions.api.requests import ExportRequest
from functions.common.clients import transport
from functions.common.errors import DicomFunctionsError
from functions.common.resources import GcsPrefix, Resource
from functions.export import batches
from functions.export.content import Content
from functions.export.handler import handle
from functions.export.writer import ObjectWriter
from tests.contract.exporting import TO, deliver, encoded_order, fill, job_of, manifest, names, run
from tests.contract.servers import Answer, planned
from tests.contract.strictbucket import strict_buckets
from tests.contract.world import BUCKET, STATE, World, instance, world
from tests.faulty import Chances, faulty


@pytest.mark.parametrize(
    ("rule", "retrieves"),
    [
        (
            {
                "kind": "truncate",
                "bytes": 9000,
                "path": "studies/1.1$",
                "count": 1,
            },
            1 + 12 - 3,
        ),
        ({"kind": "status", "status": 503, "path": "studies/1.1$", "count": 2}, 3),
        ({"kind": "reset", "path": "instances/1.1.1.1$", "count": 2}, 1),
        ({"kind": "status", "status": 400, "path": "studies/1.1$"}, 1 + 12),
    ],
)
def test_an_answer_that_breaks_is_continued_with_what_is_missing(
    store: World, rule: dict[str, Any], retrieves: int
) -> None:
    stored = fill(store, series=2, instances=6)
    store.fault(**rule)
    run(store)
    assert {name: store.read(name) for name in names(store)} == stored
    assert abs(store.requests("GET", "retrieve") - retrieves) <= 3


def test_failed_instances_are_reported_and_the_others_exported(store: World) -> None:
    fill(store)
    store.fault(kind="status", status=400, path="studies/1.1$")
    store.fault(kind="status", status=406, path="instances/1.1.1.2$")
    record = run(store, expect="partial")
    assert record["reason"] == "rejected"
    assert record["counts"]["failures"] == 1
    assert record["counts"]["objects"] == 5
    (failure,) = manifest(store)["failures"]
    assert failure["instance"] == "1.1.1.2"
    assert failure["detail"] == "the DICOM store answered 406"


def test_what_keeps_failing_is_given_up_after_some_deliveries(store: World) -> None:
    fill(store)
    store.fault(kind="truncate", bytes=100, path="(studies/1.1|instances/1.1.1.2)$")
    record = run(store, expect="partial")
    assert store.answers == ["unavailable"] * 7 + [""]
    assert record["reason"] == "unavailable"
    assert record["counts"]["failures"] == 1
    assert record["counts"]["objects"] == 5


def test_an_instance_whose_storage_time_is_never_said_is_compared_after_some_deliveries(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    fill(store)
    run(store)
    store.fault(kind="status", status=503, path="instances/1.1.1.2:getStorageInfo")
    store.answers.clear()
    record = run(store, request_id="r2")
    assert store.answers == ["unavailable"] * 7 + [""]
    assert record["counts"]["objects"] == 6
    assert record["counts"]["written"] == 0


def test_many_that_keep_failing_do_not_hide_the_others(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    fill(store, series=1, instances=60)
    store.fault(kind="status", status=500, path=r"instances/1\.1\.1\.[1-3][0-9]$")
    store.fault(kind="truncate", bytes=2000, path="studies/1.1$")
    assert deliver(store, range(1, 9)) == [""]
    assert store.outcomes[0]["outcome"] == "partial"
    assert {failure["instance"] for failure in manifest(store)["failures"]} == {
        f"1.1.1.{n}" for n in range(10, 40)
    }


@pytest.mark.parametrize("format_", ["dicom", "zip"])
def test_an_outage_of_the_store_gives_nothing_up(
    store: World, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    fill(store, series=1, instances=20)
    store.fault(kind="truncate", bytes=9000, path="studies/1.1$")
    store.fault(kind="status", status=503, path="instances/[0-9.]+$")
    assert deliver(store, range(1, 11), format=format_) == ["in vain"]
    assert not store.outcomes
    store.clear_faults()
    assert deliver(store, [11], format=format_) == [""]
    assert store.outcomes[0]["counts"]["objects"] == 20


def test_an_outage_that_begins_within_the_last_delivery_gives_nothing_up(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    fill(store, series=1, instances=80)
    store.fault(kind="status", status=400, path="studies/1.1$")
    # It is retrieved, and given again to each thread that asks when many others have failed.
    store.fault(kind="status", status=503, path=r"instances/1\.1\.1\.1$", skip=10)
    store.fault(kind="status", status=503, path=r"instances/1\.1\.1\.([2-9]|[0-9]{2})$")
    assert deliver(store, [8]) == ["in vain"]
    assert not store.outcomes
    store.clear_faults()
    assert deliver(store, [9]) == [""]
    assert store.outcomes[0]["counts"]["objects"] == 80


@pytest.mark.parametrize("format_", ["dicom", "zip"])
def test_a_slice_that_fails_completely_does_not_prevent_the_end_of_the_export(
    small_slices: World, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    store = small_slices
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    fill(store, series=1, instances=4)
    store.put(instance("1.1", "1.1.2", "1.1.2.1"))
    store.fault(kind="status", status=500, path="series/1.1.2(/instances/1.1.2.1)?$")
    assert deliver(store, range(1, 9), format=format_) == ["", "", ""]
    assert store.outcomes[0]["outcome"] == "partial"
    assert store.outcomes[0]["counts"]["objects"] == 4
    assert [failure["instance"] for failure in manifest(store)["failures"]] == ["1.1.2.1"]


def test_a_store_that_is_away_is_waited_for(store: World) -> None:
    fill(store)
    command = json.dumps({"path": "studies/1.1", "destination": TO}).encode()
    store.fault(kind="status", status=503, path="studies/1.1")
    for attempt in (1, 5, 9):
        assert store.deliver(handle, command, {}, attempt, message_id="m") == "unavailable"
    assert not store.outcomes
    store.clear_faults()
    assert store.deliver(handle, command, {}, 10, message_id="m") == ""
    assert [record["outcome"] for record in store.outcomes] == ["exported"]


def test_an_instance_that_comes_twice_with_other_bytes_is_an_object_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_FAST_S", 0)  # so that both are in one batch
    first = instance("1.1", "1.1.1", "1.1.1.1")
    other = instance("1.1", "1.1.1", "1.1.1.1", PatientName="Roe^Richard")
    uids = {"0020000D": "1.1", "0020000E": "1.1.1", "00080018": "1.1.1.1"}
    row = {tag: {"vr": "UI", "Value": [value]} for tag, value in uids.items()}
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n"
    both = Answer(
        headers={"Content-Type": "multipart/related; boundary=b"},
        body=part % first + part % other + b"--b--",
    )
    rows = [Answer(body=json.dumps(page).encode()) for page in ([row], [])]
    with (
        planned(*rows, both) as dicom_store,
        strict_buckets(BUCKET, STATE) as server,
        world(
            "export_resource",
            tmp_path,
            buckets_url=server.url,
            HEALTHCARE_ENDPOINT=f"{dicom_store.url}/v1",
        ) as store,
    ):
        run(store)
        assert server.read(BUCKET, "out/1.1/1.1.1/1.1.1.1.dcm") == first
        assert manifest(store)["failures"] == []


@pytest.mark.parametrize("size", [1000, 3 * 1024 * 1024])
def test_other_bytes_that_another_export_wrote_since_the_listing_are_no_success(
    store: World, size: int
) -> None:
    request = ExportRequest("r1", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    job = job_of(store, request)
    ObjectWriter(job, "another run").write("out/1.dcm", Content.of([b"1" * size]))
    with pytest.raises(DicomFunctionsError) as caught:
        ObjectWriter(job, "this run").write("out/1.dcm", Content.of([b"2" * size]))
    # A large one is compared by the next attempt.
    assert caught.value.reason == ("conflict" if size == 1000 else "unavailable")
    assert store.read("out/1.dcm") == b"1" * size


def test_a_large_object_that_another_export_wrote_since_the_listing_is_settled_by_the_same_delivery(
    store: World,
) -> None:
    large = instance("1.1", "1.1.1", "1.1.1.1", pixels=1800)
    store.put(large)
    store.fault(kind="slow", delay_s=3, path="studies/1.1$")
    delivery = threading.Thread(target=store.deliver, args=(handle, encoded_order(), {}))
    delivery.start()
    # It retrieves after the listing.
    while delivery.is_alive() and not store.requests("GET", "retrieve"):
        time.sleep(0.02)
    request = ExportRequest("r2", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    writer = ObjectWriter(job_of(store, request), "another run")
    writer.write("out/1.1/1.1.1/1.1.1.1.dcm", Content.of([large]))
    delivery.join()
    assert store.answers == [""]
    (record,) = store.outcomes
    assert record["outcome"] == "exported"
    assert (record["counts"]["objects"], record["counts"]["written"]) == (1, 0)


@pytest.mark.parametrize("size", [1000, 3 * 1024 * 1024])
def test_an_object_that_this_export_wrote_since_the_listing_is_a_success(
    store: World, size: int
) -> None:
    request = ExportRequest("r1", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    job = job_of(store, request)
    first = ObjectWriter(job, "this run").write("out/1.dcm", Content.of([b"1" * size]))
    again = ObjectWriter(job, "this run").write("out/1.dcm", Content.of([b"1" * size]))
    assert again.by_this_export
    assert again.stored.ref == first.stored.ref


@pytest.mark.parametrize("format_", ["dicom", "metadata", "zip"])
def test_an_answer_of_the_bucket_that_is_lost_does_no_harm(
    tmp_path: Path, buckets: str, format_: str
) -> None:
    with (
        faulty(buckets, Chances()) as proxy,
        world("export_resource", tmp_path, buckets_url=proxy.url) as store,
    ):
        store.clear_bucket()
        fill(store)
        proxy.lose += [b"/plan.json", b"/done-", b"manifest.json"]
        record = run(store, format=format_)
        assert record["counts"]["objects"] == 6
        assert store.answers == [""]
        assert proxy.lose == []
        assert not store.left_over()


@pytest.mark.parametrize("format_", ["metadata", "zip"])
def test_an_object_that_was_joined_and_its_answer_lost_is_the_exports_own(
    tmp_path: Path, format_: str
) -> None:
    with (
        strict_buckets(BUCKET, STATE) as server,
        world("export_resource", tmp_path, buckets_url=server.url) as store,
    ):
        fill(store)
        server.lost.append("compose")
        record = run(store, format=format_)
        assert record["counts"]["objects"] == 6
        assert store.answers == [""]
        assert server.lost == []


def test_answers_of_the_bucket_that_are_cut_are_asked_for_again(
    tmp_path: Path, buckets: str
) -> None:
    chances = Chances(cut=0.05)
    with (
        faulty(buckets, chances) as proxy,
        world("export_resource", tmp_path, buckets_url=proxy.url) as store,
    ):
        replace(store, buckets_url=buckets).clear_bucket()
        fill(store, instances=60)
        store.run(
            handle,
            {
                "path": "studies/1.1",
                "destination": TO,
                "format": "metadata",
                "request_id": "r1",
            },
        )
        assert store.outcomes[0]["counts"]["objects"] == 120
        assert (
            len(replace(store, buckets_url=buckets).read("out/metadata.ndjson").splitlines()) == 120
        )


@pytest.mark.parametrize("format_", ["dicom", "zip", "jpeg", "metadata", "metadata-xml"])
def test_an_answer_that_is_something_else_is_not_written(store: World, format_: str) -> None:
    stored = fill(store, series=1, instances=2)
    other = {
        "kind": "status",
        "status": 200,
        "path": "(studies/1.1|1.1.1.2)(/rendered|/metadata)?$",
    }
    store.fault(**other, method="GET")
    command = json.dumps(
        {
            "path": "studies/1.1",
            "destination": TO,
            "format": format_,
            "request_id": "r1",
        }
    ).encode()
    assert store.deliver(handle, command, {}) == "unavailable"
    store.clear_faults()
    assert store.deliver(handle, command, {}, 2) == ""
    assert store.outcomes[0]["counts"]["objects"] == len(stored)
    if format_ == "dicom":
        assert {name: store.read(name) for name in names(store)} == stored


def test_a_state_bucket_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    with (
        strict_buckets(BUCKET) as server,
        world("export_resource", tmp_path, buckets_url=server.url) as store,
    ):
        fill(store)
        assert deliver(store, [1]) == ["in vain"]
        assert store.answers == ["unavailable"]
        assert store.outcomes == []
        server.buckets[STATE] = {}
        assert deliver(store, [2]) == [""]
        assert [record["outcome"] for record in store.outcomes] == ["exported"]
