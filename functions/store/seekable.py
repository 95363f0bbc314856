"""Files that can be sought in, as zipfile and tarfile want them, of which little is kept in memory.

An object of a bucket is read in ranges. A zip inside an archive is unpacked twice, however many
members it has.
"""

import io
from collections.abc import Iterator
from typing import Final

from functions.common.clients.storage import Buckets, StoredObject
from functions.common.clients.transport import Response, chunks
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.store.refusals import unsafe, unsupported
from functions.store.source import Source

BUFFER_BYTES: Final = 256 * 1024
KEPT_BYTES: Final = 8 * 1024 * 1024  # of the end of an inner zip
# A gap up to this is read over; a larger one is worth a new request.
_READ_ON_BYTES: Final = 1024 * 1024
_TRIES: Final = 3  # without a byte in between
_PARTIAL: Final = 206
# Each new attempt to send a large member is one more reading. A zip whose members lie across each
# other would need one for each of them.
_READINGS_MAX: Final = 10


class _Seekable(io.RawIOBase):
    """A file that is read in chunks, one after the other. Going back begins a new reading, and so
    does going too far ahead.

    Args:
        size: in bytes.
        read_on_bytes: how far ahead a place may lie so that the chunks up to there are read.
    """

    def __init__(self, size: int, read_on_bytes: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0
        self._read_on_bytes = read_on_bytes
        self._chunk = b""
        self._chunk_at = size

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

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read up to the buffer's length; 0 at the end."""
        if self._at >= self._size or not len(buffer):
            return 0
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _begin(self) -> int:
        """Begin a new reading; the place where its first chunk lies."""
        raise NotImplementedError

    def _next_chunk(self) -> bytes:
        """The next chunk of the reading; never empty."""
        raise NotImplementedError

    def _read(self, length: int) -> bytes:
        """Some bytes from the current place on, at most so many."""
        ahead = self._at - self._chunk_at - len(self._chunk)
        if self._at < self._chunk_at or ahead > self._read_on_bytes:
            self._forget()
            self._chunk_at = self._begin()
        while self._at >= self._chunk_at + len(self._chunk):
            self._chunk_at += len(self._chunk)
            self._chunk = self._next_chunk()
        start = self._at - self._chunk_at
        return self._chunk[start : start + length]

    def _forget(self) -> None:
        """Give up the reading. Every place lies in front of the end, so the next one begins
        anew."""
        self._chunk = b""
        self._chunk_at = self._size


class RangedObject(_Seekable):
    """One generation of an object, read by ranged requests.

    Args:
        one: the object.
        buckets: the client.
        deadline: of the invocation; reads raise SupersededError and RetryableError as Buckets.open
            does, and PermanentError("unsupported_input") where the object cannot be read in ranges.
    """

    def __init__(self, one: StoredObject, buckets: Buckets, deadline: Deadline) -> None:
        super().__init__(one.size, _READ_ON_BYTES)
        self._response: Response | None = None
        self._ref = one.ref
        self._buckets = buckets
        self._deadline = deadline
        self._stream: Iterator[bytes] = iter(())

    def _read(self, length: int) -> bytes:
        """A reading that breaks off is begun again."""
        tries_left = _TRIES
        while True:
            tries_left -= 1
            try:
                return super()._read(length)
            except RetryableError as error:
                self._forget()
                if error.reason != "unavailable" or not tries_left:
                    raise

    def _begin(self) -> int:
        response = self._buckets.open(self._ref, self._deadline, self._at)
        self._response = response
        if response.headers.get("x-goog-stored-content-encoding", "identity") != "identity":
            # Cloud Storage unpacks it on the way from its first byte on, whatever range was asked
            # for.
            raise unsupported("an archive with a Content-Encoding: upload it without")
        if self._at and response.status_code != _PARTIAL:
            raise RetryableError("unavailable")
        self._stream = chunks(response, self._deadline, BUFFER_BYTES)
        return self._at

    def _next_chunk(self) -> bytes:
        chunk = next(self._stream, b"")
        if not chunk:
            raise RetryableError("unavailable")  # the object is longer than what came
        return chunk

    def _forget(self) -> None:
        super()._forget()
        if self._response is not None:
            self._response.close()
            self._response = None

    def close(self) -> None:
        """Give the connection back."""
        self._forget()
        super().close()


def open_ranged(one: StoredObject, buckets: Buckets, deadline: Deadline) -> io.BufferedReader:
    """A RangedObject with a buffer, for the many small readings of archive formats."""
    return io.BufferedReader(RangedObject(one, buckets, deadline), BUFFER_BYTES)


class InnerZip(_Seekable):
    """A zip that is a member of an archive, which is unpacked from its beginning.

    A zip is read from its end, where its directory is. So its end is kept from a first reading, and
    a second reading goes through the rest in order.

    Args:
        source: the member.
        size: in bytes.
    """

    def __init__(self, source: Source, size: int) -> None:
        super().__init__(size, read_on_bytes=size)
        self._source = source
        self._stream: Iterator[bytes] = iter(())
        self._left_bytes = _READINGS_MAX * max(size, KEPT_BYTES)
        self._end = self._read_end()
        self._end_at = size - len(self._end)

    def _read_end(self) -> bytes:
        end = bytearray()
        for chunk in self._source.chunks():
            end += chunk
            if len(end) > 2 * KEPT_BYTES:
                del end[:-KEPT_BYTES]
        return bytes(end[-KEPT_BYTES:])

    def _read(self, length: int) -> bytes:
        if self._at >= self._end_at:
            start = self._at - self._end_at
            return self._end[start : start + length]
        return super()._read(length)

    def _begin(self) -> int:
        self._stream = self._source.chunks()
        return 0

    def _next_chunk(self) -> bytes:
        chunk = next(self._stream, b"")
        self._left_bytes -= len(chunk)
        if not chunk:
            raise EOFError
        if self._left_bytes < 0:
            raise unsafe("an archive inside the archive that cannot be read in order")
        return chunk
