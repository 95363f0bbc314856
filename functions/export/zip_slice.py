"""Does one slice of a zip: the instances it consists of, as they arrive, in one part of the zip."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.content import Content
from functions.export.fetch import Fetcher, log_broken
from functions.export.job import Job
from functions.export.slices import Piece, Slice, begun_streams, by_instance_uid
from functions.export.state import Part, Result
from functions.export.zip_format import Member, ZipPart


class ZipSlice:
    """The work on one slice of a zip; begun anew by each delivery, as a part is one object. When
    the time is over the part ends with the members it has.

    Args:
        part_name: of the object that is written.
    """

    progress: Final = False

    def __init__(self, job: Job, part_name: str) -> None:
        self._job, self._part_name = job, part_name
        self._fetcher = Fetcher(job.store, job.request, job.working)
        self._zip = ZipPart()
        self._written: dict[Piece, Member] = {}
        self._failures: dict[Piece, dict[str, Any]] = {}
        self._rest: Slice | None = None

    def run(self, part: Slice) -> Result:
        """Write the part.

        Raises:
            PermanentError, RetryableError: as Buckets.write, and when an instance cannot be
                retrieved now.
        """
        stored = self._job.buckets.write(
            self._job.request.destination.bucket,
            self._part_name,
            self._bytes(part),
            self._job.deadline,
            if_generation_match=None,
        )
        objects = [
            {
                "name": member.name,
                "bytes": member.size,
                "crc32": f"{member.crc:08x}",
                **piece.fields,
            }
            for piece, member in self._written.items()
        ]
        return Result(
            objects=objects,
            failures=list(self._failures.values()),
            part=Part.of(stored, self._zip.members),
            written=len(objects),
            rest=self._rest,
        )

    def _bytes(self, part: Slice) -> Iterator[bytes]:
        try:
            yield from self._members(part)
        except RetryableError as error:
            if error.reason != "deadline_exceeded" or not self._written:
                raise
            self._rest = self._left(part)  # begun anew, all of it would take as long again

    def _left(self, part: Slice) -> Slice:
        """What there was no time for. Of a study or series that was begun, the rest is retrieved by
        instance."""
        settled = {piece.resource for piece in (*self._written, *self._failures)}
        begun = begun_streams(settled)
        return Slice(
            streams=[resource for resource in part.streams if resource not in begun],
            items=[item for item in part.items if item.resource not in settled],
        )

    def _members(self, part: Slice) -> Iterator[bytes]:
        wanted = by_instance_uid(part.pieces)
        for resource in part.streams:
            yield from self._stream(resource, wanted)
        for piece in part.pieces:
            if piece not in self._written:
                yield from self._single(piece)

    def _stream(self, resource: Resource, wanted: Mapping[str, Piece]) -> Iterator[bytes]:
        """A study or series in one answer. What is missing of one that breaks is retrieved by
        instance."""
        try:
            for incoming in self._fetcher.incoming(resource, wanted):
                if incoming.piece and incoming.piece not in self._written:
                    yield from self._add(incoming.piece, incoming.content)
        except PermanentError as error:
            log_broken("stream_refused", error, resource)
        except RetryableError as error:
            log_broken("stream_broken", error, resource)
            self._job.working.check()
            if not self._fetcher.has_arrived and not self._job.attempt.is_last:
                raise

    def _single(self, piece: Piece) -> Iterator[bytes]:
        """An instance by a request of its own."""
        try:
            for _, stream in self._fetcher.objects(piece):
                yield from self._add(piece, Content.of(stream))
        except PermanentError as error:
            self._failures[piece] = {**piece.fields, "reason": error.reason, "detail": error.detail}
        except RetryableError as error:
            self._job.working.check()
            if not self._may_give_up():
                raise
            detail = "given up after several deliveries"
            self._failures[piece] = {**piece.fields, "reason": error.reason, "detail": detail}

    def _may_give_up(self) -> bool:
        """Whether it was tried often enough, and the store gives something else meanwhile."""
        if not self._job.attempt.is_last:
            return False
        known = next(iter(self._written), self._job.attempt.known)
        return known is not None and self._fetcher.gives(known)

    def _add(self, piece: Piece, content: Content) -> Iterator[bytes]:
        uids = piece.resource
        name = f"{uids.study}/{uids.series}/{uids.instance}{self._job.request.format.extension}"
        yield from self._zip.add(name, content)
        self._written[piece] = self._zip.members[-1]
