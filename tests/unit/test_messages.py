"""Whatever is pushed is a message or `invalid_event`; a follow-up message comes back as it was
sent."""

import base64
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.clients.storage import StoredObject
from functions.common.errors import PermanentError
from functions.common.events import messages
from functions.common.events.messages import Message, written_object
from functions.common.resources import ObjectRef
from functions.store import archive_progress
from functions.store.archive_progress import Mark, Progress

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "message",
                    "data",
                    "attributes",
                    "messageId",
                    "specversion",
                    "type",
                    "bucket",
                    "name",
                ]
            )
            | st.sampled_from(
                ["generation", "size", "event", "place", "counts", "failed", "waiting", "members"]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1, max_size=30
).filter(lambda name: name not in (".", ".."))


def message_of(body: bytes, headers: dict[str, str]) -> Message | None:
    try:
        return messages.parse(headers, body)
    except PermanentError as error:
        assert error.reason == "invalid_event"
        return None


def read_notification(message: Message) -> None:
    written_object(message.json())


@settings(max_examples=200)
@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100), st.booleans())
def test_anything_is_a_message_or_invalid(body: bytes, cloud_event: bool) -> None:
    headers = (
        {"ce-type": "google.cloud.storage.object.v1.finalized", "ce-id": "1"} if cloud_event else {}
    )
    message = message_of(body, headers)
    if message is None:
        return
    for read in (read_notification, archive_progress.load):
        try:
            read(message)
        except PermanentError as error:
            assert error.reason == "invalid_event"


@given(
    NAMES,
    st.integers(1, 2**62),
    st.integers(0, 2**62),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
)
def test_a_notification_comes_out_as_it_went_in(
    name: str, generation: int, size: int, metadata: dict[str, str]
) -> None:
    resource = {
        "bucket": "landing",
        "name": name,
        "generation": str(generation),
        "size": str(size),
    }
    data = base64.b64encode(json.dumps({**resource, "metadata": metadata}).encode()).decode()
    push = {
        "message": {
            "data": data,
            "attributes": {"eventType": "OBJECT_FINALIZE"},
            "messageId": "1",
        }
    }
    message = message_of(json.dumps(push).encode(), {})
    assert message is not None
    event = written_object(message.json())
    assert event.ref == ObjectRef("landing", name, generation)
    assert event.size == size
    assert event.metadata == metadata


PLACES = st.lists(st.integers(0, 2**40), min_size=1, max_size=3).map(tuple)
MARKS = st.builds(
    Mark,
    place=PLACES,
    members=st.integers(0, 10**6),
    total_bytes=st.integers(0, 2**60),
    waiting=st.lists(PLACES, max_size=5).map(tuple),
)
PROGRESS = st.builds(
    Progress,
    mark=MARKS,
    counts=st.dictionaries(st.sampled_from(["stored", "skipped"]), st.integers(0, 99)).map(Counter),
    failed=st.lists(st.tuples(NAMES, NAMES), max_size=3),
)


@given(PROGRESS)
def test_a_follow_up_message_comes_out_as_it_went_in(progress: Progress) -> None:
    event = {"bucket": "landing", "name": "a.zip", "generation": "7", "size": "99"}
    archive = StoredObject(ObjectRef("landing", "a.zip", 7), 99, "")
    again, loaded = archive_progress.load(Message(archive_progress.dump(event, progress)))
    assert again == archive
    assert loaded == progress


@settings(max_examples=200)
@given(PROGRESS, st.data())
def test_a_follow_up_message_with_any_other_value_is_refused_or_harmless(
    progress: Progress, data: st.DataObject
) -> None:
    event = {"bucket": "landing", "name": "a.zip", "generation": "7", "size": "99"}
    document = json.loads(archive_progress.dump(event, progress))
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(JSON)
    try:
        _, loaded = archive_progress.load(Message(json.dumps(document).encode()))
    except PermanentError as error:
        assert error.reason == "invalid_event"
        return
    numbers = (*loaded.mark.place, loaded.mark.members)
    assert all(isinstance(number, int) and number >= 0 for number in numbers)


def test_keys_that_are_missing_are_named_as_such() -> None:
    with pytest.raises(PermanentError):
        archive_progress.load(Message(b"{}"))
