"""One slice of an export: retrieve what is not there yet, write it, and say what became of each
object."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.common.dicom import dicomjson, multipart, part10
from functions.common.errors import PermanentError, RetryableError
from functions.common.log import log
from functions.common.resources import Resource
from functions.export.fetch import Fetcher, by_instance_uid, identified
from functions.export.request import RENDERED, ExportRequest, Piece, Slice
from functions.export.state import Result
from functions.export.write import SMALL_BYTES, ByteBudget, ObjectWriter, Written

THREADS: Final = 8
_PASSES: Final = 3  # over what is missing: an answer that is cut is asked for again
_IN_A_ROW_MAX: Final = 2 * THREADS
_FAST_S: Final = 0.003  # for one piece; a bucket in the cloud takes ten times that
_BATCH_BYTES: Final = 1024 * 1024
_BATCH_PIECES: Final = 8
_WAITING_BYTES: Final = 8 * 1024 * 1024
Entries = list[dict[str, Any]]


class SliceWork:
    """The work on one slice within one invocation.

    Args:
        run: of the plan.
        attempt: how often the work was delivered.
        give_up_attempt: from this one on, what cannot be retrieved becomes a failure, not another
            delivery's work.
        deadline: of the work; some time to record it is left after it.
        known: something that another slice has, if any.
    """

    def __init__(
        self,
        store: DicomStore,
        buckets: Buckets,
        request: ExportRequest,
        run: str,
        attempt: int,
        give_up_attempt: int,
        deadline: Deadline,
        known: Piece | None = None,
    ) -> None:
        self._store, self._request, self._known, self._deadline = store, request, known, deadline
        self._again, self._last_chance = attempt > 1, attempt >= give_up_attempt
        self._turn = (attempt - 1) / give_up_attempt
        self._fetcher = Fetcher(store, request, deadline)
        self._writer = ObjectWriter(buckets, request, run, deadline)
        self._done: dict[Piece, Entries] = {}
        self._new: set[str] = set()  # names of objects that this export wrote
        self._failed: dict[Piece, tuple[str, str]] = {}  # reason and detail
        self._pending: dict[Piece, RetryableError] = {}  # was tried in vain in this invocation
        self._lock = threading.Lock()
        self._there: dict[str, Written] = {}
        self._in_a_row = 0  # attempts that failed since the last that did not
        self._gives: bool | None = None  # whether the store gives at all; None: not asked yet
        self._broken = RetryableError(
            "unavailable"
        )  # what a stream ended with, before anything of it came
        self._arrived = False  # whether anything of the present stream did
        self.progress = False  # whether this invocation wrote anything

    def run(self, part: Slice) -> Result:
        """Do it all.

        Returns:
            What became of it, in the slice's order.

        Raises:
            RetryableError: not all could be done; what was done is in the bucket, and `progress`
                says if that is more than before.
        """
        pieces = [piece for item in part.items for piece in item.pieces()]
        self._find(pieces)
        with ThreadPoolExecutor(THREADS) as pool:
            self._stream(part, by_instance_uid(pieces), pool)
            for _ in range(_PASSES):
                for _ in pool.map(self._one, self._missing(pieces)):
                    pass
                if not self._pending:
                    break
        if missing := self._missing(pieces):
            self._give_up_or_raise(missing)
        return self._result(pieces, part.skipped)

    def _find(self, pieces: list[Piece]) -> None:
        """What is in the bucket already."""
        for series in sorted({Resource(p.resource.study, p.resource.series) for p in pieces}):
            self._there |= self._writer.there(f"{series.study}/{series.series}/")
        if self._request.format == "bulkdata":
            return  # only its metadata tells what belongs to an instance
        found = {
            piece: written for piece in pieces if (written := self._there.get(self._name(piece)))
        }
        older = sorted({piece.resource for piece, written in found.items() if not written.new})
        with ThreadPoolExecutor(THREADS) as pool:
            stored_at = dict(zip(older, pool.map(self._stored_at, older), strict=True))
        for piece, written in found.items():
            if self._still_good(written, stored_at.get(piece.resource, "")):
                self._note(piece, [(written, "")])
        self._there = {}
        self.progress = False

    def _stored_at(self, instance: Resource) -> str:
        try:
            return self._store.stored_at(instance, self._deadline)
        except PermanentError:
            return ""

    def _still_good(self, written: Written, stored_at: str) -> bool:
        """Whether an object that is there holds what the store has now; if it may not, it is
        retrieved and compared."""
        if written.new or written.newer_than(stored_at):
            return True
        self._writer.compared.add(written.stored.ref.name)
        return False

    def _missing(self, pieces: list[Piece]) -> list[Piece]:
        """What is left; each delivery begins elsewhere in it, so that some that always fail do not
        hide the others."""
        missing = [piece for piece in pieces if not self._settled(piece)]
        begin = int(len(missing) * self._turn) % len(missing) if missing else 0
        return missing[begin:] + missing[:begin]

    def _stream(self, part: Slice, wanted: dict[str, Piece], pool: ThreadPoolExecutor) -> None:
        """Retrieve as one answer what nothing is there of yet; an answer that breaks is not begun
        again."""
        batches = _Batches(self._put, pool, self._deadline)
        begun = {level for piece in self._done for level in _levels(piece.resource)}
        for resource in part.streams:
            if resource in begun or self._request.format not in ("dicom", "metadata"):
                continue
            self._arrived = False
            try:
                if self._request.format == "dicom":
                    self._take_parts(resource, wanted, batches)
                else:
                    self._take_metadata(resource, wanted, batches)
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
                self._deadline.check()
                if (
                    not self._arrived and not self._again
                ):  # it seems to be away: no use to ask for each instance
                    self._broken, self._in_a_row = error, _IN_A_ROW_MAX
                    break
        batches.finish()

    def _put(self, piece: Piece, data: list[bytes]) -> None:
        self._attempt(piece, lambda: [(self._writer.write(self._name(piece), data), "")])

    def _take_parts(
        self, resource: Resource, wanted: dict[str, Piece], batches: "_Batches"
    ) -> None:
        data, size = list[bytes](), 0
        parts = self._fetcher.parts(resource)
        for part in parts:
            self._arrived = True
            if isinstance(part, bytes):
                data.append(part)
                size += len(part)
                if size > SMALL_BYTES:
                    self._take_large(data, parts, wanted)
                    data, size = [], 0
            elif isinstance(part, multipart.PartStart):
                data, size = [], 0
            elif size:
                if (piece := identified(data, wanted)) and not self._settled(piece):
                    batches.add(piece, data, size)
                data, size = [], 0

    def _take_large(
        self, head: list[bytes], parts: Iterator[multipart.Piece], wanted: dict[str, Piece]
    ) -> None:
        """Write a large part while it arrives."""
        whole = False

        def rest() -> Iterator[bytes]:
            nonlocal whole
            for part in parts:
                if not isinstance(part, bytes):
                    whole = True
                    return
                yield part
            raise RetryableError("unavailable")

        stream = rest()
        if (piece := identified(head, wanted)) and not self._settled(piece):
            name = self._name(piece)
            self._attempt(piece, lambda: [(self._writer.write(name, head, stream), "")])
        if not whole:
            for _ in stream:  # it is no longer wanted, or its writing failed: on to the next part
                pass

    def _take_metadata(
        self, resource: Resource, wanted: dict[str, Piece], batches: "_Batches"
    ) -> None:
        for text, data_set in self._fetcher.metadata(resource):
            self._arrived = True
            found = dicomjson.instance(data_set)
            piece = wanted.get(found.instance) if found else None
            if piece and piece.resource == found and not self._settled(piece):
                data = text.encode()
                batches.add(piece, [data], len(data))

    def _one(self, piece: Piece) -> None:
        """Retrieve and write one piece by a request of its own, unless the store or the bucket
        seems to be away."""
        if self._in_a_row < _IN_A_ROW_MAX or (self._last_chance and self._store_gives()):
            self._attempt(piece, lambda: self._fetched(piece))

    def _store_gives(self) -> bool:
        """Whether the store gives what it gave before: what fails beside that does not fail for
        lack of a store."""
        if self._gives is None:
            with self._lock:
                known = next(iter(self._done), self._known)
            self._gives = known is not None and self._fetcher.gives(known)
        return self._gives

    def _fetched(self, piece: Piece) -> list[tuple[Written, str]]:
        self._deadline.check()
        format_, name = self._request.format, self._name(piece)
        if format_ == "bulkdata":
            return list(self._bulkdata(piece))
        if format_ in RENDERED:
            return [(self._writer.write_stream(name, self._fetcher.rendered(piece)), "")]
        if format_ == "metadata":
            found = list(self._fetcher.metadata(piece.resource))
            if [dicomjson.instance(data_set) for _, data_set in found] != [piece.resource]:
                raise RetryableError("unavailable")
            return [(self._writer.write(name, [text.encode() for text, _ in found]), "")]
        return [
            (
                self._writer.write_stream(
                    name, _checked(self._fetcher.instance(piece.resource), piece)
                ),
                "",
            )
        ]

    def _bulkdata(self, piece: Piece) -> Iterator[tuple[Written, str]]:
        for tag, stream in self._fetcher.bulkdata(piece.resource):
            name = f"{self._name(piece)}{tag}.bin"
            there = self._there.get(name)
            if there and self._still_good(
                there, "" if there.new else self._stored_at(piece.resource)
            ):
                yield there, tag
            else:
                yield self._writer.write_stream(name, stream), tag

    def _attempt(self, piece: Piece, write: Callable[[], list[tuple[Written, str]]]) -> None:
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

    def _note(self, piece: Piece, written: list[tuple[Written, str]]) -> None:
        with self._lock:
            self._done[piece] = [one.entry(piece, tag) for one, tag in written]
            new = {one.stored.ref.name for one, _ in written if one.new}
            self._new |= new
            self._pending.pop(piece, None)
            self.progress = self.progress or not new <= self._there.keys()
            self._in_a_row = 0

    def _settled(self, piece: Piece) -> bool:
        with self._lock:
            return piece in self._done or piece in self._failed

    def _name(self, piece: Piece) -> str:
        return self._request.object_name(piece.below(self._request.format))

    def _give_up_or_raise(self, missing: list[Piece]) -> None:
        """What is left is another delivery's work; but what has failed often, and now again while
        the store gives others, is given up."""
        if not (self._last_chance and self._pending.keys() >= set(missing) and self._store_gives()):
            late = self._deadline.remaining_s() <= 0
            raise (
                RetryableError("deadline_exceeded")
                if late
                else next(iter(self._pending.values()), self._broken)
            )
        for piece, error in self._pending.items():
            self._failed[piece] = error.reason, "given up after several deliveries"

    def _result(self, pieces: list[Piece], skipped: list[Resource]) -> Result:
        result = Result(written=len(self._new))
        for piece in pieces:
            result.objects += self._done.get(piece, [])
            if piece in self._failed:
                reason, detail = self._failed[piece]
                result.failures.append({**piece.fields, "reason": reason, "detail": detail})
        result.skipped = [{**Piece(one).fields, "reason": "unsupported_input"} for one in skipped]
        return result


class _Batches:
    """Hands what arrives to threads, a few pieces at a time: each hand-over costs the reader time.

    Threads pay only against latency: while writing takes hardly any time, the reader does it
    itself.
    """

    def __init__(
        self,
        put: Callable[[Piece, list[bytes]], None],
        pool: ThreadPoolExecutor,
        deadline: Deadline,
    ) -> None:
        self._put, self._pool, self._deadline = put, pool, deadline
        self._cost_s = 0.0  # of writing one piece, a running mean
        self._budget = ByteBudget(_WAITING_BYTES)
        self._batch: list[tuple[Piece, list[bytes]]] = []
        self._size = 0
        self._waiting: list[Future[None]] = []

    def add(self, piece: Piece, data: list[bytes], size: int) -> None:
        """One piece; waits while too much is on its way."""
        if self._cost_s < _FAST_S:
            self._write([(piece, data)])
            return
        self._batch.append((piece, data))
        self._size += size
        if self._size >= _BATCH_BYTES or len(self._batch) >= _BATCH_PIECES:
            self._hand_over()

    def finish(self) -> None:
        """Wait until all is written, or was tried."""
        self._hand_over()
        for future in self._waiting:
            future.result()

    def _hand_over(self) -> None:
        batch, size = self._batch, self._size
        if not batch:
            return
        self._batch, self._size = [], 0
        self._budget.take(size)

        def write() -> None:
            try:
                self._write(batch)
            finally:
                self._budget.give_back(size)

        self._waiting.append(self._pool.submit(write))

    def _write(self, batch: list[tuple[Piece, list[bytes]]]) -> None:
        began_s = self._deadline.elapsed_s()
        for piece, data in batch:
            self._put(piece, data)
        self._cost_s += ((self._deadline.elapsed_s() - began_s) / len(batch) - self._cost_s) / 8


def _levels(instance: Resource) -> tuple[Resource, Resource]:
    return Resource(instance.study), Resource(instance.study, instance.series)


def _checked(stream: Iterator[bytes], piece: Piece) -> Iterator[bytes]:
    """The stream, unless it is another instance; a file whose UIDs cannot be read is taken for what
    was asked for."""
    head, size = list[bytes](), 0
    for data in stream:
        head.append(data)
        size += len(data)
        if size >= part10.HEAD_BYTES:
            break
    other = False
    with contextlib.suppress(PermanentError, part10.MoreNeededError):
        other = part10.read_header(head, whole=False).resource != piece.resource
    if other:
        raise PermanentError("rejected", "the DICOM store sent another instance")
    yield from head
    head.clear()
    yield from stream
