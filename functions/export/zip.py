"""One slice of a zip: the instances it consists of, as they arrive, in one part of the zip."""

from collections.abc import Iterator
from typing import Any, Final

from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.common.dicom import multipart
from functions.common.errors import PermanentError, RetryableError
from functions.common.log import log
from functions.common.resources import Resource
from functions.export.fetch import Fetcher, by_instance_uid, identified
from functions.export.request import ExportRequest, Piece, Slice
from functions.export.state import Result
from functions.export.write import SMALL_BYTES
from functions.export.zipstream import Member, ZipPart

_CHUNK_BYTES: Final = 16 * 1024 * 1024


class ZipWork:
    """The work on one slice of a zip; begun anew by each delivery, as a part is one object. When
    the time is over the part ends with the members it has.

    Args:
        last_chance: whether what cannot be retrieved now becomes a failure, instead of another
            delivery's work.
        working: for retrieving.
        deadline: for writing what was retrieved; later than `working`.
        known: something that another slice has, if any.
    """

    progress: Final = False

    def __init__(
        self,
        store: DicomStore,
        buckets: Buckets,
        request: ExportRequest,
        last_chance: bool,
        working: Deadline,
        deadline: Deadline,
        known: Piece | None,
    ) -> None:
        self._buckets, self._request = buckets, request
        self._working, self._deadline = working, deadline
        self._last_chance, self._known = last_chance, known
        self._fetcher = Fetcher(store, request, working)
        self._zip = ZipPart()
        self._written: dict[Piece, Member] = {}
        self._failures: dict[Piece, dict[str, Any]] = {}
        self._rest: Slice | None = None
        self._arrived = False

    def run(self, part: Slice, name: str) -> Result:
        """Write the part under this name.

        Raises:
            PermanentError, RetryableError: as Buckets.write, and when an instance cannot be
                retrieved now.
        """
        pieces = [Piece(item.resource) for item in part.items]
        bucket = self._request.destination.bucket
        stored = self._buckets.write(
            bucket, name, self._bytes(part, pieces), self._deadline, if_generation_match=None
        )
        members = [[m.name, m.size, m.crc, m.offset, m.streamed] for m in self._zip.members]
        objects = [
            {
                "name": member.name,
                "bytes": member.size,
                "crc32": f"{member.crc:08x}",
                **piece.fields,
            }
            for piece, member in self._written.items()
        ]
        place = {
            "name": name,
            "generation": stored.ref.generation,
            "bytes": stored.size,
            "members": members,
        }
        return Result(objects, list(self._failures.values()), [], place, len(objects), self._rest)

    def _bytes(self, part: Slice, pieces: list[Piece]) -> Iterator[bytes]:
        try:
            yield from self._all(part, pieces)
        except RetryableError as error:
            if error.reason != "deadline_exceeded" or not self._written:
                raise
            self._rest = self._left(part)  # begun anew, all of it would take as long again

    def _left(self, part: Slice) -> Slice:
        """What there was no time for. Of a study or series that was begun, the rest is retrieved by
        instance."""
        settled = {piece.resource for piece in (*self._written, *self._failures)}
        begun = {
            above
            for one in settled
            for above in (Resource(one.study), Resource(one.study, one.series))
        }
        streams = [resource for resource in part.streams if resource not in begun]
        return Slice(streams, [item for item in part.items if item.resource not in settled])

    def _all(self, part: Slice, pieces: list[Piece]) -> Iterator[bytes]:
        wanted = by_instance_uid(pieces)
        for resource in part.streams:
            self._arrived = False
            try:
                yield from self._parts(resource, wanted)
            except PermanentError as error:
                log(
                    "WARNING",
                    "stream_refused",
                    reason=error.reason,
                    study=resource.study,
                    series=resource.series,
                )
            except RetryableError as error:
                log(
                    "WARNING",
                    "stream_broken",
                    reason=error.reason,
                    study=resource.study,
                    series=resource.series,
                )
                self._working.check()
                if not self._arrived and not self._last_chance:
                    raise
        for piece in pieces:
            if piece not in self._written:
                yield from self._one(piece)

    def _parts(self, resource: Resource, wanted: dict[str, Piece]) -> Iterator[bytes]:
        data, size = list[bytes](), 0
        parts = self._fetcher.parts(resource)
        for part in parts:
            self._arrived = True
            if isinstance(part, bytes):
                data.append(part)
                size += len(part)
                if size > SMALL_BYTES:
                    yield from self._add(identified(data, wanted), data, _rest(parts))
                    data, size = [], 0
            elif size:
                yield from self._add(identified(data, wanted), data, None)
                data, size = [], 0

    def _one(self, piece: Piece) -> Iterator[bytes]:
        """An instance by a request of its own."""
        try:
            data, size, stream = list[bytes](), 0, self._fetcher.instance(piece.resource)
            for one in stream:
                data.append(one)
                size += len(one)
                if size > SMALL_BYTES:
                    break
            yield from self._add(piece, data, stream if size > SMALL_BYTES else None)
        except PermanentError as error:
            self._failures[piece] = {**piece.fields, "reason": error.reason, "detail": error.detail}
        except RetryableError as error:
            self._working.check()
            known = next(iter(self._written), self._known)
            if not self._last_chance or known is None or not self._fetcher.gives(known):
                raise
            detail = "given up after several deliveries"
            self._failures[piece] = {**piece.fields, "reason": error.reason, "detail": detail}

    def _add(
        self, piece: Piece | None, data: list[bytes], rest: Iterator[bytes] | None
    ) -> Iterator[bytes]:
        if piece is None or piece in self._written:
            for _ in rest or ():
                pass
            return
        name = piece.below("zip")
        if rest is None:
            yield from self._zip.add(name, data)
        else:
            yield from self._zip.add_stream(name, _both(data, rest))
        self._written[piece] = self._zip.members[-1]


def _rest(parts: Iterator[multipart.Piece]) -> Iterator[bytes]:
    """What is left of a part.

    Raises:
        RetryableError: unavailable, when the answer ends within it.
    """
    for part in parts:
        if not isinstance(part, bytes):
            return
        yield part
    raise RetryableError("unavailable")


def _both(data: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    yield from data
    data.clear()
    yield from rest
