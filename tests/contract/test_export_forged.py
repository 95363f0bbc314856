"""Forged objects and messages cannot make an export do what was not requested."""

import base64
import json
import threading
from typing import Any

import pytest

from functions.api.requests import ExportRequest
from functions.common.checksum import crc32c_text
from functions.common.errors import RetryableError
from functions.common.events.runtime import Services
from functions.common.resources import GcsPrefix, Resource
from functions.common.settings import Settings
from functions.export.handler import handle
from functions.export.ndjson import write_lines
from functions.export.parts import Parts
from functions.export.result import Result
from tests.contract.exporting import TO, fill, job_of, names
from tests.contract.world import BUCKET, STATE, STORE_NAME, World

COMMAND = {"path": "studies/1.1", "destination": TO, "request_id": "r1"}
RUN = "0123456789abcdef"
NAME = "fedcba9876543210"


def start(store: World, **changed: Any) -> dict[str, Any]:
    """Deliver a command that leads to several slices; the first follow-up message."""
    fill(store, series=3, instances=4)
    command = {**COMMAND, **changed}
    assert store.deliver(handle, json.dumps(command).encode(), {}) == ""
    assert len(store.follow_ups) == 3
    return dict(json.loads(base64.b64decode(store.follow_ups[0]["data"])))


def follow(store: World, message: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Deliver a follow-up message and nothing else: outcome, reason and detail."""
    store.follow_ups.clear()
    store.forge(message)
    records = store.run(handle)
    return [(one["outcome"], one["reason"], one.get("detail", "")) for one in records]


def change_state(store: World, ending: str, change: dict[str, Any]) -> None:
    """Change the values of the state object of that name."""
    (name,) = [name for name in store.objects(bucket=STATE) if name.endswith(ending)]
    value = {**json.loads(store.read(name, STATE)), **change}
    store.write_object(name, json.dumps(value).encode(), STATE)


def test_a_follow_up_that_comes_as_a_command_is_refused(small_slices: World) -> None:
    message = start(small_slices)
    assert small_slices.deliver(handle, json.dumps(message).encode(), {}) == ""
    (record,) = small_slices.outcomes
    assert record["outcome"] == "rejected"
    assert record["reason"] == "invalid_event"
    assert record["request_id"] != "r1"
    assert not names(small_slices)


def test_a_command_that_comes_as_a_follow_up_is_refused(store: World) -> None:
    fill(store)
    ((outcome, reason, _),) = follow(store, COMMAND)
    assert outcome == "rejected"
    assert reason == "invalid_event"
    assert not store.objects()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"path": "studies/1.2"}, "invalid_command"),
        ({"destination": f"{TO}/elsewhere"}, "invalid_command"),
        ({"format": "png"}, "invalid_command"),
        ({"transfer_syntax": "1.2.840.10008.1.2.1"}, "invalid_command"),
        ({"destination": "gs://elsewhere/out"}, "rejected"),
        ({"path": f"{STORE_NAME}2/dicomWeb/studies/1.1"}, "rejected"),
        ({"run": "../../../../x"}, "invalid_command"),
        ({"slice": "../x"}, "invalid_command"),
    ],
)
def test_a_follow_up_that_asks_for_something_else_is_refused(
    small_slices: World, changed: dict[str, str], reason: str
) -> None:
    message = start(small_slices)
    before = small_slices.objects(bucket=STATE)
    ((outcome, found, _),) = follow(small_slices, {**message, **changed})
    assert outcome == "rejected"
    assert found == reason
    assert not small_slices.objects()
    assert small_slices.objects(bucket=STATE) == before


def test_a_planning_message_that_asks_for_something_else_leaves_the_slices_of_the_plan(
    small_slices: World,
) -> None:
    message = start(small_slices)
    planning = {"run": message["run"], "slices": [message["slice"]], "after": "studies/1.1"}
    before = small_slices.objects(bucket=STATE)
    ((outcome, reason, _),) = follow(small_slices, {**COMMAND, **planning, "format": "png"})
    assert (outcome, reason) == ("rejected", "invalid_command")
    assert small_slices.objects(bucket=STATE) == before


def test_a_follow_up_of_an_export_that_never_was_does_nothing(store: World) -> None:
    fill(store)
    assert follow(store, {**COMMAND, "run": RUN, "slice": NAME}) == []
    assert not store.objects()


def test_a_slice_that_holds_another_study_is_refused(small_slices: World) -> None:
    message = start(small_slices)
    items = [["studies/1.2/series/1.2.1/instances/1.2.1.1", 0, 0]]
    change_state(small_slices, f"slice-{message['slice']}.json", {"items": items})
    ((outcome, reason, detail),) = follow(small_slices, message)
    assert outcome == "rejected"
    assert reason == "rejected"
    assert detail == "a part of the export was not requested"
    assert not small_slices.objects()


def test_an_export_does_not_go_on_with_another_store(small_slices: World) -> None:
    message = start(small_slices)
    environ = {**small_slices.environ, "DICOM_STORE": STORE_NAME + "2"}
    small_slices.services = Services.of(Settings.load("export_resource", environ))
    ((outcome, reason, _),) = follow(small_slices, message)
    assert outcome == "rejected"
    assert reason == "invalid_command"
    assert not small_slices.objects()


def test_state_below_the_destination_is_not_looked_at(small_slices: World) -> None:
    message = start(small_slices)
    key = next(iter(small_slices.objects(bucket=STATE))).split("/")[1]
    forged = {"run": RUN, "store": STORE_NAME, "request": COMMAND, "slices": [NAME]}
    place = f"out/.export-state/{key}/plan.json"
    small_slices.write_object(place, json.dumps(forged).encode())
    small_slices.forge({**message, "run": RUN, "slice": NAME})
    (record,) = small_slices.run(handle)
    assert record["outcome"] == "exported"
    assert record["counts"]["objects"] == 12


@pytest.mark.parametrize("format_", ["zip", "metadata"])
def test_a_part_that_somebody_changed_is_not_joined(small_slices: World, format_: str) -> None:
    store = small_slices
    start(store, format=format_)
    last = store.follow_ups.pop()
    store.run(handle)
    (part, *_) = [name for name in store.objects() if name.endswith(".export-part")]
    store.write_object(part, b"forged")
    store.follow_ups.append(last)
    (record,) = store.run(handle)
    assert record["outcome"] == "rejected"
    assert record["reason"] == "conflict"
    assert not {"out/1.1.zip", "out/metadata.ndjson", "out/manifest.json"} & names(store)


@pytest.mark.parametrize(
    ("format_", "name"), [("zip", "out/1.1.zip"), ("metadata", "out/metadata.ndjson")]
)
def test_an_object_that_somebody_wrote_after_the_planning_is_a_conflict_and_is_left(
    small_slices: World, format_: str, name: str
) -> None:
    store = small_slices
    start(store, format=format_)
    store.write_object(name, b"something else")
    (record,) = store.run(handle)
    assert record["outcome"] == "rejected"
    assert record["reason"] == "conflict"
    assert store.read(name) == b"something else"
    assert not store.left_over()


def test_of_two_zips_of_one_name_and_other_transfer_syntaxes_the_first_is_left(
    small_slices: World,
) -> None:
    store = small_slices
    start(store, format="zip")
    slices = list(store.follow_ups)
    store.follow_ups.clear()
    start(store, format="zip", request_id="r2", transfer_syntax="1.2.840.10008.1.2.1")
    (record,) = store.run(handle)
    assert record["outcome"] == "exported"
    before = store.objects()["out/1.1.zip"]
    store.follow_ups.extend(slices)
    (record,) = store.run(handle)
    assert record["outcome"] == "rejected"
    assert record["reason"] == "conflict"
    assert store.objects()["out/1.1.zip"] == before


def test_metadata_that_somebody_changed_is_not_joined(store: World) -> None:
    name = "out/1.1/1.1.1/1.1.1.1.json"
    written = crc32c_text([b'{"true": 1}'])
    store.write_object(name, b'{"forged": 1}')
    entry = {
        "name": name,
        "bytes": 13,
        "crc32c": written,
        "study": "1",
        "series": "2",
        "instance": "3",
    }
    request = ExportRequest("r1", Resource("1.1"), None, GcsPrefix(BUCKET, "out"))
    job = job_of(store, request)
    with pytest.raises(RetryableError):
        write_lines(job, Parts(job, RUN), Result(objects=[entry]))
    assert set(store.objects()) == {name}


def test_an_export_has_one_outcome_when_its_last_slices_end_at_once(small_slices: World) -> None:
    store = small_slices
    for number in range(5):
        start(store, request_id=f"r{number}", destination=f"{TO}/{number}")
        together = [base64.b64decode(one["data"]) for one in store.follow_ups]
        store.follow_ups.clear()
        threads = [
            threading.Thread(
                target=store.deliver, args=(handle, data, {}), kwargs={"follow_up": True}
            )
            for data in together
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert store.answers.count("") == len(store.answers)
    assert [one["outcome"] for one in store.outcomes] == ["exported"] * 5
    assert not store.left_over()
