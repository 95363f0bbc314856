"""Exports that take longer than one invocation."""

import base64
import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import pytest

from functions.api.requests import ExportRequest
from functions.common.deadline import Deadline
from functions.common.resources import GcsPrefix, Resource
from functions.export import giving_up
from functions.export.giving_up import GivingUp
from functions.export.handler import handle
from functions.export.job import Attempt
from functions.export.slices import Piece
from tests.contract.exporting import TO, encoded_order, fill, job_of, manifest, names, run
from tests.contract.world import BUCKET, World, instance


def test_bulk_data_that_never_comes_in_time_is_not_tried_for_ever(store: World) -> None:
    fill(store, series=1)
    store.fault(kind="slow", delay_s=8, path="instances/1.1.1.2/bulkdata")
    data = encoded_order(format="bulkdata")
    # The others were written: the rest becomes another slice.
    assert store.deliver(handle, data, {}, budget_s=4.0) == ""
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
        ("zip", {"delay_s": 20}),
        ("zip", {"delay_s": 0, "bytes_per_s": 2_000}),
    ],
)
def test_an_instance_that_uses_up_every_invocation_is_given_up(
    small_slices: World, format_: str, rule: dict[str, Any]
) -> None:
    store = small_slices
    fill(store, series=1, instances=4)
    store.put(instance("1.1", "1.1.2", "1.1.2.1", pixels=512))
    store.fault(kind="slow", path="series/1.1.2(/instances/1.1.2.1)?$", **rule)
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


def test_asking_for_a_known_instance_leaves_time_for_recording(
    store: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving_up, "_ASKING_S", 0.5)
    fill(store, series=1, instances=1)
    store.fault(kind="slow", delay_s=4, path="instances/1.1.1.1$")
    request = ExportRequest("r1", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    attempt = Attempt(8, 8)
    job = replace(job_of(store, request), attempt=attempt, work_deadline=Deadline(0))
    known = Piece(Resource("1.1", "1.1.1", "1.1.1.1"))
    assert not GivingUp(job, lambda: known).is_due([])


def test_large_instances_that_only_wait_for_a_slow_one_are_not_given_up_with_it(
    small_slices: World,
) -> None:
    store = small_slices
    fill(store, series=1, instances=4)
    store.put(instance("1.1", "1.1.2", "1.1.2.1", pixels=4800))
    store.put(*(instance("1.1", "1.1.2", f"1.1.2.{n}", pixels=1800) for n in (2, 3, 4)))
    # The slow one begins to be written before the others have arrived.
    store.fault(kind="slow", delay_s=0, bytes_per_s=4_000_000, path="instances/1.1.2.1$")
    store.fault(kind="slow", delay_s=2, path="instances/1.1.2.[2-4]$")
    assert store.deliver(handle, encoded_order(), {}) == ""
    others, large = [base64.b64decode(one["data"]) for one in store.follow_ups]
    store.follow_ups.clear()
    assert store.deliver(handle, others, {}, follow_up=True) == ""
    assert store.deliver(handle, large, {}, 8, follow_up=True, budget_s=6.0) == ""
    (record,) = store.run(handle)
    assert (record["outcome"], record["counts"]["objects"]) == ("partial", 7)
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
