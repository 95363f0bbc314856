"""The end of an export: one outcome, whatever comes twice, late or not at all."""

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from functions.api.requests import ExportRequest
from functions.common.resources import GcsPrefix, Resource
from functions.export.handler import handle
from functions.export.state import COMMAND, Plan, State
from tests.contract.exporting import encoded_order, fill, job_of, manifest, names
from tests.contract.strictbucket import strict_buckets
from tests.contract.world import BUCKET, STATE, World, world


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


def test_a_late_slice_that_meets_another_export_with_its_request_id_has_nothing_to_do(
    small_slices: World,
) -> None:
    store = small_slices
    fill(store, studies=2, series=4)
    assert store.deliver(handle, encoded_order(), {}) == ""
    late = base64.b64decode(store.follow_ups[0]["data"])
    assert len(store.run(handle)) == 1
    assert store.deliver(handle, encoded_order(path="studies/1.2"), {}) == ""
    before = store.objects(bucket=STATE)
    assert store.deliver(handle, late, {}, 2, follow_up=True) == ""
    assert len(store.outcomes) == 1
    assert store.objects(bucket=STATE) == before


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
