"""The members of one archive, each to its own outcome, and all of them to one; what takes too long goes on later.

Small members are read ahead and sent by several threads, since most of the time is the DICOM store's; large ones are
sent as they are read. What a follow-up message needs to go on is kept in order: only members before which none is left.
"""

import concurrent.futures
import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, cast

from functions.common.errors import NothingToStoreError, PermanentError, RetryableError
from functions.common.events import Message, ObjectFinalized
from functions.common.outcomes import Outcome, Word
from functions.common.resources import ObjectRef, Resource
from functions.store import content, pair, sources
from functions.store.archive import Cursor, Limits, Member, Walk
from functions.store.content import Kind
from functions.store.sources import Source
from functions.store.storing import File, Instance

CONTINUATION: Final = {"continuation": "archive"}  # the attributes of a follow-up message
KEPT: Final = "the DICOM store keeps other bytes under the same UIDs"
_WORKERS: Final = 8
_SMALL_BYTES: Final = 1024 * 1024
_WAITING_MAX: Final = 5000
_FAILED_MAX: Final = 1000  # named in the quarantine's sidecar
_GOOD: Final = ("stored", "duplicate")
_KEYS: Final = frozenset({"event", "cursor", "members", "total_bytes", "counts", "failed", "reason", "waiting"})


@dataclass
class Half:
    """Metadata or a JPEG whose other half has not come yet."""

    kind: Kind
    name: str
    before: Cursor
    size: int
    source: Source | None = None  # None after a follow-up message: it is looked up again


@dataclass
class Progress:
    """How far an archive has come: everything before `cursor` is done, and counted."""

    cursor: Cursor = ()
    members: int = 0
    total_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)  # name and reason, the first thousand
    reason: str = ""  # of the first that failed
    waiting: dict[str, Half] = field(default_factory=dict)


@dataclass(frozen=True)
class _Result:
    """One member's outcome, published; `paired` is what waited and waits no more."""

    word: Word
    reason: str = ""
    name: str = ""
    paired: str = ""


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
        self._open_file, self._kind, self._source, self._size, self._limits = open_file, kind, source, size, limits
        self._store, self._publish, self._time_left = store, publish, time_left
        self.progress = progress
        self._entries: deque[_Entry] = deque()
        self._pool: concurrent.futures.ThreadPoolExecutor

    def run(self) -> bool:
        """Go through the members until all are done, the time is up, or something does not work for now.

        Returns:
            Whether all are done; False: go on later from `progress`.

        Raises:
            PermanentError: as Walk.members_of; members before that are done.
            SupersededError: the archive is gone.
            RetryableError: not even the first member could be done.
        """
        began_at = self.progress.cursor
        walk = Walk(self._size, self._limits, self.progress.members, self.progress.total_bytes)
        try:
            with self._open_file() as file, concurrent.futures.ThreadPoolExecutor(_WORKERS) as self._pool:
                try:
                    for member in walk.members_of(file, self._kind, began_at):
                        self._take(member, walk)
                        if not self._time_left():
                            self._settle(0)
                            return False
                finally:
                    self._settle(0)
            self._report_waiting()
        except RetryableError:
            if self.progress.cursor == began_at:
                raise
            return False
        return True

    def _take(self, member: Member, walk: Walk) -> None:
        """Begin with a member; members that were begun earlier are settled as far as room is needed."""
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
            results = future.result()
            progress = self.progress
            for result in results:
                progress.counts[result.word] += 1
                progress.waiting.pop(result.paired, None)
                if result.reason and result.word not in (*_GOOD, "skipped"):
                    progress.reason = progress.reason or result.reason
                    if len(progress.failed) < _FAILED_MAX:
                        progress.failed.append((result.name, result.reason))
            progress.cursor, progress.members, progress.total_bytes = member.after, members, total_bytes

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
        endings = pair.JSON_ENDINGS if kind == "json" else pair.JPEG_ENDINGS
        stem = pair.stem_of(member.name, endings)
        if kind == "json":
            pair.parse_metadata(sources.whole(member.source, pair.METADATA_LIMIT_BYTES))
        if not stem:
            raise NothingToStoreError("metadata or a JPEG whose name does not say so")
        other = self.progress.waiting.get(stem)
        if other is None or other.kind == kind:
            source = sources.in_memory(member.source) if member.size <= _SMALL_BYTES else member.source
            self.progress.waiting[stem] = Half(kind, member.name, member.before, member.size, source)
            if len(self.progress.waiting) > _WAITING_MAX:
                raise PermanentError("unsafe_archive", "too many files wait for their other half")
            return []
        return self._pair(member, kind, other, stem)

    def _pair(self, member: Member, kind: Kind, other: Half, stem: str) -> list[_Result]:
        if other.source is not None:
            return self._paired(member, kind, other, other.source, stem)
        # An earlier slice went past it. The archive is opened once more: where it is compressed, two readings of one
        # file would disturb each other.
        with self._open_file() as file:
            found = next(Walk(self._size, self._limits).members_of(file, self._kind, other.before), None)
            if found is None:
                raise PermanentError("invalid_event", "a continuation names a member that is not there")
            return self._paired(member, kind, other, found.source, stem)

    def _paired(self, member: Member, kind: Kind, other: Half, theirs: Source, stem: str) -> list[_Result]:
        halves = {kind: member.source, other.kind: theirs}
        both = [(member.name, member.before, member.size), (other.name, other.before, other.size)]
        try:
            metadata = pair.parse_metadata(sources.whole(halves["json"], pair.METADATA_LIMIT_BYTES))
            word = self._store(pair.Pair(metadata, halves["jpeg"]), _place(member.before))
        except PermanentError as error:
            results = [self._failed(error, *one) for one in both]
        else:
            results = [self._kept(word, name, before, metadata.resource, size) for name, before, size in both]
        return [_Result(r.word, r.reason, r.name, stem) for r in results]

    def _report_waiting(self) -> None:
        for half in self.progress.waiting.values():
            error: PermanentError = NothingToStoreError("a JPEG without metadata")
            if half.kind == "json":
                error = PermanentError("unsupported_input", "metadata without its JPEG")
            result = self._failed(error, half.name, half.before, half.size)
            self.progress.counts[result.word] += 1
            if result.word == "rejected":
                self.progress.reason = self.progress.reason or result.reason
                self.progress.failed.append((result.name, result.reason))
        self.progress.waiting.clear()

    def _kept(self, word: Word, name: str, before: Cursor, resource: Resource, size: int) -> _Result:
        """Of what the DICOM store has now, or has other bytes of that are to stay: neither is a failure."""
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
        self, word: Word, reason: str, detail: str, name: str, place: str, resource: Resource | None, size: int
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


def verdict(progress: Progress, error: PermanentError | None = None) -> Outcome:
    """The archive's own outcome, once its members have theirs.

    Raises:
        PermanentError: nothing of it was stored, or none of it could be.
    """
    good = sum(progress.counts[word] for word in _GOOD)
    kept = progress.counts["conflict"] if not progress.reason else 0
    reason = error.reason if error else progress.reason
    counts = {**progress.counts, "members": progress.members}
    if reason:
        detail = error.detail if error else "some members could not be stored"
        return Outcome("partial" if good else "rejected", reason, counts=counts, detail=detail)
    if not good and not kept:
        return Outcome("rejected", "unsupported_input", counts=counts, detail="nothing in it to store")
    return Outcome("stored" if progress.counts["stored"] else "duplicate", counts=counts)


def is_continuation(message: Message) -> bool:
    """Whether the message says that an archive is to be gone on with."""
    return message.attributes.get("continuation") == CONTINUATION["continuation"]


def dump(event: ObjectFinalized, progress: Progress) -> bytes:
    """The data of the follow-up message."""
    return json.dumps(
        {
            "event": {
                "bucket": event.ref.bucket,
                "name": event.ref.name,
                "generation": str(event.ref.generation),
                "size": str(event.size),
                "metadata": dict(event.metadata),
                "timeCreated": event.created,
            },
            "cursor": progress.cursor,
            "members": progress.members,
            "total_bytes": progress.total_bytes,
            "counts": progress.counts,
            "failed": progress.failed,
            "reason": progress.reason,
            "waiting": {s: [h.kind, h.name, h.before, h.size] for s, h in progress.waiting.items()},
        }
    ).encode()


def load(message: Message) -> tuple[ObjectFinalized, Progress]:
    """Read a follow-up message, as strictly as any event: whoever may publish can send one.

    Raises:
        PermanentError: invalid_event.
    """
    data = message.json()
    if data.keys() != _KEYS:
        raise PermanentError("invalid_event", "a continuation has other keys")
    try:
        event = ObjectFinalized.of(Message(json.dumps(data["event"]).encode()))
        progress = Progress(
            _cursor(data["cursor"]),
            _whole(data["members"]),
            _whole(data["total_bytes"]),
            Counter({_text(word): _whole(count) for word, count in data["counts"].items()}),
            [(_text(name), _text(reason)) for name, reason in data["failed"]],
            _text(data["reason"]),
            {_text(stem): _half(half) for stem, half in data["waiting"].items()},
        )
    except (TypeError, ValueError, AttributeError):
        raise PermanentError("invalid_event", "a continuation has other values") from None
    return event, progress


def _half(value: Any) -> Half:
    kind, name, before, size = value
    if kind not in ("json", "jpeg"):
        raise ValueError
    return Half(cast("Kind", kind), _text(name), _cursor(before), _whole(size))


def _cursor(value: Any) -> Cursor:
    return tuple(map(_whole, value))


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _place(cursor: Cursor) -> str:
    return "#" + ".".join(map(str, cursor))


def _with_source(member: Member, source: Source) -> Member:
    return Member(member.name, source, member.before, member.after, member.problem)


def _with_problem(member: Member, problem: PermanentError) -> Member:
    return Member(member.name, member.source, member.before, member.after, problem)
