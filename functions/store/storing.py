"""One instance into the DICOM store: sent, its answer read, and told apart from what may be there
already."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import requests

from functions.common.checksum import Checksum
from functions.common.clients.dicomweb import AS_STORED, DicomStore
from functions.common.clients.transport import chunks, drain, read_all
from functions.common.deadline import Deadline, timestamp
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.outcomes import Word
from functions.common.resources import Resource
from functions.store import report
from functions.store.report import Failure, UnreadableReportError
from functions.store.sources import Source, body_of

_REPORT_LIMIT_BYTES: Final = 4 * 1024 * 1024
_GONE: Final = (204, 404, 410)
_REFUSED: Final = (
    400,
    409,
    413,
    415,
    422,
)  # what is wrong with the instance; other statuses are about the service
_OTHER_BYTES: Final = "the DICOM store has other bytes under the same UIDs"

# Whether the store holds the same (None: it holds nothing) under the instance's UIDs.
Same = bool | None


class Instance(Protocol):
    """One instance that is to be stored."""

    @property
    def resource(self) -> Resource: ...

    @property
    def content_type(self) -> str: ...

    @property
    def crc32c(self) -> str:
        """Of the bytes, once they are known; empty before that, and where the bytes are not the
        identity."""

    def body(self) -> Iterable[bytes]:
        """The request's body, made anew for each attempt."""

    def same_in(self, store: DicomStore, deadline: Deadline) -> Same:
        """Whether the store holds the same."""


class File:
    """A Part 10 file, sent as it is."""

    content_type: Final = "application/dicom"

    def __init__(self, resource: Resource, source: Source) -> None:
        self.resource = resource
        self._source = source
        self._sent = body_of(source)

    @property
    def crc32c(self) -> str:
        """Of the file; empty as long as it is not known."""
        return self._source.crc32c or self._sent.crc32c

    def body(self) -> Iterable[bytes]:
        """The request's body."""
        self._sent = body_of(self._source)
        return self._sent

    def same_in(self, store: DicomStore, deadline: Deadline) -> Same:
        """Compare with the file that the store gives back as it was stored."""
        with store.get(self.resource, (), AS_STORED, deadline) as answer:
            if answer.status_code in _GONE:
                drain(answer)
                return None
            if answer.status_code != 200:
                raise RetryableError("unavailable")
            stored = Checksum()
            for piece in _parts(answer, deadline):
                stored.add(piece)
        if not self.crc32c:
            for _ in self.body():
                pass  # reads it for its checksum
        return stored.text == self.crc32c


@dataclass(frozen=True)
class Storing:
    """How instances of one input are stored.

    Args:
        store: the client.
        storage_class: as the store knows it; empty: its default.
        policy: reject, keep or overwrite, where other bytes are stored under the same UIDs.
        written: when the input was; None where that is not known.
        again: whether an earlier delivery may have stored it already.
        seen: whether another input with these UIDs and this checksum was stored lately; also
            remembers this one.
        deadline: of the invocation.
    """

    store: DicomStore
    storage_class: str
    policy: str
    written: datetime | None
    again: bool
    seen: Callable[[Resource, str], bool]
    deadline: Deadline

    def run(self, instance: Instance) -> Word:
        """Store it.

        Returns:
            stored; duplicate; or conflict, where the policy is to keep what is there.

        Raises:
            PermanentError: rejected; conflict, where the policy is to reject; whatever the source
                finds wrong.
            RetryableError: as Transport.send; operation_pending while its study or series is being
                deleted.
        """
        failure, attempts = self._send(instance)
        if failure is None:
            return "duplicate" if self.seen(instance.resource, instance.crc32c) else "stored"
        if failure.kind == "busy":
            raise RetryableError("operation_pending")
        # Where an earlier attempt may have been stored before its answer was lost, a refusal says
        # little.
        unsure = self.again or attempts > 1
        same = self._look(instance, failure) if failure.kind == "exists" or unsure else None
        if same:
            self.seen(instance.resource, instance.crc32c)
            return "duplicate"
        if failure.kind == "refused":
            raise PermanentError("rejected", _refusal(failure))
        if same is None:
            raise RetryableError("unavailable")  # it was there a moment ago: try again
        return self._conflict(instance)

    def _look(self, instance: Instance, failure: Failure) -> Same:
        try:
            return instance.same_in(self.store, self.deadline)
        except RetryableError as error:
            # By 403 the service also says that there is nothing (fact sheet section 5.8), and it
            # has just let us store.
            if failure.kind == "refused" and error.reason == "unauthorized":
                return None
            raise

    def _conflict(self, instance: Instance) -> Word:
        if self.policy == "keep":
            return "conflict"
        if self.policy != "overwrite":
            raise PermanentError("conflict", _OTHER_BYTES)
        # Messages come late, twice and in any order: bytes that are older than those there never
        # replace them.
        stored = timestamp(self.store.stored_at(instance.resource, self.deadline))
        if stored and self.written and stored > self.written:
            raise PermanentError("conflict", f"{_OTHER_BYTES}, stored after this was written")
        self.store.delete(instance.resource, self.deadline)
        failure, _ = self._send(instance)
        if failure is not None:
            raise RetryableError("unavailable")  # another input came between; look again
        self.seen(instance.resource, instance.crc32c)
        return "stored"

    def _send(self, instance: Instance) -> tuple[Failure | None, int]:
        """What went wrong, None when nothing did; and how often it was sent."""
        attempts = 0

        def body() -> Iterable[bytes]:
            nonlocal attempts
            attempts += 1
            return instance.body()

        answer = self.store.store(body, instance.content_type, self.deadline, self.storage_class)
        with answer:
            status = answer.status_code
            if status not in (200, 202, *_REFUSED):
                drain(answer)
                raise RetryableError("unavailable")
            text = read_all(answer, self.deadline, _REPORT_LIMIT_BYTES)
        try:
            found = report.parse(text)
        except UnreadableReportError:
            if status in _REFUSED:
                return Failure("refused", status), attempts
            if instance.same_in(self.store, self.deadline):
                return None, attempts
            raise RetryableError(
                "unavailable"
            ) from None  # it says that all is well, but nothing is there
        failure = found.failure_of(instance.resource.instance)
        if (
            failure is None
            and status in _REFUSED
            and instance.resource.instance not in found.stored
        ):
            failure = Failure("refused", status)
        return failure, attempts


def _refusal(failure: Failure) -> str:
    return f"the DICOM store refused it, status or failure reason {failure.code}"


def _parts(answer: requests.Response, deadline: Deadline) -> Iterator[bytes]:
    """The one part of a retrieved instance, or the body where the store sends it without
    multipart."""
    from functions.common.dicom import multipart  # only a conflict needs it

    content_type = answer.headers.get("Content-Type", "")
    body = chunks(answer, deadline)
    if not content_type.lower().startswith("multipart/"):
        yield from body
        return
    for piece in multipart.read(body, content_type):
        if isinstance(piece, bytes):
            yield piece
