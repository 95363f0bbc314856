"""A stored record of the outcomes topic, with the fields that are used here."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from functions.common.deadline import now, parsed_rfc3339
from functions.common.errors import PermanentError
from functions.common.events.messages import Message
from functions.common.resources import Resource
from functions.common.settings import STORE


@dataclass(frozen=True)
class Stored:
    """One instance was stored.

    Args:
        study: where it was stored.
        message_id: of the record's message.
        record_id: of the record; a replay of its message has the same one.
        replayed: whether the message was published before, under another id.
        time: when the record was made; the DICOM store had the instance then.
    """

    study: Resource
    message_id: str
    record_id: str
    replayed: bool
    time: datetime

    @classmethod
    def of(cls, message: Message) -> Self:
        """From a message.

        Raises:
            PermanentError: invalid_event, when it is not a record of a stored instance.
        """
        record = message.json()
        if record.get("function") != STORE or record.get("outcome") != "stored":
            raise _refused_error("not a record of a stored instance")
        if not message.message_id:
            raise _refused_error("a stored record needs a message id")
        return cls(
            study=_study(record),
            message_id=message.message_id,
            record_id=_record_id(record),
            replayed=message.replayed,
            time=_time(record),
        )


def _record_id(record: dict[str, Any]) -> str:
    record_id = record.get("id")
    if not isinstance(record_id, str):
        raise _refused_error("a stored record needs an id")
    return record_id


def _study(record: dict[str, Any]) -> Resource:
    uid = record.get("study")
    if not isinstance(uid, str):
        raise _refused_error("a stored record needs a study")
    try:
        return Resource(uid)
    except PermanentError:
        raise _refused_error("the study of a stored record must be a UID") from None


def _time(record: dict[str, Any]) -> datetime:
    text = record.get("time")
    if not isinstance(text, str):
        raise _refused_error("a stored record needs a time")
    made = parsed_rfc3339(text)
    if made is None:
        raise _refused_error("the time of a stored record must be an RFC 3339 time")
    # The clock that wrote it may be ahead: a time in the future would keep the study open.
    return min(made, now())


def _refused_error(detail: str) -> PermanentError:
    return PermanentError("invalid_event", detail)
