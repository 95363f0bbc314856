"""Every form an event arrives in (recorded shapes of Pub/Sub pushes and of Eventarc), and what is
refused."""

import base64
import json
from typing import Any

import pytest

from functions.common.clients.storage import StoredObject
from functions.common.errors import PermanentError
from functions.common.events.messages import Message, is_finalize, parse, written_object
from functions.common.resources import ObjectRef

OBJECT = {
    "kind": "storage#object",
    "id": "landing/night 1/üñí.dcm/1700000000000001",
    "name": "night 1/üñí.dcm",
    "bucket": "landing",
    "generation": "1700000000000001",
    "contentType": "application/dicom",
    "size": "526370",
    "crc32c": "AAAAAA==",
    "metadata": {"dicom-storage-class": "NEARLINE"},
}
REF = ObjectRef("landing", "night 1/üñí.dcm", 1700000000000001)
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
JSON = {"content-type": "application/json"}
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "e1",
    "ce-type": "google.cloud.storage.object.v1.finalized",
    "ce-source": "//storage.googleapis.com/projects/_/buckets/landing",
    "ce-subject": "objects/night%201/%C3%BC%C3%B1%C3%AD.dcm",
    **JSON,
}


def push(data: bytes = b"", **more: Any) -> dict[str, Any]:
    message = {
        "data": base64.b64encode(data).decode(),
        "messageId": "m1",
        "attributes": {"k": "v"},
    }
    return {
        "message": message,
        "subscription": "projects/p/subscriptions/s",
        **more,
    }


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def notification() -> dict[str, Any]:
    envelope = push(encoded(OBJECT))
    envelope["message"]["attributes"] = {
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
    }
    return envelope


FORMS = {
    "notification in a push": (JSON, encoded(notification())),
    "binary CloudEvent": (BINARY, encoded(OBJECT)),
    "structured CloudEvent": (
        STRUCTURED,
        encoded(
            {
                "specversion": "1.0",
                "id": "e1",
                "source": "s",
                "type": BINARY["ce-type"],
                "data": OBJECT,
            }
        ),
    ),
}


@pytest.mark.parametrize(("headers", "body"), FORMS.values(), ids=FORMS.keys())
def test_an_upload_is_the_same_event_in_every_form(headers: dict[str, str], body: bytes) -> None:
    message = parse(headers, body)
    assert is_finalize(message)
    event = written_object(message.json())
    assert event.ref == REF
    assert event.size == 526370
    assert event.content_type == "application/dicom"
    assert event.metadata == {"dicom-storage-class": "NEARLINE"}


def test_a_push_keeps_the_delivery_attempt() -> None:
    message = parse(JSON, encoded(push(b'{"path": "studies/1"}', deliveryAttempt=7)))
    assert message.message_id == "m1"
    assert message.attempt == 7
    assert message.attributes == {"k": "v"}
    assert message.json() == {"path": "studies/1"}


def test_a_published_message_as_a_cloud_event_is_the_push_it_was() -> None:
    headers = {**BINARY, "ce-type": "google.cloud.pubsub.topic.v1.messagePublished"}
    assert parse(headers, encoded(push(b"{}"))) == parse(JSON, encoded(push(b"{}")))


def test_a_message_of_attributes_alone_is_one() -> None:
    envelope = push()
    del envelope["message"]["data"]
    assert parse(JSON, encoded(envelope)) == Message(b"", {"k": "v"}, "m1", 1)


def test_a_notification_needs_no_more_than_bucket_name_and_generation() -> None:
    event = written_object({"bucket": "landing", "name": "x", "generation": 5})
    assert event == StoredObject(ObjectRef("landing", "x", 5), 0, "")


REFUSED = {
    "nothing": (JSON, b""),
    "no JSON": (JSON, b"\xff\xfe"),
    "a list": (JSON, b"[]"),
    "deep nesting": (JSON, b"[" * 100_000),
    "no message": (JSON, b"{}"),
    "a message that is text": (JSON, encoded({"message": "x"})),
    "data that is no base64": (JSON, encoded({"message": {"data": "%%%"}})),
    "attributes that are a list": (JSON, encoded({"message": {"attributes": ["x"]}})),
    "another type of CloudEvent": (
        {**BINARY, "ce-type": "google.cloud.storage.object.v1.deleted"},
        encoded(OBJECT),
    ),
    "a CloudEvent without data": (
        STRUCTURED,
        encoded({"specversion": "1.0", "type": BINARY["ce-type"]}),
    ),
}


@pytest.mark.parametrize(("headers", "body"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_an_invalid_event(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(PermanentError, match="invalid_event"):
        parse(headers, body)


@pytest.mark.parametrize(
    "change",
    [
        {"bucket": None},
        {"name": 5},
        {"name": ""},
        {"bucket": "../x"},
        {"generation": "-1"},
        {"generation": None},
        {"generation": True},
        {"generation": str(2**63)},
        {"generation": 10**18 * 10},
        {"generation": []},
        {"name": "half\ud800"},
        {"name": "x" * 1025},
        {"size": "many"},
        {"metadata": "x"},
    ],
    ids=str,
)
def test_a_notification_that_lacks_its_identity_is_an_invalid_event(change: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="invalid_event"):
        written_object({**OBJECT, **change})
