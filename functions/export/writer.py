"""Writes the objects of an export, each only once, even if several deliveries try."""

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from functions.common.checksum import Checksum, crc32c_text
from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.deadline import parsed_rfc3339, utc_now
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import ObjectRef
from functions.export.content import Content
from functions.export.job import Job
from functions.export.slices import Piece

# Metadata key that holds the object's kind.
KIND: Final = "dicom-export"
# Metadata key that holds the run of the plan.
RUN: Final = "dicom-export-run"
_TIME: Final = "dicom-export-time"


def conflict_error() -> PermanentError:
    """The error for an object that this export must not replace."""
    return PermanentError("conflict", "the destination has another object of that name")


class NotTriedError(RetryableError):
    """deadline_exceeded: the time was over before it was this object's turn to be written."""

    def __init__(self) -> None:
        super().__init__("deadline_exceeded")


class NotComparedError(RetryableError):
    """unavailable: an object was written since the listing, and the content, which cannot be read
    again, was not compared with it.

    Args:
        present: the object.
    """

    def __init__(self, present: "Present") -> None:
        super().__init__("unavailable")
        self.present = present


@dataclass(frozen=True)
class Present:
    """An object that is in the destination, and whether this export wrote it."""

    stored: StoredObject
    by_this_export: bool

    def newer_than(self, stored_at: str) -> bool:
        """Whether its content was retrieved after that time; False when it is not known."""
        since = parsed_rfc3339(self.stored.metadata.get(_TIME, ""))
        other = parsed_rfc3339(stored_at)
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
    """Writes objects and checks their checksums; never replaces another object.

    Args:
        run: of the plan; an object with it in its metadata was written by an earlier delivery of
            the same export.
    """

    def __init__(self, job: Job, run: str) -> None:
        self._buckets = job.buckets
        self._bucket = job.bucket
        self._request = job.request
        self._deadline = job.work_deadline
        self._run = run
        # Taken before anything is retrieved.
        self._labels = {KIND: self._request.kind, RUN: run, _TIME: utc_now()}
        # Whether anything was written by this invocation.
        self.has_written = False
        self._large = threading.Lock()

    def existing(
        self,
        folder: str,
        names: Collection[str] | None = None,
    ) -> dict[str, Present]:
        """The objects below a folder of the destination with the content that this export would
        write, by name.

        Args:
            names: only these are kept; None: all.
        """
        prefix = self._request.below(folder)
        found = self._buckets.list(self._bucket, prefix, self._deadline)
        return {
            stored.ref.name: self._as_present(stored)
            for stored in found
            if names is None or stored.ref.name in names
            if stored.metadata.get(KIND) == self._request.kind
        }

    def compare(self, name: str, content: Content) -> Present:
        """The existing object of this name, which must have this content.

        Raises:
            PermanentError: conflict, when its content differs, or it is of another kind of export.
            RetryableError: as Buckets.stat; unavailable also when there is none.
        """
        checksum = Checksum()
        for data in content.chunks():
            checksum.add(data)
        return self._same(name, checksum.text)

    def write(self, name: str, content: Content) -> Present:
        """Write one object; large ones one at a time, because each takes a chunk of memory. An
        object that was written after the listing stays as it is.

        Raises:
            PermanentError: conflict, when the object of that name is another one; not_found, when
                the bucket does not exist.
            NotTriedError: a large one waited for others until the time was over.
            NotComparedError: a large object of that name was written since the listing.
            RetryableError: as Buckets.write.
        """
        try:
            if content.is_small:
                # The head is all of it. `chunks` would empty it, and it may be compared below.
                stored = self._create(name, content.head)
            else:
                with self._large:
                    if self._deadline.remaining_s() <= 0:
                        raise NotTriedError
                    stored = self._create(name, content.chunks())
        except PreconditionFailedError:
            return self._found_instead(name, content)
        self.has_written = True
        return Present(stored, by_this_export=True)

    def _found_instead(self, name: str, content: Content) -> Present:
        """The object that is there: of another kind, or written since the listing."""
        if not self._request.keeps_bytes:
            # Two renderings of the same instance may differ in their bytes.
            return self._same(name)
        if content.is_small:
            whole = content.head
            return self._same(name, crc32c_text(whole))
        present = self._same(name)
        if not present.by_this_export:
            raise NotComparedError(present)
        return present

    def _create(self, name: str, data: Iterable[bytes]) -> StoredObject:
        return self._buckets.write(
            self._bucket,
            name,
            data,
            self._deadline,
            content_type=self._request.format.content_type,
            metadata=self._labels,
        )

    def _same(self, name: str, crc32c: str = "") -> Present:
        """The existing object of this name, which must be of this kind, and have this checksum.

        Args:
            crc32c: empty accepts any checksum.
        """
        place = ObjectRef(self._bucket, name)
        stored = self._buckets.stat(place, self._deadline)
        if stored is None:
            raise RetryableError("unavailable")
        if stored.metadata.get(KIND) != self._request.kind:
            raise conflict_error()
        if crc32c and crc32c != stored.crc32c:
            raise conflict_error()
        return self._as_present(stored)

    def _as_present(self, stored: StoredObject) -> Present:
        return Present(stored, by_this_export=stored.metadata.get(RUN) == self._run)
