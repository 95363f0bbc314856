"""Store each object of the landing bucket in the DICOM store, and say what became of it."""

import json
from collections.abc import Iterator
from typing import Final

import requests

from functions.common import http, part10
from functions.common.bucket import Buckets
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.events import Message, ObjectFinalized, is_finalize
from functions.common.outcomes import Outcome, Outcomes, Word
from functions.common.resources import ObjectRef, Resource
from functions.common.runtime import Services, View, event_function
from functions.common.settings import STORE

_REPORT_LIMIT_BYTES: Final = 4 * 1024 * 1024


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(STORE, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Store the object that the event speaks of.

    Raises:
        PermanentError: invalid_event.
        RetryableError: the DICOM store or the bucket is busy or away.
    """
    if not is_finalize(message):
        raise PermanentError("invalid_event", "not a notification that an object was written")
    event = ObjectFinalized.of(message)
    if event.ref.bucket != services.settings.landing_bucket:
        raise PermanentError("invalid_event", "not the landing bucket")
    try:
        resource = _store(event, services, deadline)
    except SupersededError:
        outcomes.publish(Outcome("superseded", source=event.ref))
    except PermanentError as error:
        _quarantine(event, error, services, deadline)
        word: Word = "conflict" if error.reason == "conflict" else "rejected"
        outcomes.publish(Outcome(word, error.reason, source=event.ref, detail=error.detail, size_bytes=event.size))
        services.buckets.delete(event.ref, deadline)
    else:
        outcomes.publish(Outcome("stored", source=event.ref, resource=resource, size_bytes=event.size))


def _store(event: ObjectFinalized, services: Services, deadline: Deadline) -> Resource:
    source = _Source(event.ref, event.size, services.buckets, deadline)
    resource = part10.identify(source.head)
    answer = services.dicom_store.store(source.body, "application/dicom", deadline)
    with answer:
        if answer.status_code == 200:
            http.drain(answer)
            return resource
        if answer.status_code != 409:
            raise PermanentError("rejected", f"the DICOM store answered {answer.status_code}")
        raise _failure(answer, deadline)


def _failure(answer: requests.Response, deadline: Deadline) -> PermanentError:
    """Why the store refused: its report says whether other bytes are there already (fact sheet section 3.4)."""
    report = http.read_all(answer, deadline, _REPORT_LIMIT_BYTES)
    if b"already exists" in report:
        return PermanentError("conflict", "the DICOM store has other bytes under the same UIDs")
    return PermanentError("rejected", "the DICOM store answered 409")


class _Source:
    """The object as a request body: read once, and once more for each further attempt."""

    def __init__(self, ref: ObjectRef, size: int, buckets: Buckets, deadline: Deadline) -> None:
        self._ref, self._size, self._buckets, self._deadline = ref, size, buckets, deadline
        self._stream: Iterator[bytes] | None = self._open()
        head = b""
        while len(head) < part10.HEAD_BYTES and (chunk := next(self._stream, None)):
            head += chunk
        self.head = head

    def body(self) -> http.Body:
        """The body for one attempt."""
        stream, self._stream = self._stream, None
        return _Sized(self._size, self._whole(stream))

    def _whole(self, stream: Iterator[bytes] | None) -> Iterator[bytes]:
        if stream:
            yield self.head
        yield from stream or self._open()

    def _open(self) -> Iterator[bytes]:
        with self._buckets.open(self._ref, self._deadline) as response:
            yield from http.chunks(response, self._deadline)


class _Sized:
    """A stream whose length is known; anything else than that length breaks the request off."""

    def __init__(self, size: int, stream: Iterator[bytes]) -> None:
        self._size, self._stream = size, stream

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        left = self._size
        for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left:
            raise RetryableError("unavailable")


def _quarantine(event: ObjectFinalized, error: PermanentError, services: Services, deadline: Deadline) -> None:
    """Copy the object and say why beside it; the source is deleted once the outcome is out."""
    bucket, name = services.settings.quarantine_bucket, f"{error.reason}/{event.ref.name}"
    services.buckets.copy(event.ref, bucket, name, deadline)
    sidecar = {
        "reason": error.reason,
        "detail": error.detail,
        "bucket": event.ref.bucket,
        "name": event.ref.name,
        "generation": str(event.ref.generation),
    }
    services.buckets.create(
        bucket,
        f"{name}.reason.json",
        json.dumps(sidecar).encode(),
        deadline,
        content_type="application/json",
        if_generation_match=None,
    )
