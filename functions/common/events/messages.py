"""What arrives: Pub/Sub pushes and CloudEvents, made into one typed message, whatever they look
like.

Accepted: a wrapped Pub/Sub push; a CloudEvent, binary or structured, of type
`google.cloud.storage.object.v1.finalized` or `google.cloud.pubsub.topic.v1.messagePublished`.
The framework's own conversion is not used: it drops deliveryAttempt and refuses messages without
data.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.deadline import timestamp
from functions.common.errors import PermanentError
from functions.common.resources import ObjectRef

BODY_LIMIT_BYTES: Final = 15 * 1024 * 1024  # 10 MB of a Pub/Sub message, as base64
# An attribute that a replay of dead letters sets: when the message was first published, RFC 3339.
FIRST_PUBLISHED: Final = "dicom-first-published"
_AGES_AGO: Final = "1970-01-01T00:00:00Z"
ANEW: Final = "dicom-anew"  # attribute of an event that is to be gone through again, whatever a process remembers of it
_FINALIZED: Final = "google.cloud.storage.object.v1.finalized"
_PUBLISHED: Final = "google.cloud.pubsub.topic.v1.messagePublished"


@dataclass(frozen=True)
class Message:
    """One delivery of one message.

    `attempt` is 1 where the sender does not count; `published` is RFC 3339, empty where the sender
    does not say. `follow_up`: it came by the subscription of the function's own follow-up messages,
    on whose topic only the function's account may publish.
    """

    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    message_id: str = ""
    attempt: int = 1
    published: str = ""
    follow_up: bool = False

    def json(self) -> dict[str, Any]:
        """The data as a JSON object.

        Raises:
            PermanentError: invalid_event, when it is none.
        """
        return _object(self.data)

    def check_way(self, is_follow_up: bool) -> None:
        """A follow-up message comes by the follow-ups' subscription, and nothing else does: whoever
        may publish commands must not be able to publish the next step of one.

        Args:
            is_follow_up: whether the message's content is that of a follow-up.

        Raises:
            PermanentError: invalid_event.
        """
        if is_follow_up and not self.follow_up:
            raise PermanentError("invalid_event", "a follow-up message that came as a command")
        if self.follow_up and not is_follow_up:
            raise PermanentError("invalid_event", "came as a follow-up message and is none")

    @property
    def replayed(self) -> bool:
        """Whether it is a dead letter that was published again."""
        return FIRST_PUBLISHED in self.attributes

    @property
    def first_published(self) -> str:
        """When it, or what it is a replay of, was published: never later than `published`, and ages
        ago where a replay does not know. So the attribute, whoever set it, can only make a message
        older."""
        if not self.replayed:
            return self.published
        told = self.attributes[FIRST_PUBLISHED]
        first, last = timestamp(told), timestamp(self.published)
        if first is None:
            return _AGES_AGO
        return told if last is None or first < last else self.published


@dataclass(frozen=True)
class ObjectFinalized:
    """An object was written: a notification's payload (JSON_API_V1), or the data of the
    CloudEvent."""

    ref: ObjectRef
    size: int
    content_type: str
    crc32c: str
    metadata: Mapping[str, str]
    created: str = ""

    @classmethod
    def of(cls, message: Message) -> "ObjectFinalized":
        """From a message.

        Raises:
            PermanentError: invalid_event, when bucket, name, generation or size is missing or
                malformed.
        """
        resource = message.json()
        bucket, name = resource.get("bucket"), resource.get("name")
        metadata = resource.get("metadata") or {}
        if (
            not isinstance(bucket, str)
            or not isinstance(name, str)
            or not isinstance(metadata, dict)
        ):
            raise PermanentError("invalid_event", "a notification needs bucket and name")
        return cls(
            ObjectRef(bucket, name, _whole(resource.get("generation"))),
            _whole(resource.get("size", "0")),
            str(resource.get("contentType") or ""),
            str(resource.get("crc32c") or ""),
            {str(key): str(value) for key, value in metadata.items()},
            str(resource.get("timeCreated") or ""),
        )


def is_finalize(message: Message) -> bool:
    """Whether the message is a bucket's notification that an object was written."""
    return message.attributes.get("eventType") == "OBJECT_FINALIZE"


def parse(headers: Mapping[str, str], body: bytes) -> Message:
    """Read a request's headers and body.

    Args:
        headers: looked up in lower case, as `ce-type`.

    Raises:
        PermanentError: invalid_event, for anything that is not one of the accepted forms.
    """
    content_type = headers.get("content-type", "")
    if headers.get("ce-type"):
        return _cloud_event(headers.get("ce-type", ""), headers.get("ce-id", ""), body)
    event = _object(body)
    if content_type.startswith("application/cloudevents+json") or "specversion" in event:
        data = event.get("data")
        if not isinstance(data, dict):
            raise PermanentError("invalid_event", "a CloudEvent needs JSON data")
        return _cloud_event(
            str(event.get("type", "")), str(event.get("id", "")), json.dumps(data).encode()
        )
    return _push(event)


def _cloud_event(kind: str, event_id: str, body: bytes) -> Message:
    if kind == _FINALIZED:
        return Message(body, {"eventType": "OBJECT_FINALIZE"}, event_id)
    if kind == _PUBLISHED:
        return _push(_object(body))
    raise PermanentError("invalid_event", "not a type of CloudEvent that is handled here")


def _push(envelope: Mapping[str, Any]) -> Message:
    message = envelope.get("message")
    if not isinstance(message, dict):
        raise PermanentError("invalid_event", "not a Pub/Sub push and not a CloudEvent")
    attributes = message.get("attributes") or {}
    data = message.get("data") or ""
    attempt = envelope.get("deliveryAttempt")
    if not isinstance(attributes, dict) or not isinstance(data, str):
        raise PermanentError("invalid_event", "a Pub/Sub message has data and attributes")
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise PermanentError("invalid_event", "a Pub/Sub message's data is base64") from None
    return Message(
        decoded,
        {str(key): str(value) for key, value in attributes.items()},
        str(message.get("messageId") or message.get("message_id") or ""),
        attempt if isinstance(attempt, int) and attempt > 0 else 1,
        str(message.get("publishTime") or message.get("publish_time") or ""),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise PermanentError("invalid_event", "not JSON") from None
    if not isinstance(value, dict):
        raise PermanentError("invalid_event", "not a JSON object")
    return value


def _whole(value: object) -> int:
    """int64 comes as a string in JSON."""
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise PermanentError("invalid_event", "generation and size are whole numbers")
    return int(text)
