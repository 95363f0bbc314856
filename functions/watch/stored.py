"""A stored record of the outcomes topic, with the fields that are used here."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from functions.common.deadline import timestamp
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
        after: the DICOM store did not have it before this time.
        before: the DICOM store had it at this time.
    """

    study: Resource
    message_id: str
    after: datetime
    before: datetime

    @classmethod
    def of(cls, message: Message) -> Self:
        """From a message.

        The record was made after the instance was stored, at most as long after it as the whole
        invocation took.

        Raises:
            PermanentError: invalid_event, when it is not a record of a stored instance.
        """
        record = message.json()
        if record.get("function") != STORE or record.get("outcome") != "stored":
            raise PermanentError("invalid_event", "not a record of a stored instance")
        study, time = record.get("study"), record.get("time")
        before = timestamp(time) if isinstance(time, str) else None
        if not isinstance(study, str) or before is None or not message.message_id:
            raise PermanentError("invalid_event", "a stored record has study and time")
        try:
            resource = Resource(study)
        except PermanentError:
            raise PermanentError("invalid_event", "a stored record has a study UID") from None
        after = before - timedelta(milliseconds=_duration_ms(record))
        return cls(resource, message.message_id, after, before)


def _duration_ms(record: dict[str, Any]) -> int:
    duration = record.get("duration_ms", 0)
    if not isinstance(duration, int) or not 0 <= duration <= 3_600_000:
        raise PermanentError("invalid_event", "duration_ms is not a number of milliseconds")
    return duration
