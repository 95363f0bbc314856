"""An object of a bucket as a file that can be sought in, through ranged reads; nothing of it is
kept but a buffer."""

import io
from collections.abc import Iterator
from typing import Final

from functions.common.clients.storage import Buckets
from functions.common.clients.transport import Response, chunks
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.common.resources import ObjectRef
from functions.store.refusals import unsupported

BUFFER_BYTES: Final = 256 * 1024
# A gap up to this is read over; a larger one is worth a new request.
_READ_ON_BYTES: Final = 1024 * 1024
_TRIES: Final = 3  # without a byte in between
_PARTIAL: Final = 206


class Seekable(io.RawIOBase):
    """The place in a file of known size; what is read there is the subclass's.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only notes the place; the next read goes there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._at = base + offset
        return self._at


class RangedObject(Seekable):
    """One generation of an object. Reading on from where the last read ended costs no new request.

    Args:
        ref: the object, with its generation.
        size: in bytes.
        buckets: the client.
        deadline: of the invocation; reads raise SupersededError and RetryableError as Buckets.open
            does, and PermanentError("unsupported_input") where the object cannot be read in ranges.
    """

    def __init__(self, ref: ObjectRef, size: int, buckets: Buckets, deadline: Deadline) -> None:
        super().__init__(size)
        self._ref = ref
        self._buckets = buckets
        self._deadline = deadline
        self._response: Response | None = None
        self._stream: Iterator[bytes] = iter(())
        self._stream_at = 0  # where in the object the stream's next byte is
        self._left = memoryview(b"")  # read from the stream, not yet taken

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read up to the buffer's length; 0 at the end."""
        if self._at >= self._size or not len(buffer):
            return 0
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _read(self, length: int) -> memoryview:
        """The next bytes; a reading that breaks off is begun again."""
        tries_left = _TRIES
        while True:
            tries_left -= 1
            try:
                self._go_to(self._at)
                return self._piece(length)
            except RetryableError as error:
                self._drop()
                if error.reason != "unavailable" or not tries_left:
                    raise

    def close(self) -> None:
        """Give the connection back."""
        self._drop()
        super().close()

    def _go_to(self, at: int) -> None:
        """Have the stream's next byte be this one: by reading on, or by a new request."""
        place = self._stream_at - len(self._left)
        is_near = 0 <= at - place <= _READ_ON_BYTES
        if self._response is None or not is_near:
            self._drop()
            self._open(at)
            return
        while place < at:
            place += len(self._piece(at - place))

    def _open(self, at: int) -> None:
        response = self._buckets.open(self._ref, self._deadline, at)
        self._response = response
        if response.headers.get("x-goog-stored-content-encoding", "identity") != "identity":
            # Cloud Storage unpacks it on the way from its first byte on, whatever range was asked
            # for.
            raise unsupported("an archive with a Content-Encoding: upload it without")
        if at and response.status_code != _PARTIAL:
            raise RetryableError("unavailable")
        self._stream = chunks(response, self._deadline, BUFFER_BYTES)
        self._stream_at = at

    def _piece(self, size: int) -> memoryview:
        """The stream's next bytes, at most this many."""
        if not self._left:
            data = next(self._stream, b"")
            if not data:
                raise RetryableError("unavailable")  # the object is longer than what came
            self._left = memoryview(data)
            self._stream_at += len(data)
        piece = self._left[:size]
        self._left = self._left[size:]
        return piece

    def _drop(self) -> None:
        self._left = memoryview(b"")
        if self._response is not None:
            self._response.close()
            self._response = None


def open_ranged(
    ref: ObjectRef, size: int, buckets: Buckets, deadline: Deadline
) -> io.BufferedReader:
    """A RangedObject with a buffer, for the many small readings of archive formats."""
    return io.BufferedReader(RangedObject(ref, size, buckets, deadline), BUFFER_BYTES)
