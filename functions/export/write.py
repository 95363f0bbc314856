"""Writing the objects of an export: each once, whatever number of deliveries try."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from functions.common.checksum import Checksum, crc32c_text
from functions.common.clients.storage import Buckets, PreconditionFailedError, StoredObject
from functions.common.deadline import Deadline, timestamp, utc_now
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import ObjectRef
from functions.export.request import CONTENT_TYPES, ExportRequest, Piece

SMALL_BYTES: Final = (
    2 * 1024 * 1024
)  # up to this size objects are written side by side, larger ones one by one
KIND: Final = "dicom-export"  # the key of an object's metadata that says what it holds
_RUN: Final = "dicom-export-run"
_TIME: Final = "dicom-export-time"


@dataclass(frozen=True)
class Written:
    """An object that is there, and whether this export put it there."""

    stored: StoredObject
    new: bool

    def newer_than(self, stored_at: str) -> bool:
        """Whether what it holds was retrieved after that time; False when it is not known."""
        since, other = timestamp(self.stored.metadata.get(_TIME, "")), timestamp(stored_at)
        return since is not None and other is not None and since > other

    def entry(self, piece: Piece, tag: str = "") -> dict[str, Any]:
        """As the manifest names it."""
        fields = {**piece.fields, "tag": tag} if tag else piece.fields
        return {
            "name": self.stored.ref.name,
            "bytes": self.stored.size,
            "crc32c": self.stored.crc32c,
            **fields,
        }


class ObjectWriter:
    """Writes objects with the checksum of what was sent, never over another one.

    Args:
        run: of the plan; an object that carries it was written by an earlier delivery of the same
            export.
    """

    def __init__(
        self, buckets: Buckets, request: ExportRequest, run: str, deadline: Deadline
    ) -> None:
        self._buckets, self._request, self._deadline = buckets, request, deadline
        self._run, self._kind = run, request.kind
        self._labels = {
            KIND: self._kind,
            _RUN: run,
            _TIME: utc_now(),
        }  # before anything is retrieved
        self.compared: set[str] = (
            set()
        )  # names of objects that are there and may hold something else
        self._large = threading.Lock()

    def there(self, below: str) -> dict[str, Written]:
        """The objects below a folder that hold what this export would write, by name."""
        prefix = self._request.object_name(below)
        found = self._buckets.list(self._request.destination.bucket, prefix, self._deadline)
        return {
            stored.ref.name: self._known(stored)
            for stored in found
            if stored.metadata.get(KIND) == self._kind
        }

    def write(self, name: str, head: list[bytes], rest: Iterable[bytes] | None = None) -> Written:
        """Write one object: `head` alone, or `head` and then a stream (one at a time, as that takes
        more memory).

        One of `compared` is not written, but must hold the same.

        Raises:
            PermanentError: conflict, when the object of that name is another; not_found, when there
                is no such bucket.
            RetryableError: as Buckets.write.
        """
        if name in self.compared:
            checksum = Checksum()
            for data in chain(_let_go(head), rest or ()):
                checksum.add(data)
            return self._existing(name, checksum.text)
        try:
            if rest is None:
                return Written(self._put(self._buckets.create, name, head), new=True)
            with self._large:
                return Written(
                    self._put(self._buckets.write, name, chain(_let_go(head), rest)), new=True
                )
        except PreconditionFailedError:
            return self._existing(name, crc32c_text(head) if rest is None else "")

    def write_stream(self, name: str, stream: Iterator[bytes]) -> Written:
        """Write one object from a stream of any length.

        Raises:
            PermanentError, RetryableError: as write.
        """
        head, size = list[bytes](), 0
        for piece in stream:
            head.append(piece)
            size += len(piece)
            if size > SMALL_BYTES:
                return self.write(name, head, stream)
        return self.write(name, head)

    def _existing(self, name: str, crc32c: str) -> Written:
        """What is there under the name. Two renderings of the same may differ in their bytes, but
        not what is kept as stored, nor what was made of an instance that may be another now."""
        stored = self._buckets.stat(
            ObjectRef(self._request.destination.bucket, name), self._deadline
        )
        if stored is None:
            raise RetryableError("unavailable")
        must_be_equal = self._kind == "dicom *" or name in self.compared
        differs = crc32c and must_be_equal and stored.crc32c != crc32c
        if stored.metadata.get(KIND) != self._kind or differs:
            raise PermanentError("conflict", "the destination has another object of that name")
        return self._known(stored)

    def _known(self, stored: StoredObject) -> Written:
        return Written(stored, new=stored.metadata.get(_RUN) == self._run)

    def _put(
        self, put: Callable[..., StoredObject], name: str, data: list[bytes] | Iterator[bytes]
    ) -> StoredObject:
        return put(
            self._request.destination.bucket,
            name,
            data,
            self._deadline,
            content_type=CONTENT_TYPES[self._request.format],
            metadata=self._labels,
        )


class ByteBudget:
    """Bounds the bytes that wait in memory; one piece of any size always goes through."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._taken = limit_bytes, 0
        self._changed = threading.Condition()

    def take(self, size_bytes: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._taken == 0 or self._taken + size_bytes <= self._limit
            )
            self._taken += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Make room."""
        with self._changed:
            self._taken -= size_bytes
            self._changed.notify_all()


def _let_go(pieces: list[bytes]) -> Iterator[bytes]:
    pieces.reverse()
    while pieces:
        yield pieces.pop()
