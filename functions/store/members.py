"""The members of one archive, each to its own outcome, and all of them to one; what takes too long
goes on later.

Small members are read ahead and sent by several threads, since most of the time is the DICOM
store's; large ones are sent as they are read. What a follow-up message needs to go on is kept in
order: only members before which none is left.
"""

import concurrent.futures
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from functions.common.errors import NothingToStoreError, PermanentError, RetryableError
from functions.common.events.outcomes import Outcome, Word
from functions.common.resources import ObjectRef, Resource
from functions.store import content, pair, sources
from functions.store.archive import Cursor, Limits, Member, Walk
from functions.store.content import Kind
from functions.store.continuation import GOOD, KEPT, Progress
from functions.store.halves import Half
from functions.store.sources import Source
from functions.store.storing import File, Instance

_WORKERS: Final = 8
_SMALL_BYTES: Final = 1024 * 1024
_FAILED_MAX: Final = 1000  # named in the quarantine's sidecar


@dataclass(frozen=True)
class _Result:
    """One member's outcome, published; `half` waits no more."""

    word: Word
    reason: str = ""
    name: str = ""
    half: Half | None = None


_Entry = tuple[Member, "concurrent.futures.Future[list[_Result]]", int, int]


class Members:
    """One slice of one archive.

    Args:
        open_file: opens the archive.
        kind: what it is.
        source: the object it is.
        limits: as settings say.
        store: stores an instance and says how that went.
        publish: publishes a member's outcome.
        time_left: whether another member can be begun.
        progress: from where to go on; is kept up to date.
    """

    def __init__(
        self,
        open_file: Callable[[], BinaryIO],
        kind: Kind,
        source: ObjectRef,
        size: int,
        limits: Limits,
        store: Callable[[Instance, str], Word],
        publish: Callable[[Outcome], None],
        time_left: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self._open_file, self._kind, self._source, self._size, self._limits = (
            open_file,
            kind,
            source,
            size,
            limits,
        )
        self._store, self._publish, self._time_left = store, publish, time_left
        self.progress = progress
        self._entries: deque[_Entry] = deque()
        self._pool: concurrent.futures.ThreadPoolExecutor

    def run(self) -> bool:
        """Go through the members until all are done, the time is up, or something does not work for
        now.

        Returns:
            Whether all are done; False: go on later from `progress`.

        Raises:
            PermanentError: as Walk.members_of; members before that are done.
            SupersededError: the archive is gone.
            RetryableError: not even the first member could be done.
        """
        began_at = self.progress.reached
        error: PermanentError | None = None
        try:
            for step in (self._walk, self._pair_later):
                try:
                    if not step():
                        return False
                except PermanentError as caught:
                    error = error or caught  # what waits has its outcome all the same
            self._report_waiting()
        except RetryableError:
            if self.progress.reached == began_at:
                raise
            return False
        if error is not None:
            raise error
        return True

    def _walk(self) -> bool:
        """Go through the members in order; whether that is finished."""
        walk = Walk(self._size, self._limits, self.progress.members, self.progress.total_bytes)
        with (
            self._open_file() as file,
            concurrent.futures.ThreadPoolExecutor(_WORKERS) as self._pool,
        ):
            try:
                for member in walk.members_of(file, self._kind, self.progress.cursor):
                    self._take(member, walk)
                    if not self._time_left():
                        return False
            finally:
                self._settle(0)
        return True

    def _pair_later(self) -> bool:
        """Send the pairs that could not be sent on the way; whether that is finished.

        Each walk takes as much metadata into memory as it may, and sends the JPEGs of what is in
        memory. More often than not all metadata is in memory already, and this is the one further
        walk.
        """
        waiting = self.progress.waiting
        while wanted := waiting.both():
            before = len(waiting), waiting.kept_bytes["json"]
            if not self._walk_again(wanted):
                return False
            if before == (len(waiting), waiting.kept_bytes["json"]):
                raise PermanentError(
                    "invalid_event", "a continuation names a member that is not there"
                )
        return True

    def _walk_again(self, wanted: dict[Cursor, Half]) -> bool:
        with self._open_file() as file:
            for member in Walk(self._size, self._limits).members_of(file, self._kind, min(wanted)):
                half = wanted.pop(member.before, None)
                if (
                    half is not None
                    and self._note(self._come_again(half, member))
                    and not self._time_left()
                ):
                    return False
                if not wanted:
                    break
        return True

    def _come_again(self, half: Half, member: Member) -> list[_Result]:
        """Keep one that is metadata; send one that is a JPEG, if its metadata is in memory."""
        other = self.progress.waiting.other(half)
        if other is None:
            return []  # both were sent earlier in this walk
        if half.kind == "jpeg":
            return [] if other.data is None else self._paired(half, member.source, other)
        return self._keep(half, other, member.size, lambda: _text_of(member))

    def _keep(
        self, half: Half, other: Half | None, size: int, read: Callable[[], bytes]
    ) -> list[_Result]:
        try:
            self.progress.waiting.keep(half, size, read)
        except PermanentError as error:
            return [self._lost(error, one) for one in (half, other) if one is not None]
        return []

    def _take(self, member: Member, walk: Walk) -> None:
        """Begin with a member; members that were begun earlier are settled as far as room is
        needed."""
        kind: Kind = "other"
        if member.problem is None:
            try:
                kind = content.sniff(member.source.head)
                if kind == "dicom" and member.size <= _SMALL_BYTES:
                    member = _with_source(member, sources.in_memory(member.source))
            except PermanentError as error:
                member = _with_problem(member, error)
        small = member.problem is not None or member.size <= _SMALL_BYTES
        if small and kind == "dicom":
            self._settle(_WORKERS - 1)
            future = self._pool.submit(self._done, member, kind)
        else:  # reads the archive itself, or is done at once
            self._settle(_WORKERS - 1 if kind == "other" else 0)
            future = concurrent.futures.Future()
            try:
                future.set_result(self._done(member, kind))
            except RetryableError as error:
                future.set_exception(error)
        self._entries.append((member, future, walk.members, walk.total_bytes))

    def _settle(self, leave: int) -> None:
        """Wait for the oldest members and note what became of them, until this many are left."""
        while len(self._entries) > leave:
            member, future, members, total_bytes = self._entries.popleft()
            if future.exception() is not None:
                self._entries.clear()  # they may be done, but are not counted: they are done again
            self._note(future.result())
            progress = self.progress
            progress.cursor, progress.members, progress.total_bytes = (
                member.after,
                members,
                total_bytes,
            )

    def _note(self, results: list[_Result]) -> int:
        """Count what became of members; of how many that was."""
        progress = self.progress
        for result in results:
            progress.counts[result.word] += 1
            if result.half is not None:
                progress.waiting.remove(result.half)
            if result.reason and result.word not in (*GOOD, "skipped"):
                progress.reason = progress.reason or result.reason
                if len(progress.failed) < _FAILED_MAX:
                    progress.failed.append((result.name, result.reason))
        return len(results)

    def _done(self, member: Member, kind: Kind) -> list[_Result]:
        """Bring one member to its outcome; none yet for one that waits for its other half."""
        try:
            if member.problem is not None:
                raise member.problem
            if kind in ("json", "jpeg"):
                return self._half(member, kind)
            if kind != "dicom":
                raise NothingToStoreError("neither DICOM, nor metadata with a JPEG")
            header = sources.header_of(member.source)
            instance = File(header.resource, member.source)
            word = self._store(instance, _place(member.before))
            return [self._kept(word, member.name, member.before, header.resource, member.size)]
        except PermanentError as error:
            return [self._failed(error, member.name, member.before, member.size)]

    def _half(self, member: Member, kind: Kind) -> list[_Result]:
        text = _text_of(member) if kind == "json" else b""
        if kind == "json":
            pair.parse_metadata(text)
        half, waiting = (
            Half.of(kind, member.name, member.before, member.size),
            self.progress.waiting,
        )
        if not half.stem:
            raise NothingToStoreError("metadata or a JPEG whose name does not say so")
        other = waiting.other(half)
        if other is None or other.data is None:
            half = waiting.add(half)
            return self._keep(
                half, None, member.size, lambda: text or b"".join(member.source.chunks())
            )
        if kind == "json":
            half.data, jpeg = text, other.data
            return self._paired(other, Source(lambda: iter((jpeg,)), len(jpeg)), half)
        return self._paired(half, member.source, other)

    def _paired(self, jpeg: Half, source: Source, metadata: Half) -> list[_Result]:
        try:
            parsed = pair.parse_metadata(metadata.data or b"")
            word = self._store(pair.Pair(parsed, source), _place(metadata.before))
        except PermanentError as error:
            return [self._lost(error, half) for half in (metadata, jpeg)]
        return [
            replace(self._kept(word, half.name, half.before, parsed.resource, half.size), half=half)
            for half in (metadata, jpeg)
        ]

    def _report_waiting(self) -> None:
        for half in self.progress.waiting:
            self._note([self._lost(half.alone(), half)])

    def _lost(self, error: PermanentError, half: Half) -> _Result:
        return replace(self._failed(error, half.name, half.before, half.size), half=half)

    def _kept(
        self, word: Word, name: str, before: Cursor, resource: Resource, size: int
    ) -> _Result:
        """Of what the DICOM store has now, or has other bytes of that are to stay: neither is a
        failure."""
        reason, detail = ("conflict", KEPT) if word == "conflict" else ("", "")
        self._outcome(word, reason, detail, name, _place(before), resource, size)
        return _Result(word, "", name)

    def _failed(self, error: PermanentError, name: str, before: Cursor, size: int) -> _Result:
        if error.reason == "unsafe_archive":
            raise error
        word: Word = "conflict" if error.reason == "conflict" else "rejected"
        if isinstance(error, NothingToStoreError):
            word = "skipped"
        return self._outcome(word, error.reason, error.detail, name, _place(before), None, size)

    def _outcome(
        self,
        word: Word,
        reason: str,
        detail: str,
        name: str,
        place: str,
        resource: Resource | None,
        size: int,
    ) -> _Result:
        self._publish(
            Outcome(
                word,
                reason,
                source=self._source,
                member=name,
                place=place,
                resource=resource,
                size_bytes=size,
                detail=detail,
            )
        )
        return _Result(word, reason, name)


def _text_of(member: Member) -> bytes:
    return sources.whole(member.source, pair.METADATA_LIMIT_BYTES)


def _place(cursor: Cursor) -> str:
    return "#" + ".".join(map(str, cursor))


def _with_source(member: Member, source: Source) -> Member:
    return Member(member.name, source, member.before, member.after, member.problem)


def _with_problem(member: Member, problem: PermanentError) -> Member:
    return Member(member.name, member.source, member.before, member.after, problem)
