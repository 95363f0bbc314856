"""Planning with faults: incomplete listings, and queries that one invocation cannot plan."""

import base64
import json

import pytest

from functions.api.requests import ExportRequest
from functions.common.clients import dicomweb
from functions.common.resources import GcsPrefix, Resource
from functions.export import plan
from functions.export.handler import handle
from functions.export.slices import Slice
from functions.export.state import OtherExportError, State
from tests.contract.exporting import TO, deliver, encoded_order, fill, job_of, manifest, names
from tests.contract.world import BUCKET, STATE, World, instance


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


def test_a_planning_message_that_meets_another_export_is_refused_under_the_id_of_the_request(
    small_slices: World,
) -> None:
    store = small_slices
    again = planning_message(store)
    store.follow_ups.clear()
    store.put(*(instance("1.2", "1.2.3", f"1.2.3.{n}") for n in range(1, 5)))
    other = encoded_order(path="studies/1.2")
    assert store.deliver(handle, other, {}) == ""
    assert store.deliver(handle, again, {}, follow_up=True) == ""
    (refused,) = store.outcomes
    assert (refused["outcome"], refused["request_id"]) == ("rejected", "r1")
    assert refused["detail"] == "another export with this request_id is under way"
    (record,) = store.run(handle)
    assert record["outcome"] == "exported"
    assert not store.left_over()


def test_a_planning_message_whose_search_is_refused_leaves_no_state_and_one_outcome(
    store: World,
) -> None:
    again = planning_message(store)
    store.follow_ups.clear()
    store.fault(kind="status", status=400, path="studies/1.2/instances")
    store.topics.refuse = ["UNAVAILABLE"] * 4
    assert store.deliver(handle, again, {}, follow_up=True) == "unavailable"
    store.topics.refuse = []
    assert store.deliver(handle, again, {}, 2, follow_up=True) == ""
    (record,) = store.outcomes
    assert (record["outcome"], record["request_id"]) == ("rejected", "r1")
    assert not store.left_over()


def test_a_planning_that_meets_the_plan_of_another_export_leaves_no_slices(store: World) -> None:
    destination = GcsPrefix(BUCKET, "out")
    first = State(job_of(store, ExportRequest("r1", Resource("1.1"), None, destination)), STATE)
    other = State(job_of(store, ExportRequest("r1", Resource("1.2"), None, destination)), STATE)
    run = "0123456789abcdef"
    first.decide(run, [first.add_slice(run, Slice())])
    before = store.objects(bucket=STATE)
    late = "fedcba9876543210"
    with pytest.raises(OtherExportError):
        other.decide(late, [other.add_slice(late, Slice())])
    assert store.objects(bucket=STATE) == before


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
