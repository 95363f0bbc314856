"""Where bytes come from: an object or a member of an archive, read as a stream, and once more for
each new attempt."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Final

from functions.common.checksum import Checksum
from functions.common.clients.storage import Buckets
from functions.common.clients.transport import chunks
from functions.common.deadline import Deadline
from functions.common.dicom.part10 import HEAD_BYTES, Header, MoreNeededError, read_header
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import ObjectRef

READ_BYTES: Final = 256 * 1024


class Source:
    """Bytes that can be read again; the first reading goes on where `head` stopped, so that it
    costs no second one.

    Args:
        open_: begins to read at the first byte.
        size: how many bytes there are; None when that shows only at the end.
        crc32c: base64, where it is known beforehand.
    """

    def __init__(
        self, open_: Callable[[], Iterator[bytes]], size: int | None, crc32c: str = ""
    ) -> None:
        self._open = open_
        self._stream: Iterator[bytes] | None = None
        self._head: bytes | None = None
        self.size = size
        self.crc32c = crc32c

    @property
    def head(self) -> bytes:
        """The first 64 KiB or more, or everything when that is less."""
        if self._head is None:
            self._stream = self._open()
            pieces: list[bytes] = []
            while (
                sum(map(len, pieces)) < HEAD_BYTES
                and (piece := next(self._stream, None)) is not None
            ):
                pieces.append(piece)
            self._head = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._head

    def chunks(self) -> Generator[bytes]:
        """All bytes, from the first on."""
        stream, self._stream = self._stream, None
        if stream is None or self._head is None:
            yield from self._open()
            return
        yield self._head
        yield from stream

    def close(self) -> None:
        """Give up a reading that was begun; it can be begun again."""
        stream, self._stream = self._stream, None
        if stream is not None and hasattr(stream, "close"):
            stream.close()


class Body:
    """A source as a request body: nothing is sent that is not whole.

    The last chunk is held back until length and checksum are known to be right, so that a source
    that changed, was cut or was damaged on the way breaks the request off and leaves nothing
    behind.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.crc32c = ""  # of all that was sent, once it was

    def __iter__(self) -> Iterator[bytes]:
        checksum, length, held = Checksum(), 0, b""
        for chunk in self._source.chunks():
            if held:
                yield held
            checksum.add(chunk)
            length += len(chunk)
            held = chunk
        wrong = self._source.size not in (None, length)
        if wrong or (self._source.crc32c and self._source.crc32c != checksum.text):
            raise RetryableError("unavailable")
        self.crc32c = checksum.text
        if held:
            yield held


class SizedBody(Body):
    """A body that is sent with Content-Length."""

    def __init__(self, source: Source, size: int) -> None:
        super().__init__(source)
        self._size = size

    def __len__(self) -> int:
        return self._size


def body_of(source: Source) -> Body:
    """A body with Content-Length where the size is known, else chunked."""
    return Body(source) if source.size is None else SizedBody(source, source.size)


def object_source(
    ref: ObjectRef, size: int, crc32c: str, buckets: Buckets, deadline: Deadline
) -> Source:
    """An object as a source: one request for each reading."""

    def read() -> Iterator[bytes]:
        with buckets.open(ref, deadline) as response:
            if response.headers.get("x-goog-stored-content-encoding", "identity") != "identity":
                # Cloud Storage unpacks such an object on the way: size and checksum are those of
                # what it keeps.
                source.size, source.crc32c = None, ""
            yield from chunks(response, deadline)

    source = Source(read, size, crc32c)
    return source


def whole(source: Source, limit_bytes: int) -> bytes:
    """All bytes at once, for small sources.

    Raises:
        PermanentError: unsupported_input, when there are more than `limit_bytes`.
    """
    data = bytearray()
    for chunk in source.chunks():
        data += chunk
        if len(data) > limit_bytes:
            raise PermanentError("unsupported_input", f"larger than {limit_bytes} bytes")
    return bytes(data)


def header_of(source: Source) -> Header:
    """What a DICOM file says it is; where its header is larger than the head, that is one more
    reading.

    Raises:
        PermanentError: as part10.read_header.
    """
    try:
        return read_header([source.head], whole=source.size == len(source.head))
    except MoreNeededError:
        with contextlib.closing(source.chunks()) as data:
            return read_header(data)


def in_memory(source: Source) -> Source:
    """The same bytes, read now: for a small member, so that others can send it while the archive is
    read on."""
    data = b"".join(source.chunks())
    return Source(lambda: iter((data,)), source.size, source.crc32c)
