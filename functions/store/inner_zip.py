"""A zip that is a member of another zip, as a file that can be sought in.

A zip is read from its end, where its directory is, and a member of an archive is unpacked from its
beginning. So the end is kept from a first reading, and a second reading goes through the rest in
order: the zip is unpacked twice, however many members it has.
"""

from collections.abc import Iterator
from typing import Final

from functions.store.ranged import Seekable
from functions.store.refusals import unsafe
from functions.store.source import Source

KEPT_BYTES: Final = 8 * 1024 * 1024
# Each new attempt to send a large member is one more reading. A zip whose members lie across each
# other would need one for each of them.
_READINGS_MAX: Final = 10


class InnerZip(Seekable):
    """The bytes of a member of known size.

    Args:
        source: the member.
        size: in bytes.
    """

    def __init__(self, source: Source, size: int) -> None:
        super().__init__(size)
        self._source = source
        self._left_bytes = _READINGS_MAX * max(size, KEPT_BYTES)
        self._end = self._read_end()
        self._end_at = size - len(self._end)
        # The chunk of the reading that goes on, and where it lies.
        self._chunks: Iterator[bytes] = iter(())
        self._chunk = b""
        self._chunk_at = size

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read up to the buffer's length; 0 at the end.

        Raises:
            PermanentError: unsafe_archive, when it would have to be read too often.
        """
        if self._at >= self._end_at:
            begin = self._at - self._end_at
            piece = self._end[begin : begin + len(buffer)]
        else:
            piece = self._read_in_order(len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _read_end(self) -> bytes:
        end = bytearray()
        for chunk in self._source.chunks():
            end += chunk
            self._left_bytes -= len(chunk)
            if len(end) > 2 * KEPT_BYTES:
                del end[:-KEPT_BYTES]
        return bytes(end[-KEPT_BYTES:])

    def _read_in_order(self, length: int) -> bytes:
        if self._at < self._chunk_at:
            self._chunks = self._source.chunks()
            self._chunk = b""
            self._chunk_at = 0
        while self._at >= self._chunk_at + len(self._chunk):
            self._chunk_at += len(self._chunk)
            self._chunk = next(self._chunks, b"")
            self._left_bytes -= len(self._chunk)
            if not self._chunk:
                raise EOFError
            if self._left_bytes < 0:
                raise unsafe("an archive inside the archive that cannot be read in order")
        begin = self._at - self._chunk_at
        return self._chunk[begin : begin + length]
