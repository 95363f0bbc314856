"""Deliveries: Pub/Sub pushes and CloudEvents become one typed message.

Accepted: a wrapped Pub/Sub push; a CloudEvent, binary or structured, of type
`google.cloud.storage.object.v1.finalized` or `google.cloud.pubsub.topic.v1.messagePublished`.
The framework's own conversion is not used: it drops deliveryAttempt and refuses messages without
data.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from functions.common.clients.storage import StoredObject
from functions.common.deadline import parsed_rfc3339
from functions.common.errors import PermanentError
from functions.common.jsonvalues import int64, parsed, text
from functions.common.resources import ObjectRef

BODY_LIMIT_BYTES: Final = 15 * 1024 * 1024  # 10 MB of a Pub/Sub message, as base64
# An attribute of a message that is published again: when it was first published, RFC 3339.
FIRST_PUBLISHED: Final = "dicom-first-published"
_AGES_AGO: Final = "1970-01-01T00:00:00Z"
# An attribute of an event that must be processed again, even if a process remembers it.
AGAIN: Final = "dicom-again"
_FINALIZED: Final = "google.cloud.storage.object.v1.finalized"
_PUBLISHED: Final = "google.cloud.pubsub.topic.v1.messagePublished"
_IDENTIFIER: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Message:
    """One delivery of one message.

    `attempt` is 1 if the sender does not number its deliveries; `published` is RFC 3339, empty if
    the sender does not say. `follow_up`: it came by the subscription of the function's own
    follow-up messages, which calls the path /follow-ups (runtime.py), and on whose topic only the
    function's account may publish. `path`: of the URL
    that was called; a function with several subscriptions distinguishes them by it.
    """

    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    message_id: str = ""
    attempt: int = 1
    published: str = ""
    follow_up: bool = False
    path: str = "/"

    def json(self) -> dict[str, Any]:
        """The data as a JSON object.

        Raises:
            PermanentError: invalid_event, when it is not one.
        """
        return _object(self.data)

    def json_or_nothing(self) -> dict[str, Any]:
        """The same, but empty for a message without data, whose attributes may contain everything.

        Raises:
            PermanentError: as json.
        """
        if not self.data.strip():
            return {}
        return self.json()

    def request_id(self) -> str:
        """The id of a command: its `request_id`, else the message's id.

        Raises:
            PermanentError: invalid_command, when it is malformed; as json.
        """
        data = self.json_or_nothing()
        named = data.get("request_id") or self.attributes.get("request_id")
        return request_id(named or self.message_id)

    def check_subscription(self, is_follow_up: bool) -> None:
        """Check that follow-up messages, and only these, come by the follow-ups' subscription:
        somebody who may publish commands must not be able to publish the next step of one.

        Args:
            is_follow_up: whether the message has the content of a follow-up.

        Raises:
            PermanentError: invalid_event.
        """
        if is_follow_up and not self.follow_up:
            raise PermanentError("invalid_event", "a follow-up message that came as a command")
        if self.follow_up and not is_follow_up:
            raise PermanentError("invalid_event", "came as a follow-up message and is not one")

    @property
    def replayed(self) -> bool:
        """Whether it was published before, under another message id."""
        return FIRST_PUBLISHED in self.attributes

    @property
    def first_published(self) -> str:
        """When it was first published, before any replay: never later than `published`, and 1970
        if the replay does not know it. So the attribute, even if forged, can only make a
        message older."""
        if not self.replayed:
            return self.published
        told = self.attributes[FIRST_PUBLISHED]
        first, last = parsed_rfc3339(told), parsed_rfc3339(self.published)
        if first is None:
            return _AGES_AGO
        if last is not None and first >= last:
            return self.published
        return told


class UnreadableMessageError(PermanentError):
    """invalid_event, for a delivery whose content cannot be read: `message` is the rest of it, with
    the id for the outcome."""

    def __init__(self, detail: str, message: Message) -> None:
        super().__init__("invalid_event", detail)
        self.message = message


def written_object(notification: Mapping[str, Any]) -> StoredObject:
    """The object that was written.

    Args:
        notification: of its bucket: the payload (JSON_API_V1), or the data of the CloudEvent.

    Raises:
        PermanentError: invalid_event, when bucket, name or generation is missing or malformed, or
            size is malformed. (A missing size is 0: the JSON of Protocol Buffers omits zeros.)
    """
    bucket, name = notification.get("bucket"), notification.get("name")
    metadata = notification.get("metadata") or {}
    if not isinstance(bucket, str) or not isinstance(name, str) or not isinstance(metadata, dict):
        raise PermanentError("invalid_event", "a notification needs bucket and name")
    return StoredObject(
        ref=ObjectRef(bucket, name, _int64(notification.get("generation"))),
        size=_int64(notification.get("size", "0")),
        crc32c=text(notification.get("crc32c")),
        created=text(notification.get("timeCreated")),
        content_type=text(notification.get("contentType")),
        metadata=_texts(metadata),
    )


def request_id(value: object) -> str:
    """The id of a request.

    Raises:
        PermanentError: invalid_command, when it is not up to 128 letters, digits and `_.:-`.
    """
    identifier = _identifier(value)
    if not identifier:
        detail = "request_id takes up to 128 letters, digits and _.:-"
        raise PermanentError("invalid_command", detail)
    return identifier


def is_finalize(message: Message) -> bool:
    """Whether the message is a bucket's notification of a new object."""
    return message.attributes.get("eventType") == "OBJECT_FINALIZE"


def parse(headers: Mapping[str, str], body: bytes) -> Message:
    """Read a request's headers and body.

    Args:
        headers: looked up in lower case, as `ce-type`.

    Raises:
        UnreadableMessageError: it is a delivery, but its content cannot be read.
        PermanentError: invalid_event, when it is neither a Pub/Sub push nor a CloudEvent.
    """
    if headers.get("ce-type"):
        return _cloud_event(headers["ce-type"], _identifier(headers.get("ce-id")), body)
    event = _object(body)
    is_structured = headers.get("content-type", "").startswith("application/cloudevents+json")
    if is_structured or "specversion" in event:
        return _structured(event)
    return _push(event)


def _structured(event: Mapping[str, Any]) -> Message:
    """A CloudEvent with its attributes in the body."""
    event_id = _identifier(event.get("id"))
    data = event.get("data")
    unread = Message(b"", message_id=event_id)
    if not isinstance(data, dict):
        raise _unreadable("a CloudEvent needs JSON data", unread)
    try:
        body = json.dumps(data)
    except RecursionError:
        raise _unreadable("nested too deeply", unread) from None
    return _cloud_event(text(event.get("type")), event_id, body.encode())


def _cloud_event(kind: str, event_id: str, body: bytes) -> Message:
    if kind == _FINALIZED:
        return Message(body, {"eventType": "OBJECT_FINALIZE"}, event_id)
    unread = Message(b"", message_id=event_id)
    if kind != _PUBLISHED:
        raise _unreadable("not a type of CloudEvent that is handled here", unread)
    try:
        return _push(_object(body))
    except UnreadableMessageError:
        raise
    except PermanentError as error:
        raise _unreadable(error.detail, unread) from None


def _push(envelope: Mapping[str, Any]) -> Message:
    content = envelope.get("message")
    if not isinstance(content, dict):
        raise PermanentError("invalid_event", "neither a Pub/Sub push nor a CloudEvent")
    unread = Message(
        data=b"",
        message_id=_identifier(content.get("messageId") or content.get("message_id")),
        attempt=_attempt(envelope.get("deliveryAttempt")),
        published=text(content.get("publishTime") or content.get("publish_time")),
    )
    attributes = content.get("attributes") or {}
    data = content.get("data") or ""
    if not isinstance(attributes, dict) or not isinstance(data, str):
        raise _unreadable("a Pub/Sub message has data and attributes", unread)
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _unreadable("a Pub/Sub message's data is base64", unread) from None
    return replace(unread, data=decoded, attributes=_texts(attributes))


def _unreadable(detail: str, message: Message) -> PermanentError:
    """An outcome needs an id: without one the delivery cannot be recorded."""
    if not message.message_id:
        return PermanentError("invalid_event", detail)
    return UnreadableMessageError(detail, message)


def _object(body: bytes) -> dict[str, Any]:
    value = parsed(body)
    if not isinstance(value, dict):
        raise PermanentError("invalid_event", "not a JSON object")
    return value


def _attempt(value: object) -> int:
    """1 if the sender does not number its deliveries."""
    if not isinstance(value, int) or value < 1:
        return 1
    return int(value)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Attributes of a message and metadata of an object are texts; other values are left out."""
    return {key: value for key, value in values.items() if isinstance(value, str)}


def _identifier(value: object) -> str:
    """The id of a message, an event or a request; empty if it is malformed, because ids are
    logged."""
    identifier = text(value)
    if not _IDENTIFIER.fullmatch(identifier):
        return ""
    return identifier


def _int64(value: object) -> int:
    number = int64(value)
    if number is None:
        raise PermanentError("invalid_event", "generation and size must be whole numbers")
    return number
