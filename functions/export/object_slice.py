"""Does one slice of an export of which each instance or frame becomes an object: retrieves what is
not there yet, writes it, and says what became of each."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.batches import Batches
from functions.export.content import Content
from functions.export.fetch import Fetcher, Incoming, log_broken
from functions.export.job import Job
from functions.export.slices import Piece, Slice, begun_streams, by_instance_uid, object_name
from functions.export.state import Result
from functions.export.tally import Objects, Tally
from functions.export.writer import ObjectWriter, Written

THREADS: Final = 8
_PASSES: Final = 3  # over what is missing: an answer that is cut is asked for again
_IN_A_ROW_MAX: Final = 2 * THREADS


class ObjectSlice:
    """The work on one slice within one invocation."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = job.request
        self._deadline = job.working
        self._tally = Tally()
        self._fetcher = Fetcher(job.store, job.request, job.working)
        self._writer = ObjectWriter(job.buckets, job.request, job.run, job.working)
        # Bulk data that is in the bucket already.
        self._there: dict[str, Written] = {}
        # Whether the store gives what it gave before; None: not asked yet.
        self._gives: bool | None = None
        # What a stream ended with, before anything of it came.
        self._broken = RetryableError("unavailable")

    @property
    def progress(self) -> bool:
        """Whether this invocation wrote anything."""
        return self._tally.progress

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
                if not self._tally.pending:
                    break
        missing = self._missing(pieces)
        if missing:
            self._give_up_or_raise(missing)
        return self._tally.result(pieces, part.skipped)

    def _missing(self, pieces: list[Piece]) -> list[Piece]:
        missing = [one for one in pieces if not self._tally.is_settled(one)]
        return self._job.attempt.turned(missing)

    # What is there already

    def _find(self, pieces: list[Piece]) -> None:
        there = self._listed(pieces)
        self._tally.there = set(there)
        if self._request.format.retrieval == "bulkdata":
            self._there = there  # only its metadata tells what belongs to an instance
            return
        found: dict[Piece, Written] = {}
        for piece in pieces:
            written = there.get(object_name(self._request, piece))
            if written:
                found[piece] = written
        times = self._times(found)
        for piece, written in found.items():
            if self._is_good(written, times.get(piece.resource, "")):
                self._tally.note(piece, [(written, "")])

    def _listed(self, pieces: list[Piece]) -> dict[str, Written]:
        """What is there below the series of these pieces, by name."""
        uids = {(one.resource.study, one.resource.series) for one in pieces}
        found: dict[str, Written] = {}
        for study, series in sorted(uids):
            found |= self._writer.there(f"{study}/{series}/")
        return found

    def _times(self, found: dict[Piece, Written]) -> dict[Resource, str]:
        """When the instances were stored of which there are objects of an earlier export."""
        older = {piece.resource for piece, one in found.items() if not one.new}
        with ThreadPoolExecutor(THREADS) as pool:
            times = pool.map(self._stored_at, older)
            return dict(zip(older, times, strict=True))

    def _stored_at(self, instance: Resource) -> str:
        try:
            return self._job.store.stored_at(instance, self._deadline)
        except PermanentError:
            return ""

    def _is_good(self, written: Written, stored_at: str) -> bool:
        """Whether an object that is there holds what the store has now; if it may not, it is
        retrieved and compared."""
        if written.new or written.newer_than(stored_at):
            return True
        self._writer.compared.add(written.stored.ref.name)
        return False

    # Many in one answer

    def _take_streams(self, part: Slice, pool: ThreadPoolExecutor) -> None:
        """Retrieve as one answer what nothing is there of yet; an answer that breaks is not begun
        again."""
        wanted = by_instance_uid(part.pieces)
        batches = Batches(self._put, pool, self._deadline)
        begun = begun_streams(piece.resource for piece in self._tally.done())
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
                if self._seems_away():
                    self._broken = error
                    self._tally.in_a_row = _IN_A_ROW_MAX
                    break
        batches.finish()

    def _seems_away(self) -> bool:
        """Whether it is no use to ask for each instance of a stream that broke."""
        is_first = self._job.attempt.number == 1
        return is_first and not self._fetcher.has_arrived

    def _take(self, incoming: Incoming, batches: Batches) -> None:
        piece, content = incoming.piece, incoming.content
        if piece is None or self._tally.is_settled(piece):
            return
        if content.is_small:
            batches.add(piece, content)
        else:
            self._put(piece, content)

    def _put(self, piece: Piece, content: Content) -> None:
        name = object_name(self._request, piece)

        def write() -> Objects:
            return [(self._writer.write(name, content), "")]

        self._tally.attempt(piece, write)

    # One by one

    def _fetch(self, piece: Piece) -> None:
        """Retrieve and write one piece by requests of its own."""
        if self._may_fetch():
            self._tally.attempt(piece, lambda: self._fetched(piece))

    def _may_fetch(self) -> bool:
        """False while the store or the bucket seems to be away."""
        if self._tally.in_a_row < _IN_A_ROW_MAX:
            return True
        return self._job.attempt.is_last and self._store_gives()

    def _fetched(self, piece: Piece) -> Objects:
        self._deadline.check()
        written: Objects = []
        for tag, stream in self._fetcher.objects(piece):
            name = object_name(self._request, piece, tag)
            one = self._found(name, piece)
            if one is None:
                one = self._writer.write(name, Content.of(stream))
            written.append((one, tag))
        return written

    def _found(self, name: str, piece: Piece) -> Written | None:
        """A bulk data object that is there and good."""
        there = self._there.get(name)
        if there is None or there.new:
            return there
        if self._is_good(there, self._stored_at(piece.resource)):
            return there
        return None

    def _store_gives(self) -> bool:
        """Whether the store gives what it gave before: what fails beside that does not fail for
        lack of a store."""
        if self._gives is None:
            known = self._job.attempt.known
            done = self._tally.done()
            if done:
                known = done[0]
            self._gives = known is not None and self._fetcher.gives(known)
        return self._gives

    def _give_up_or_raise(self, missing: list[Piece]) -> None:
        """What is left is another delivery's work; but what has failed often, and now again while
        the store gives others, is given up."""
        pending = self._tally.pending
        all_tried = pending.keys() >= set(missing)
        if self._job.attempt.is_last and all_tried and self._store_gives():
            self._tally.give_up_pending()
            return
        if self._deadline.remaining_s() <= 0:
            raise RetryableError("deadline_exceeded")
        raise next(iter(pending.values()), self._broken)
