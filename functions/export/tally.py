"""The results of a slice's pieces so far, used by several threads at once."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.export.giving_up import DETAIL, was_tried
from functions.export.result import Result
from functions.export.slices import Piece, Slice
from functions.export.writer import NotTriedError, Present

# Each with its tag, as in Fetcher.objects.
WrittenObjects = list[tuple[str, Present]]


class Tally:
    """Which pieces are done, which have failed permanently, and which were tried without success.

    `tried`, `why`, `give_up` and `result` are only called when no thread is at work.

    Args:
        deadline: for retrieving.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        # Failed attempts since the last success.
        self.failed_in_a_row = 0
        self._lock = threading.Lock()
        self._done: dict[Piece, list[dict[str, Any]]] = {}
        self._failures: dict[Piece, dict[str, Any]] = {}
        self._unsuccessful: dict[Piece, RetryableError] = {}
        # Names of objects that this export wrote.
        self._new: set[str] = set()

    def attempt(self, piece: Piece, write: Callable[[], WrittenObjects]) -> None:
        """Try one piece, and keep the result. A piece may come twice in one answer, with other
        bytes: if one of its attempts succeeds, it is done. If it only waited for others, it is in
        the rest of the slice."""
        began_with_s = self._deadline.remaining_s()
        try:
            self.note(piece, write())
        except PermanentError as error:
            with self._lock:
                if piece not in self._done:
                    self._failures[piece] = piece.failure(error.reason, error.detail)
        except NotTriedError:
            pass
        except RetryableError as error:
            with self._lock:
                self.failed_in_a_row += 1
                if was_tried(self._deadline, began_with_s):
                    self._unsuccessful[piece] = error

    def note(self, piece: Piece, objects: WrittenObjects) -> None:
        """A piece is done."""
        entries = [one.entry(piece, tag) for tag, one in objects]
        new = {one.stored.ref.name for _, one in objects if one.by_this_export}
        with self._lock:
            self._done[piece] = entries
            self._failures.pop(piece, None)
            self._new |= new
            self.failed_in_a_row = 0

    def end_row(self) -> None:
        """Set the number of failures in a row back to 0."""
        with self._lock:
            self.failed_in_a_row = 0

    def is_settled(self, piece: Piece) -> bool:
        """Whether nothing is left to do for a piece."""
        with self._lock:
            return piece in self._done or piece in self._failures

    def settled(self) -> set[Piece]:
        """The pieces for which nothing is left to do."""
        with self._lock:
            return {*self._done, *self._failures}

    def done(self) -> list[Piece]:
        """The pieces that are done."""
        with self._lock:
            return list(self._done)

    def tried(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Those of these pieces that were tried without success."""
        return [piece for piece in pieces if piece in self._unsuccessful]

    def why(self, pieces: Iterable[Piece]) -> RetryableError:
        """Why these are not done."""
        errors = (self._unsuccessful[piece] for piece in pieces if piece in self._unsuccessful)
        return next(errors, RetryableError("unavailable"))

    def give_up(self, pieces: Iterable[Piece]) -> None:
        """Pieces that were tried without success become failures."""
        for piece in pieces:
            self._failures[piece] = piece.failure(self._unsuccessful[piece].reason, DETAIL)

    def result(self, task: Slice) -> Result:
        """The result of a slice, in the order of its pieces; the rest is what is not settled."""
        result = Result(written=len(self._new), rest=task.without(self.settled()))
        for piece in task.pieces:
            result.objects += self._done.get(piece, [])
            if piece in self._failures:
                result.failures.append(self._failures[piece])
        for instance in task.skipped:
            fields = Piece(instance).fields
            result.skipped.append({**fields, "reason": "unsupported_input"})
        return result
