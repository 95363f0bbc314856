"""Does one slice of an export of which each instance or frame becomes an object: retrieves what is
not there yet, writes it, and says what became of each."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.batches import Batches
from functions.export.content import Content
from functions.export.fetch import Fetcher, Incoming, log_broken
from functions.export.job import Job
from functions.export.slices import Piece, Slice, begun_streams, by_instance_uid
from functions.export.state import Result
from functions.export.writer import ObjectWriter, Written

THREADS: Final = 8
_PASSES: Final = 3  # over what is missing: an answer that is cut is asked for again
_IN_A_ROW_MAX: Final = 2 * THREADS
Objects = list[tuple[Written, str]]  # each with what tells it apart, as Fetcher.objects


class ObjectSlice:
    """The work on one slice within one invocation. `progress` says whether this invocation wrote
    anything."""

    def __init__(self, job: Job) -> None:
        self._attempt, self._deadline = job.attempt, job.working
        self._store, self._request = job.store, job.request
        self._fetcher = Fetcher(job.store, job.request, job.working)
        self._writer = ObjectWriter(job.buckets, job.request, job.run, job.working)
        self._lock = threading.Lock()
        self._done: dict[Piece, list[dict[str, Any]]] = {}
        self._new: set[str] = set()  # names of objects that this export wrote
        self._failed: dict[Piece, tuple[str, str]] = {}  # reason and detail
        self._pending: dict[Piece, RetryableError] = {}  # was tried in vain in this invocation
        self._there: dict[str, Written] = {}  # bulk data that is in the bucket already
        self._in_a_row = 0  # attempts that failed since the last that did not
        self._store_gives: bool | None = None  # None: not asked yet
        # What a stream ended with, before anything of it came.
        self._broken = RetryableError("unavailable")
        self.progress = False

    def run(self, part: Slice) -> Result:
        """Do it all.

        Returns:
            What became of it, in the slice's order.

        Raises:
            RetryableError: not all could be done; what was done is in the bucket, and `progress`
                says if that is more than before.
        """
        pieces = part.pieces
        self._find(pieces)
        with ThreadPoolExecutor(THREADS) as pool:
            if self._request.format.streamed:
                self._take_streams(part, pool)
            for _ in range(_PASSES):
                list(pool.map(self._fetch, self._missing(pieces)))
                if not self._pending:
                    break
        missing = self._missing(pieces)
        if missing:
            self._give_up_or_raise(missing)
        return self._result(pieces, part.skipped)

    # What is there already

    def _find(self, pieces: list[Piece]) -> None:
        there: dict[str, Written] = {}
        for series in sorted({Resource(p.resource.study, p.resource.series) for p in pieces}):
            there |= self._writer.there(f"{series.study}/{series.series}/")
        if self._request.format.retrieval == "bulkdata":
            self._there = there  # only its metadata tells what belongs to an instance
            return
        found = {piece: there.get(self._request.object_name(piece)) for piece in pieces}
        older = {one.resource for one, written in found.items() if written and not written.new}
        with ThreadPoolExecutor(THREADS) as pool:
            times = dict(zip(older, pool.map(self._stored_at, older), strict=True))
        for piece, written in found.items():
            if written and self._is_good(written, times.get(piece.resource, "")):
                self._note(piece, [(written, "")])
        self.progress = False

    def _stored_at(self, instance: Resource) -> str:
        try:
            return self._store.stored_at(instance, self._deadline)
        except PermanentError:
            return ""

    def _is_good(self, written: Written, stored_at: str) -> bool:
        """Whether an object that is there holds what the store has now; if it may not, it is
        retrieved and compared."""
        if written.new or written.newer_than(stored_at):
            return True
        self._writer.compared.add(written.stored.ref.name)
        return False

    def _missing(self, pieces: list[Piece]) -> list[Piece]:
        return self._attempt.turned([one for one in pieces if not self._is_settled(one)])

    # Many in one answer

    def _take_streams(self, part: Slice, pool: ThreadPoolExecutor) -> None:
        """Retrieve as one answer what nothing is there of yet; an answer that breaks is not begun
        again."""
        wanted = by_instance_uid(part.pieces)
        batches = Batches(self._put, pool, self._deadline)
        begun = begun_streams(piece.resource for piece in self._done)
        for resource in part.streams:
            if resource in begun:
                continue
            try:
                for incoming in self._fetcher.incoming(resource, wanted):
                    self._take(incoming, batches)
            except PermanentError as error:
                log_broken("stream_refused", error, resource)
            except RetryableError as error:
                log_broken("stream_broken", error, resource)
                self._deadline.check()
                if not self._fetcher.has_arrived and self._attempt.number == 1:
                    # The store seems to be away: no use to ask for each instance.
                    self._broken, self._in_a_row = error, _IN_A_ROW_MAX
                    break
        batches.finish()

    def _take(self, incoming: Incoming, batches: Batches) -> None:
        piece, content = incoming.piece, incoming.content
        if piece is None or self._is_settled(piece):
            return
        if content.is_small:
            batches.add(piece, content)
        else:
            self._put(piece, content)

    def _put(self, piece: Piece, content: Content) -> None:
        name = self._request.object_name(piece)
        self._try(piece, lambda: [(self._writer.write(name, content), "")])

    # One by one

    def _fetch(self, piece: Piece) -> None:
        """Retrieve and write one piece by requests of its own."""
        if self._may_fetch():
            self._try(piece, lambda: self._fetched(piece))

    def _may_fetch(self) -> bool:
        """False while the store or the bucket seems to be away."""
        if self._in_a_row < _IN_A_ROW_MAX:
            return True
        return self._attempt.is_last and self._asked_store_gives()

    def _fetched(self, piece: Piece) -> Objects:
        self._deadline.check()
        written: Objects = []
        for tag, stream in self._fetcher.objects(piece):
            name = self._request.object_name(piece, tag)
            there = self._there.get(name)
            if not there or not self._is_good(there, self._time_for(there, piece)):
                there = self._writer.write(name, Content.of(stream))
            written.append((there, tag))
        return written

    def _time_for(self, there: Written, piece: Piece) -> str:
        return "" if there.new else self._stored_at(piece.resource)

    def _asked_store_gives(self) -> bool:
        """Whether the store gives what it gave before: what fails beside that does not fail for
        lack of a store."""
        if self._store_gives is None:
            with self._lock:
                known = next(iter(self._done), self._attempt.known)
            self._store_gives = known is not None and self._fetcher.gives(known)
        return self._store_gives

    # What became of it

    def _try(self, piece: Piece, write: Callable[[], Objects]) -> None:
        try:
            self._note(piece, write())
        except PermanentError as error:
            with self._lock:
                self._failed[piece] = error.reason, error.detail
                self._pending.pop(piece, None)
        except RetryableError as error:
            with self._lock:
                if error.reason != "deadline_exceeded":  # then it was not tried in earnest
                    self._pending[piece] = error
                self._in_a_row += 1

    def _note(self, piece: Piece, written: Objects) -> None:
        new = {one.stored.ref.name for one, _ in written if one.new}
        with self._lock:
            self._done[piece] = [one.entry(piece, tag) for one, tag in written]
            self._new |= new
            self._pending.pop(piece, None)
            self.progress = self.progress or not new <= self._there.keys()
            self._in_a_row = 0

    def _is_settled(self, piece: Piece) -> bool:
        with self._lock:
            return piece in self._done or piece in self._failed

    def _give_up_or_raise(self, missing: list[Piece]) -> None:
        """What is left is another delivery's work; but what has failed often, and now again while
        the store gives others, is given up."""
        all_tried = self._pending.keys() >= set(missing)
        if self._attempt.is_last and all_tried and self._asked_store_gives():
            for piece, error in self._pending.items():
                self._failed[piece] = error.reason, "given up after several deliveries"
            return
        if self._deadline.remaining_s() <= 0:
            raise RetryableError("deadline_exceeded")
        raise next(iter(self._pending.values()), self._broken)

    def _result(self, pieces: list[Piece], skipped: list[Resource]) -> Result:
        result = Result(written=len(self._new))
        for piece in pieces:
            result.objects += self._done.get(piece, [])
            if piece in self._failed:
                reason, detail = self._failed[piece]
                result.failures.append({**piece.fields, "reason": reason, "detail": detail})
        result.skipped = [{**Piece(one).fields, "reason": "unsupported_input"} for one in skipped]
        return result
