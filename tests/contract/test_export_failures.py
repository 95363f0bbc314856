"""Exports with faults: what is retried, what is given up, and what is written only once."""

import base64
import io
import json
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from functions.api.requests import ExportRequest
from functions.common.clients import dicomweb, transport
from functions.common.errors import DicomFunctionsError
from functions.common.resources import GcsPrefix, Resource
from functions.export import batches, plan
from functions.export.content import Content
from functions.export.handler import handle
from functions.export.state import COMMAND, Plan, State
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


def test_bulk_data_that_never_comes_in_time_is_not_tried_for_ever(store: World) -> None:
    fill(store, series=1)
    store.fault(kind="slow", delay_s=8, path="instances/1.1.1.2/bulkdata")
    data = encoded_order(format="bulkdata")
    assert (
        store.deliver(handle, data, {}, budget_s=4.0) == ""
    )  # the others were written: on with a new message
    (message,) = store.follow_ups
    again = base64.b64decode(message["data"])
    answers = [
        store.deliver(handle, again, {}, attempt, budget_s=4.0, follow_up=True)
        for attempt in (1, 2)
    ]
    assert answers == ["deadline_exceeded", "deadline_exceeded"]
    assert len(store.follow_ups) == 1


@pytest.mark.parametrize(
    ("format_", "rule"),
    [
        ("dicom", {"delay_s": 20}),
        ("dicom", {"delay_s": 0, "bytes_per_s": 2_000}),
        ("zip", {"delay_s": 0, "bytes_per_s": 2_000}),
    ],
)
def test_an_instance_that_uses_up_every_invocation_is_given_up(
    small_slices: World, format_: str, rule: dict[str, Any]
) -> None:
    store = small_slices
    fill(store, series=1, instances=4)
    store.put(instance("1.1", "1.1.2", "1.1.2.1", pixels=512))
    store.fault(kind="status", status=400, path="series/1.1.2$")
    store.fault(kind="slow", path="instances/1.1.2.1$", **rule)
    assert store.deliver(handle, encoded_order(format=format_), {}) == ""
    others, bad = [base64.b64decode(one["data"]) for one in store.follow_ups]
    store.follow_ups.clear()
    assert store.deliver(handle, others, {}, follow_up=True) == ""
    answers = [
        store.deliver(handle, bad, {}, attempt, follow_up=True, budget_s=4.0) for attempt in (7, 8)
    ]
    assert answers == ["deadline_exceeded", ""]
    (record,) = store.outcomes
    assert (record["outcome"], record["counts"]["objects"]) == ("partial", 4)
    (failure,) = manifest(store)["failures"]
    assert failure["instance"] == "1.1.2.1"


def test_an_instance_whose_bulk_data_takes_longer_than_one_invocation_continues_in_another_message(
    store: World,
) -> None:
    store.put(instance("1.1", "1.1.1", "1.1.1.1", pixels=64))
    (row,) = store.found("studies/1.1/metadata")
    uri = row["7FE00010"]["BulkDataURI"]
    row["00420011"] = {"vr": "OB", "BulkDataURI": uri.replace("7FE00010", "00420011")}
    store.fault(kind="status", status=200, body=json.dumps([row]), path="/metadata$")
    store.fault(kind="status", status=200, body="document", path="bulkdata/00420011")
    store.fault(kind="slow", delay_s=8, path="bulkdata/7FE00010", count=1)
    command = {"path": "studies/1.1", "destination": TO, "format": "bulkdata"}
    assert store.deliver(handle, json.dumps(command).encode(), {}, budget_s=4.0) == ""
    assert len(names(store)) == 1
    (record,) = store.run(handle)
    assert (record["outcome"], record["counts"]["objects"]) == ("exported", 2)


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


def test_two_deliveries_at_once_do_not_mix(store: World) -> None:

    stored = fill(store, series=3, instances=10)
    command = encoded_order()
    threads = [threading.Thread(target=store.deliver, args=(handle, command, {})) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.run(handle)
    assert {name: store.read(name) for name in names(store)} == stored
    assert not store.left_over()
    assert len({record["id"] for record in store.outcomes}) == 1
    assert {record["outcome"] for record in store.outcomes} == {"exported"}


def test_another_command_with_the_request_id_of_an_export_under_way_is_refused_under_its_own_id(
    small_slices: World,
) -> None:
    store = small_slices
    fill(store, studies=2, series=4)
    assert store.deliver(handle, encoded_order(), {}, message_id="m1") == ""
    other = encoded_order(path="studies/1.2")
    assert store.deliver(handle, other, {}, message_id="m2") == ""
    (refused,) = store.outcomes
    assert (refused["outcome"], refused["request_id"]) == ("rejected", "m2")
    assert refused["detail"] == "another export with this request_id is under way"
    (record,) = store.run(handle)
    assert (record["outcome"], record["request_id"]) == ("exported", "r1")
    assert record["id"] != refused["id"]


def test_a_slice_that_comes_too_late_has_nothing_to_do(small_slices: World) -> None:
    store = small_slices
    fill(store, series=4)
    command = encoded_order()
    assert store.deliver(handle, command, {}) == ""
    late = list(store.follow_ups)
    store.run(handle)
    before = store.objects()
    store.follow_ups.extend(late)
    assert store.run(handle) == []
    assert store.objects() == before


def test_the_manifest_is_written_by_a_later_delivery_after_a_crash(small_slices: World) -> None:
    store = small_slices
    fill(store, series=4)
    command = encoded_order()
    store.deliver(handle, command, {})
    # The outcome cannot be published: the last slice is delivered again.
    store.topics.refuse = ["UNAVAILABLE"] * 4
    (record,) = store.run(handle)
    assert record["outcome"] == "exported"
    assert "unavailable" in store.answers
    assert len(manifest(store)["objects"]) == 12


def test_the_command_sent_again_ends_an_export_whose_claimed_end_became_a_dead_letter(
    small_slices: World,
) -> None:
    store = small_slices
    fill(store, series=4)
    command = encoded_order()
    assert store.deliver(handle, command, {}) == ""
    # The last slice claims the end, cannot publish the outcome, and its message is gone.
    first, *others = [base64.b64decode(one["data"]) for one in store.follow_ups]
    store.follow_ups.clear()
    for data in (first, *others[:-1]):
        assert store.deliver(handle, data, {}, follow_up=True) == ""
    store.topics.refuse = ["UNAVAILABLE"] * 4
    assert store.deliver(handle, others[-1], {}, follow_up=True) == "unavailable"
    store.topics.refuse = []
    assert store.deliver(handle, command, {}) == ""
    assert [record["outcome"] for record in store.outcomes] == ["exported"]
    assert not store.left_over()


def test_a_slice_whose_claimed_end_was_taken_over_publishes_nothing(
    small_slices: World, capfd: pytest.CaptureFixture[str]
) -> None:
    store = small_slices
    fill(store, series=4)
    command = encoded_order()
    assert store.deliver(handle, command, {}) == ""
    slices = [base64.b64decode(one["data"]) for one in store.follow_ups]
    store.follow_ups.clear()
    store.topics.refuse = ["UNAVAILABLE"] * 8
    answers = [store.deliver(handle, data, {}, follow_up=True) for data in slices]
    # The command takes over, and cannot publish either.
    answers.append(store.deliver(handle, command, {}))
    assert answers[-2:] == ["unavailable"] * 2
    store.topics.refuse = []
    capfd.readouterr()
    assert store.deliver(handle, slices[-1], {}, 2, follow_up=True) == ""
    assert not store.outcomes
    assert "superseded" in "".join(capfd.readouterr())
    assert store.deliver(handle, command, {}, 2) == ""
    assert [record["outcome"] for record in store.outcomes] == ["exported"]


def test_the_end_of_an_export_that_was_ended_meanwhile_is_not_claimed(store: World) -> None:
    request = ExportRequest("r1", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    ended = Plan("0123456789abcdef", ("fedcba9876543210",))
    assert not State(job_of(store, request), STATE).claim_end(ended, COMMAND)
    assert not store.left_over()


@pytest.mark.parametrize("size", [1000, 3 * 1024 * 1024])
def test_other_bytes_that_another_export_wrote_since_the_listing_are_no_success(
    store: World, size: int
) -> None:
    request = ExportRequest("r1", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    job = job_of(store, request)
    ObjectWriter(job, "another run").write("out/1.dcm", Content.of([b"1" * size]))
    with pytest.raises(DicomFunctionsError) as caught:
        ObjectWriter(job, "this run").write("out/1.dcm", Content.of([b"2" * size]))
    # A large one is compared by the next delivery, which finds it in its listing.
    assert caught.value.reason == ("conflict" if size == 1000 else "unavailable")
    assert store.read("out/1.dcm") == b"1" * size


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


def test_a_budget_that_is_too_short_continues_in_another_message(store: World) -> None:
    stored = fill(store, series=1, instances=12)
    store.fault(kind="slow", delay_s=0.4, path="instances/1.1.1.[0-9]+$")
    store.fault(kind="truncate", bytes=9000, path="studies/1.1$")
    (record,) = store.run(
        handle,
        {
            "path": "studies/1.1",
            "destination": TO,
            "request_id": "r1",
        },
        budget_s=0.9,
    )
    assert record["outcome"] == "exported"
    assert {name: store.read(name) for name in names(store)} == stored


def test_comparing_with_older_objects_for_longer_than_the_budget_continues_where_it_stopped(
    store: World,
) -> None:
    fill(store, series=1, instances=40)
    run(store)
    # Stored anew, with the same bytes: nothing is written, and each is retrieved to know that.
    for n in range(1, 41):
        store.remove(f"studies/1.1/series/1.1.1/instances/1.1.1.{n}")
    fill(store, series=1, instances=40)
    store.fault(kind="status", status=400, path="studies/1.1$")
    store.fault(kind="slow", delay_s=0.6, path="instances/1.1.1.[0-9]+$")
    command = {"path": "studies/1.1", "destination": TO, "request_id": "r2"}
    (record,) = store.run(handle, command, budget_s=3)
    assert record["counts"]["objects"] == 40
    assert record["counts"]["written"] == 0
    assert len(manifest(store)["objects"]) == 40
    assert not store.left_over()


def test_a_zip_that_takes_longer_than_the_budget_continues_where_it_stopped(store: World) -> None:
    stored = fill(store, series=2, instances=4, pixels=512)
    store.fault(
        kind="slow",
        delay_s=0,
        bytes_per_s=500_000,
        path="studies/1.1(/series/1.1.[12](/instances/[0-9.]+)?)?$",
    )
    command = {
        "path": "studies/1.1",
        "destination": TO,
        "format": "zip",
        "request_id": "r1",
    }
    (record,) = store.run(handle, command, budget_s=4)
    assert record["outcome"] == "exported"
    assert record["counts"]["objects"] == 8
    assert store.deliveries > 1
    with zipfile.ZipFile(io.BytesIO(store.read("out/1.1.zip"))) as archive:
        assert archive.testzip() is None
        assert {f"out/{name}": archive.read(name) for name in archive.namelist()} == stored
    assert not store.left_over()


def test_a_zip_slice_and_its_rest_are_found_again_after_a_crash(store: World) -> None:
    fill(store, series=2, instances=4, pixels=512)
    store.fault(kind="slow", delay_s=0, bytes_per_s=200_000, path="studies/1.1$")
    data = encoded_order(format="zip")
    assert store.deliver(handle, data, {}, budget_s=8) == ""
    (rest,) = store.follow_ups
    store.follow_ups.clear()  # the message with the rest was never published
    assert store.deliver(handle, data, {}, 2) == ""
    again = store.follow_ups
    assert [message["data"] for message in again] == [rest["data"]]
    again.append(dict(again[0]))  # and it is delivered twice
    assert {record["counts"]["objects"] for record in store.run(handle)} == {8}
    assert len(manifest(store)["objects"]) == 8


def test_the_command_sent_again_goes_on_with_a_rest_whose_message_became_a_dead_letter(
    store: World,
) -> None:
    fill(store, series=2, instances=4, pixels=512)
    store.fault(kind="slow", delay_s=0, bytes_per_s=500_000, path="studies/1.1")
    data = encoded_order(format="zip")
    assert store.deliver(handle, data, {}, budget_s=2) == ""
    (rest,) = store.follow_ups
    store.follow_ups.clear()
    content = base64.b64decode(rest["data"])
    assert store.deliver(handle, content, {}, budget_s=2, follow_up=True) == ""
    (rest_of_the_rest,) = store.follow_ups
    store.follow_ups.clear()
    assert store.deliver(handle, data, {}) == ""
    assert [message["data"] for message in store.follow_ups] == [rest_of_the_rest["data"]]
    (record,) = store.run(handle)
    assert record["outcome"] == "exported"
    assert record["counts"]["objects"] == 8


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


@pytest.mark.parametrize("format_", ["dicom", "zip"])
def test_a_listing_that_stays_short_is_no_complete_export(
    store: World, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(plan, "PAGE", 3)  # so that each series is listed for itself
    fill(store)
    store.fault(kind="status", status=200, body="[]", path="series/1.1.2/instances")
    assert deliver(store, range(1, 9), format=format_) == [""]
    assert store.answers == ["unavailable"] * 7 + [""]
    (record,) = store.outcomes
    assert record["outcome"] == "partial"
    assert record["reason"] == "unavailable"
    assert record["counts"]["objects"] == 3
    (failure,) = manifest(store)["failures"]
    assert failure["series"] == "1.1.2"
    assert failure["detail"] == "the search finds no instance of this series"


def test_a_query_whose_pages_always_overlap_is_no_complete_export(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH_PAGE", 1)
    fill(store, studies=2, series=1, instances=1)
    first_page = json.dumps(store.found("studies?limit=1&includefield=0020000E"))
    second_page = r"dicomWeb/studies\?.*offset=1$"
    store.fault(kind="status", status=200, body=first_page, path=second_page)
    (record,) = store.run(
        handle, {"query": "PatientName=Doe^Jane", "destination": TO, "request_id": "r1"}
    )
    assert (record["outcome"], record["reason"]) == ("partial", "unavailable")
    assert store.answers == ["unavailable"] * 7 + [""]
    (failure,) = manifest(store)["failures"]
    assert (failure["study"], failure["detail"]) == ("", "the search finds 1 of 2 studies")


def test_an_export_of_several_slices_that_is_refused_has_one_outcome_and_leaves_no_state(
    tmp_path: Path, buckets: str
) -> None:
    nowhere = "gs://no-such-bucket"
    settings: dict[str, Any] = {"EXPORT_DESTINATIONS": nowhere, "EXPORT_SLICE": "4"}
    with world("export_resource", tmp_path, buckets_url=buckets, **settings) as store:
        fill(store, series=3, instances=4)
        command = {
            "path": "studies/1.1",
            "destination": f"{nowhere}/out",
            "request_id": "r1",
        }
        (record,) = store.run(handle, command)
        assert record["outcome"] == "rejected"
        assert record["reason"] == "not_found"
        assert not store.objects(bucket=STATE)


def test_a_refusal_whose_outcome_could_not_be_published_stays_one_when_the_bucket_appears(
    tmp_path: Path,
) -> None:
    with (
        strict_buckets(STATE) as server,
        world("export_resource", tmp_path, buckets_url=server.url, EXPORT_SLICE="4") as store,
    ):
        fill(store, series=3, instances=4)
        assert store.deliver(handle, encoded_order(), {}) == ""
        first, *others = [base64.b64decode(one["data"]) for one in store.follow_ups]
        store.follow_ups.clear()
        store.topics.refuse = ["UNAVAILABLE"] * 4
        assert store.deliver(handle, first, {}, follow_up=True) == "unavailable"
        store.topics.refuse = []
        server.buckets[BUCKET] = {}
        answers = [store.deliver(handle, data, {}, 2, follow_up=True) for data in (first, *others)]
        assert answers == ["", "", ""]
        (record,) = store.outcomes
        assert (record["outcome"], record["reason"]) == ("rejected", "not_found")
        assert record["detail"] == "the bucket does not exist"
        assert not store.left_over()


def test_a_planning_that_fails_leaves_no_state(
    small_slices: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_slices
    monkeypatch.setattr(plan, "PAGE", 3)
    fill(store, series=3)
    store.fault(kind="status", status=200, body="[]", path="series/1.1.3/instances")
    assert deliver(store, [1]) == ["in vain"]
    assert not store.objects()
    assert not store.left_over()


def test_a_planning_goes_on_from_a_message_although_its_publishing_seemed_to_fail(
    store: World,
) -> None:
    fill(store, studies=2, instances=2)
    store.fault(kind="slow", delay_s=5, path="studies/1.2/instances", count=1)
    command = {
        "query": "PatientName=Doe^Jane",
        "destination": TO,
        "request_id": "r1",
    }
    store.topics.refuse = ["UNAVAILABLE"] * 4
    assert store.deliver(handle, json.dumps(command).encode(), {}, budget_s=3.2) != ""
    store.topics.refuse = []
    store.clear_faults()
    (name,) = store.objects(bucket=STATE)
    _, _, plan_run, slice_name = name.split("/")
    slices = [slice_name.removeprefix("slice-").removesuffix(".json")]
    store.forge({**command, "run": plan_run, "slices": slices, "after": "studies/1.1"})
    (record,) = store.run(handle)
    assert record["outcome"] == "exported"
    assert record["counts"]["objects"] == 8


def planning_message(store: World) -> bytes:
    """The follow-up message of a query whose first invocation has planned one of two studies."""
    fill(store, studies=2, instances=2)
    store.fault(kind="slow", delay_s=5, path="studies/1.2/instances", count=1)
    command = {"query": "PatientName=Doe^Jane", "destination": TO, "request_id": "r1"}
    assert store.deliver(handle, json.dumps(command).encode(), {}, budget_s=3.2) == ""
    store.clear_faults()
    (message,) = store.follow_ups
    return base64.b64decode(message["data"])


def test_a_planning_whose_next_match_takes_too_long_goes_on_after_the_last_complete_one(
    small_slices: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_slices
    monkeypatch.setattr(plan, "PAGE", 5)  # so that the second study is listed series by series
    fill(store, series=1, instances=3)
    store.put(*(instance("1.2", f"1.2.{n % 3}", f"1.2.{n % 3}.{n}") for n in range(12)))
    store.fault(kind="slow", delay_s=5, path="series/1.2.2/instances", count=1)
    command = {"query": "PatientName=Doe^Jane", "destination": TO, "request_id": "r1"}
    assert store.deliver(handle, json.dumps(command).encode(), {}, budget_s=3.2) == ""
    (message,) = store.follow_ups
    content = json.loads(base64.b64decode(message["data"]))
    assert content["after"] == "studies/1.1"
    assert len(content["slices"]) == 1
    assert len(store.objects(bucket=STATE)) > 1
    (record,) = store.run(handle)
    assert (record["outcome"], record["counts"]["objects"]) == ("exported", 15)
    assert not store.left_over()


def test_a_match_that_cannot_be_planned_within_one_invocation_is_tried_again(store: World) -> None:
    again = planning_message(store)
    store.follow_ups.clear()
    store.fault(kind="slow", delay_s=5, path="studies/1.2/instances")
    assert store.deliver(handle, again, {}, follow_up=True, budget_s=2.0) == "unavailable"
    assert not store.follow_ups
    store.clear_faults()
    assert store.deliver(handle, again, {}, 2, follow_up=True) == ""
    (record,) = store.run(handle)
    assert (record["outcome"], record["counts"]["objects"]) == ("exported", 8)


def test_a_planning_message_that_comes_after_the_end_has_nothing_to_do(store: World) -> None:
    again = planning_message(store)
    (record,) = store.run(handle)
    assert (record["outcome"], record["counts"]["objects"]) == ("exported", 8)
    assert store.deliver(handle, again, {}, 2, follow_up=True) == ""
    assert not store.follow_ups
    assert len(store.outcomes) == 1
    assert not store.left_over()


def test_a_planning_message_of_a_run_that_was_not_chosen_deletes_its_slices(
    small_slices: World,
) -> None:
    store = small_slices
    again = planning_message(store)
    store.follow_ups.clear()
    command = {"query": "PatientName=Doe^Jane", "destination": TO, "request_id": "r1"}
    assert store.deliver(handle, json.dumps(command).encode(), {}) == ""
    assert store.deliver(handle, again, {}, follow_up=True) == ""
    runs = {name.split("/")[2] for name in store.objects(bucket=STATE) if "/slice-" in name}
    assert len(runs) == 1


def test_matches_are_planned_once_although_the_stores_order_changes(store: World) -> None:
    planning_message(store)
    rows = store.found("studies?includefield=0020000D&includefield=0020000E")
    for offset in (0, 1):
        page = json.dumps(rows[::-1][offset:])
        path = rf"dicomWeb/studies\?.*offset={offset}$"
        store.fault(kind="status", status=200, body=page, path=path)
    (record,) = store.run(handle)
    assert record["outcome"] == "exported"
    assert len(names(store)) == 8


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
