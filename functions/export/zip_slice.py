"""Does one slice of a zip: writes its instances, as they arrive, as one part of the zip."""

from collections.abc import Iterator, Mapping
from typing import Any

from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.content import Content
from functions.export.fetch import Fetcher
from functions.export.giving_up import DETAIL, GivingUp, Known, was_tried
from functions.export.job import Job
from functions.export.parts import Part, Parts
from functions.export.result import Result
from functions.export.slices import Piece, Slice, by_instance_uid, path_of
from functions.export.zip_format import Member, ZipPart


class ZipSlice:
    """The work on one slice of a zip; each delivery starts again, because a part is one object.

    Args:
        parts: of the plan.
        known: finds a piece that a finished slice has exported.
    """

    def __init__(self, job: Job, parts: Parts, known: Known) -> None:
        self._job = job
        self._parts = parts
        self._fetcher = Fetcher(job)
        self._giving_up = GivingUp(job, known)
        self._zip = ZipPart()
        self._written: dict[Piece, Member] = {}
        self._failures: dict[Piece, dict[str, Any]] = {}

    def run(self, task: Slice) -> Result:
        """Write the part. When the time is over, it ends with the members so far, and the rest of
        the slice becomes another slice.

        Raises:
            PermanentError, RetryableError: as Buckets.write, and when an instance cannot be
                retrieved now.
        """
        # Writing pulls the part's bytes, and each instance is retrieved when its bytes are pulled:
        # only then _written and _failures tell what became of it.
        stored = self._parts.write(self._in_time(task))
        objects = [
            {
                "name": member.name,
                "bytes": member.size,
                # As in the zip, which knows no crc32c.
                "crc32": f"{member.crc:08x}",
                **piece.fields,
            }
            for piece, member in self._written.items()
        ]
        return Result(
            objects=objects,
            failures=list(self._failures.values()),
            part=Part(stored.ref, stored.size, self._zip.members),
            written=len(objects),
            rest=task.without(self._settled()),
        )

    def _settled(self) -> set[Piece]:
        return {*self._written, *self._failures}

    def _in_time(self, task: Slice) -> Iterator[bytes]:
        """The part's bytes, as far as the time allows."""
        try:
            yield from self._members(task)
        except RetryableError as error:
            if error.reason != "deadline_exceeded" or not self._settled():
                raise

    def _members(self, task: Slice) -> Iterator[bytes]:
        # A stream that uses up the time would leave none for its instances: then none of them would
        # ever be given up.
        if not self._job.attempt.may_give_up:
            yield from self._streams(task)
        for piece in task.pieces:
            if piece not in self._written:
                yield from self._single(piece)

    def _streams(self, task: Slice) -> Iterator[bytes]:
        """Each study or series in one answer."""
        wanted = by_instance_uid(task.pieces)
        for resource in task.streams:
            yield from self._stream(resource, wanted)

    def _stream(
        self,
        resource: Resource,
        wanted: Mapping[str, Piece],
    ) -> Iterator[bytes]:
        with self._fetcher.one_answer(resource, wanted) as answer:
            for incoming in answer:
                if incoming.piece and incoming.piece not in self._written:
                    yield from self._add(incoming.piece, incoming.content)

    def _single(self, piece: Piece) -> Iterator[bytes]:
        """An instance by a separate request."""
        began_with_s = self._job.work_deadline.remaining_s()
        try:
            for _, stream in self._fetcher.objects(piece):
                yield from self._add(piece, Content.of(stream))
        except PermanentError as error:
            self._failures[piece] = piece.failure(error.reason, error.detail)
        except RetryableError as error:
            if not self._is_given_up(began_with_s):
                self._job.work_deadline.check()
                raise
            self._failures[piece] = piece.failure(error.reason, DETAIL)

    def _is_given_up(self, began_with_s: float) -> bool:
        """Whether to give up an instance whose retrieving has just failed. When the time is over
        and there was time for something else, it is tried again in the rest of the slice."""
        deadline = self._job.work_deadline
        if deadline.remaining_s() <= 0 and self._settled():
            return False
        return was_tried(deadline, began_with_s) and self._giving_up.is_due(self._written)

    def _add(self, piece: Piece, content: Content) -> Iterator[bytes]:
        """One member. If the answer breaks off, the instance is not listed as a member, and can be
        added again."""
        name = path_of(piece) + self._job.request.format.extension
        yield from self._zip.add(name, content)
        self._written[piece] = self._zip.members[-1]
