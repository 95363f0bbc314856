"""What became of the pieces of a slice so far, kept by several threads at once."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.slices import Piece
from functions.export.state import Result
from functions.export.writer import Written

Objects = list[tuple[Written, str]]  # each with what tells it apart, as Fetcher.objects


class Tally:
    """Which pieces are done, which can never be, and which were tried in vain.

    `progress` says whether this invocation wrote anything; `in_a_row`, how many attempts failed
    since the last that did not.
    """

    def __init__(self) -> None:
        self.progress = False
        self.in_a_row = 0
        # Names of objects that were there before: to find them is no progress.
        self.there: set[str] = set()
        self.pending: dict[Piece, RetryableError] = {}
        self._lock = threading.Lock()
        self._done: dict[Piece, list[dict[str, Any]]] = {}
        self._failed: dict[Piece, tuple[str, str]] = {}  # reason and detail
        self._new: set[str] = set()  # names of objects that this export wrote

    def attempt(self, piece: Piece, write: Callable[[], Objects]) -> None:
        """Try one piece, and keep what came of it."""
        try:
            self.note(piece, write())
        except PermanentError as error:
            self._fail(piece, error.reason, error.detail)
        except RetryableError as error:
            self._put_off(piece, error)

    def note(self, piece: Piece, objects: Objects) -> None:
        """A piece is done."""
        new = {one.stored.ref.name for one, _ in objects if one.new}
        entries = [one.entry(piece, tag) for one, tag in objects]
        with self._lock:
            self._done[piece] = entries
            self._new |= new
            self.pending.pop(piece, None)
            self.in_a_row = 0
            if not new <= self.there:
                self.progress = True

    def give_up_pending(self) -> None:
        """What was tried in vain becomes a failure."""
        for piece, error in self.pending.copy().items():
            self._fail(piece, error.reason, "given up after several deliveries")

    def is_settled(self, piece: Piece) -> bool:
        """Whether nothing is left to do for a piece."""
        with self._lock:
            return piece in self._done or piece in self._failed

    def done(self) -> list[Piece]:
        """The pieces that are done."""
        with self._lock:
            return list(self._done)

    def result(self, pieces: Iterable[Piece], skipped: Iterable[Resource]) -> Result:
        """What became of a slice, in the order of its pieces."""
        result = Result(written=len(self._new))
        for piece in pieces:
            result.objects += self._done.get(piece, [])
            if piece in self._failed:
                reason, detail = self._failed[piece]
                failure = {**piece.fields, "reason": reason, "detail": detail}
                result.failures.append(failure)
        for instance in skipped:
            fields = Piece(instance).fields
            result.skipped.append({**fields, "reason": "unsupported_input"})
        return result

    def _fail(self, piece: Piece, reason: str, detail: str) -> None:
        with self._lock:
            self._failed[piece] = reason, detail
            self.pending.pop(piece, None)

    def _put_off(self, piece: Piece, error: RetryableError) -> None:
        with self._lock:
            self.in_a_row += 1
            if error.reason != "deadline_exceeded":  # then it was not tried in earnest
                self.pending[piece] = error
