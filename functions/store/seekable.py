"""Seekable files for zipfile and tarfile, with little kept in memory.

An object of a bucket is read in ranges. A zip inside an archive is unpacked twice, whatever its
number of members.
"""

import io
from collections.abc import Callable, Generator
from typing import BinaryIO, Final, cast

from functions.common.clients.storage import Buckets, StoredObject
from functions.common.clients.transport import chunks
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.store.archive_limits import INNER_ZIP_BYTES, check_readings
from functions.store.refusals import unsupported
from functions.store.source import Source, is_unpacked

_BUFFER_BYTES: Final = 256 * 1024
# A gap up to this size is skipped by reading; a larger one by a new request.
_READ_ON_BYTES: Final = 1024 * 1024
# After so many readings in a row without a byte, the message is delivered again.
_TRIES: Final = 3
_PARTIAL: Final = 206


def open_ranged(one: StoredObject, buckets: Buckets, deadline: Deadline) -> BinaryIO:
    """One generation of an object.

    Reading it raises SupersededError and RetryableError as Buckets.open, and PermanentError
    (unsupported_input) if the object cannot be read in ranges.
    """

    def read(at: int) -> Generator[bytes]:
        tries_left = _TRIES
        # The caller stops before the end; otherwise an error ends it.
        while True:
            try:
                for chunk in _range(one, at, buckets, deadline):
                    yield chunk
                    at += len(chunk)
                    tries_left = _TRIES
            except RetryableError as error:
                # A reading that breaks off is started again.
                tries_left -= 1
                if error.reason != "unavailable" or not tries_left:
                    raise

    return _buffered(_Seekable(one.size, read, _READ_ON_BYTES))


def _range(one: StoredObject, at: int, buckets: Buckets, deadline: Deadline) -> Generator[bytes]:
    """One reading, from a place on. The caller stops before its end: reaching that means that the
    object was cut."""
    with buckets.open(one.ref, deadline, at) as response:
        if is_unpacked(response.headers):
            # The whole object, whatever range was requested.
            raise unsupported("an archive with a Content-Encoding: upload it without")
        if at and response.status_code != _PARTIAL:
            raise RetryableError("unavailable")
        yield from chunks(response, deadline, _BUFFER_BYTES)
    raise RetryableError("unavailable")


def open_inner(source: Source, size: int) -> BinaryIO:
    """A zip that is a member of an archive, which is unpacked from its beginning.

    A zip is read from its end, where its directory is. So the end is kept from a first reading, and
    a second reading reads the rest in order.

    Args:
        source: the member.
        size: in bytes.
    """
    end = _end_of(source)
    end_at = size - len(end)
    read_bytes = 0

    def read(at: int) -> Generator[bytes]:
        nonlocal read_bytes
        if at >= end_at:
            yield end[at - end_at :]
            return
        place = 0
        for chunk in source.chunks():
            read_bytes += len(chunk)
            check_readings(size, read_bytes)
            yield chunk[max(at - place, 0) :]
            place += len(chunk)

    return _buffered(_Seekable(size, read, read_on_bytes=size))


def _end_of(source: Source) -> bytes:
    end = bytearray()
    for chunk in source.chunks():
        end += chunk
        if len(end) > 2 * INNER_ZIP_BYTES:
            del end[:-INNER_ZIP_BYTES]
    return bytes(end[-INNER_ZIP_BYTES:])


def _buffered(file: io.RawIOBase) -> BinaryIO:
    """For the many small readings of archive formats."""
    return cast("BinaryIO", io.BufferedReader(file, _BUFFER_BYTES))


class _Seekable(io.RawIOBase):
    """A file whose bytes come in chunks from any place on. Going back, or too far ahead, begins a
    new reading.

    Args:
        size: in bytes.
        read: the chunks from a place on; some may be empty.
        read_on_bytes: how far ahead a place may be so that the chunks before it are read.
    """

    def __init__(
        self, size: int, read: Callable[[int], Generator[bytes]], read_on_bytes: int
    ) -> None:
        super().__init__()
        self._size = size
        self._read = read
        self._read_on_bytes = read_on_bytes
        self._at = 0
        # At the end, with nothing read: the first read is before it, and begins a new reading.
        self._chunks = read(size)
        self._chunk = b""
        self._chunk_at = size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only remembers the place; the next read goes there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read up to the buffer's length; 0 at the end."""
        if self._at >= self._size or not len(buffer):
            return 0
        self._go_to_place()
        start = self._at - self._chunk_at
        piece = self._chunk[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _go_to_place(self) -> None:
        """Load the chunk with the next byte."""
        ahead = self._at - self._chunk_at - len(self._chunk)
        if self._at < self._chunk_at or ahead > self._read_on_bytes:
            self._chunks.close()
            self._chunks = self._read(self._at)
            self._chunk = b""
            self._chunk_at = self._at
        while self._at >= self._chunk_at + len(self._chunk):
            self._chunk_at += len(self._chunk)
            try:
                self._chunk = next(self._chunks)
            except StopIteration:
                raise EOFError from None

    def close(self) -> None:
        """End the reading."""
        self._chunks.close()
        super().close()
