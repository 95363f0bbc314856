"""Writes the objects of an export: each once, whatever number of deliveries try."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from functions.common.checksum import Checksum, crc32c_text
from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.deadline import timestamp, utc_now
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import ObjectRef
from functions.export.content import Content
from functions.export.job import Job
from functions.export.slices import Piece

# The key of an object's metadata that says what it holds.
KIND: Final = "dicom-export"
_RUN: Final = "dicom-export-run"
_TIME: Final = "dicom-export-time"


def another_object() -> PermanentError:
    """The error of an object that is not this export's to replace."""
    return PermanentError("conflict", "the destination has another object of that name")


@dataclass(frozen=True)
class Written:
    """An object that is there, and whether this export put it there."""

    stored: StoredObject
    new: bool

    def newer_than(self, stored_at: str) -> bool:
        """Whether what it holds was retrieved after that time; False when it is not known."""
        since = timestamp(self.stored.metadata.get(_TIME, ""))
        other = timestamp(stored_at)
        return since is not None and other is not None and since > other

    def entry(self, piece: Piece, tag: str = "") -> dict[str, Any]:
        """As the manifest names it."""
        entry = {
            "name": self.stored.ref.name,
            "bytes": self.stored.size,
            "crc32c": self.stored.crc32c,
            **piece.fields,
        }
        if tag:
            entry["tag"] = tag
        return entry


class ObjectWriter:
    """Writes objects with the checksum of what was sent, never over another one. `has_written`
    tells whether it wrote any.

    Args:
        run: of the plan; an object that carries it was written by an earlier delivery of the same
            export.
    """

    def __init__(self, job: Job, run: str) -> None:
        self._buckets = job.buckets
        self._bucket = job.bucket
        self._request = job.request
        self._deadline = job.working
        self._run = run
        self.has_written = False
        # The time is one before anything is retrieved.
        self._labels = {KIND: self._request.kind, _RUN: run, _TIME: utc_now()}
        # Names of objects that are there and may hold something else.
        self.compared: set[str] = set()
        self._large = threading.Lock()

    def there(self, folder: str) -> dict[str, Written]:
        """The objects below a folder of the destination that hold what this export would write, by
        name."""
        prefix = self._request.below(folder)
        found = self._buckets.list(self._bucket, prefix, self._deadline)
        return {
            stored.ref.name: self._known(stored)
            for stored in found
            if stored.metadata.get(KIND) == self._request.kind
        }

    def write(self, name: str, content: Content) -> Written:
        """Write one object; large ones one at a time, as each takes a chunk of memory.

        One of `compared` is not written, but must hold the same.

        Raises:
            PermanentError: conflict, when the object of that name is another; not_found, when there
                is no such bucket.
            RetryableError: as Buckets.write.
        """
        if name in self.compared:
            checksum = Checksum()
            for data in content.chunks():
                checksum.add(data)
            return self._existing(name, checksum.text)
        try:
            if content.is_small:
                stored = self._create(name, content.head)
            else:
                with self._large:
                    stored = self._create(name, content.chunks())
        except PreconditionFailedError:
            # What is left of a large one is unread, so that its checksum is not known.
            crc32c = crc32c_text(content.head) if content.is_small else ""
            return self._existing(name, crc32c)
        self.has_written = True
        return Written(stored, new=True)

    def _create(self, name: str, data: Iterable[bytes]) -> StoredObject:
        return self._buckets.write(
            self._bucket,
            name,
            data,
            self._deadline,
            content_type=self._request.format.content_type,
            metadata=self._labels,
        )

    def _existing(self, name: str, crc32c: str) -> Written:
        """What is there under the name. Two renderings of the same may differ in their bytes, but
        not what is kept as stored, nor what was made of an instance that may be another now.

        Args:
            crc32c: of what would be written; empty: not known.
        """
        place = ObjectRef(self._bucket, name)
        stored = self._buckets.stat(place, self._deadline)
        if stored is None:
            raise RetryableError("unavailable")
        must_be_equal = self._request.keeps_bytes or name in self.compared
        differs = must_be_equal and crc32c not in ("", stored.crc32c)
        if differs or stored.metadata.get(KIND) != self._request.kind:
            raise another_object()
        return self._known(stored)

    def _known(self, stored: StoredObject) -> Written:
        return Written(stored, new=stored.metadata.get(_RUN) == self._run)
