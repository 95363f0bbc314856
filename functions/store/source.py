"""The source of bytes: an object or a member of an archive, read as a stream, and read again for
each attempt."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Final

from functions.common.checksum import Checksum
from functions.common.dicom.part10 import HEAD_BYTES
from functions.common.errors import RetryableError
from functions.store.refusals import unsupported

READ_BYTES: Final = 256 * 1024
# What is not in the head is searched for up to here, so that the file is read only once.
_LONG_HEAD_BYTES: Final = 4 * 1024 * 1024


class Source:
    """Bytes that can be read again.

    The first reading continues where `head` stopped, so that the head takes no extra reading:

        before a reading    read_head or chunks begins one at the first byte
        after read_head     the reading is open; read_head and chunks continue it
        after chunks        the caller has the reading; the next one begins at the first byte
        after close         the reading has ended; the next one begins at the first byte

    `head` always has what read_head read last.

    Args:
        open_: begins to read at the first byte.
        size: total bytes; None if that is known only at the end. Final once the head was read: an
            object that Cloud Storage unpacks has neither this size nor this checksum.
        crc32c: base64, if it is known before.
        can_reread: whether a second reading takes no longer than the first. It takes longer in a
            tar.gz, where everything before a member must be unpacked again.
    """

    def __init__(
        self,
        open_: Callable[[], Iterator[bytes]],
        size: int | None,
        crc32c: str = "",
        *,
        can_reread: bool = True,
    ) -> None:
        self._open = open_
        self._stream: Iterator[bytes] | None = None
        self._head = b""
        self.size = size
        self.crc32c = crc32c
        self.can_reread = can_reread
        # Of all bytes, once checked_chunks has read them.
        self.checksum: Checksum | None = None

    @classmethod
    def of(cls, data: bytes) -> "Source":
        """Bytes that are in memory."""
        return cls(lambda: iter((data,)), len(data))

    @property
    def head(self) -> bytes:
        """The first 64 KiB or more; everything if there is less."""
        if not self._head:
            self.read_head(HEAD_BYTES)
        return self._head

    def read_head(self, size: int) -> bytes:
        """Make the head at least this long, unless the source ends earlier."""
        if self._stream is None:
            self._head = b""
            self._stream = self._open()
        pieces = [self._head]
        length = len(self._head)
        while length < size:
            piece = next(self._stream, b"")
            if not piece:
                break
            pieces.append(piece)
            length += len(piece)
        self._head = b"".join(pieces)
        return self._head

    def heads(self) -> Iterator[bytes]:
        """The head, and then a head of up to 4 MiB, without a second reading."""
        yield self.head
        yield self.read_head(_LONG_HEAD_BYTES)

    def chunks(self) -> Generator[bytes]:
        """All bytes, from the first on."""
        # The reading that was begun for the head continues after it.
        stream, self._stream = self._stream, None
        if stream is None:
            stream = self._open()
        elif self._head:
            yield self._head
        yield from stream

    def checked_chunks(self) -> Iterator[bytes]:
        """All bytes, for a request: nothing incomplete is stored.

        The last chunk is held back until length and checksum are known to be right. So a source
        that changed, was cut off or was damaged during the transfer breaks the request off.

        Raises:
            RetryableError: unavailable, if they are not right.
        """
        checksum = Checksum()
        length = 0
        held = b""
        for chunk in self.chunks():
            if held:
                yield held
            checksum.add(chunk)
            length += len(chunk)
            held = chunk
        if self.size not in (None, length) or self.crc32c not in ("", checksum.text):
            raise RetryableError("unavailable")
        self.checksum = checksum
        if held:
            yield held

    def close(self) -> None:
        """End a reading; the next one begins at the first byte."""
        stream, self._stream = self._stream, None
        if isinstance(stream, Generator):
            stream.close()


class _SizedBody:
    """A request body that is sent with Content-Length."""

    def __init__(self, chunks: Iterator[bytes], size: int) -> None:
        self._chunks = chunks
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def __len__(self) -> int:
        return self._size


def body_of(chunks: Iterator[bytes], size: int | None) -> Iterable[bytes]:
    """A request body: with Content-Length if the size is known, else in HTTP chunks."""
    if size is None:
        return chunks
    return _SizedBody(chunks, size)


def is_unpacked(headers: Mapping[str, str]) -> bool:
    """Whether Cloud Storage unpacks an object during the download, because it has a
    Content-Encoding."""
    return headers.get("x-goog-stored-content-encoding", "identity") != "identity"


def whole(source: Source, limit_bytes: int) -> bytes:
    """All bytes at once, for small sources.

    Raises:
        PermanentError: unsupported_input, when there are more than `limit_bytes`.
    """
    data = bytearray()
    for chunk in source.chunks():
        data += chunk
        if len(data) > limit_bytes:
            raise unsupported(f"larger than {limit_bytes} bytes")
    return bytes(data)
