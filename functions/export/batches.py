"""Passes small objects to threads that write them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from functions.common.deadline import Deadline
from functions.export.content import Content
from functions.export.slices import Piece

# Seconds for one piece; a bucket in the cloud takes ten times as long.
_FAST_S: Final = 0.003
_BATCH_BYTES: Final = 1024 * 1024
_BATCH_PIECES: Final = 8
_WAITING_BYTES: Final = 6 * 1024 * 1024
# Pieces over which the time of writing one is averaged.
_MEAN_OF: Final = 8
Put = Callable[[Piece, Content], None]
Batch = list[tuple[Piece, Content]]


class Batches:
    """Passes on a few pieces at a time, because each hand-over takes the reader time.

    Threads help only against latency: while writing is very fast, the reader writes itself.

    Args:
        put: writes one piece; called from any thread.
        deadline: tells the time that writing takes.
    """

    def __init__(
        self,
        put: Put,
        pool: ThreadPoolExecutor,
        deadline: Deadline,
    ) -> None:
        self._put = put
        self._pool = pool
        self._deadline = deadline
        self._cost_s = 0.0  # of writing one piece, a running mean
        self._budget = _ByteBudget(_WAITING_BYTES)
        self._batch: Batch = []
        self._size = 0
        self._waiting: list[Future[None]] = []

    def add(self, piece: Piece, content: Content) -> None:
        """Write one piece that is in memory; waits while too many bytes are being written."""
        if self._cost_s < _FAST_S:
            self._write([(piece, content)])
            return
        self._batch.append((piece, content))
        self._size += sum(map(len, content.head))
        if self._size >= _BATCH_BYTES or len(self._batch) >= _BATCH_PIECES:
            self._hand_over()

    def finish(self) -> None:
        """Wait until every piece was written or has failed."""
        self._hand_over()
        for future in self._waiting:
            future.result()

    def _hand_over(self) -> None:
        if not self._batch:
            return
        batch = self._batch
        size = self._size
        self._batch = []
        self._size = 0
        self._budget.take(size)

        def write() -> None:
            try:
                self._write(batch)
            finally:
                self._budget.give_back(size)

        self._waiting.append(self._pool.submit(write))

    def _write(self, batch: Batch) -> None:
        count = len(batch)
        began_s = self._deadline.elapsed_s()
        while batch:  # written pieces are not kept
            self._put(*batch.pop(0))
        cost_s = (self._deadline.elapsed_s() - began_s) / count
        # Several threads do this at once; a lost update does not matter.
        self._cost_s += (cost_s - self._cost_s) / _MEAN_OF


class _ByteBudget:
    """Limits the bytes that wait in memory; one piece of any size is always allowed."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, size_bytes: int) -> None:
        """Wait until there is room."""

        def has_room() -> bool:
            return self._taken == 0 or self._taken + size_bytes <= self._limit

        with self._changed:
            self._changed.wait_for(has_room)
            self._taken += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Make room."""
        with self._changed:
            self._taken -= size_bytes
            self._changed.notify_all()
