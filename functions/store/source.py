"""Where bytes come from: an object or a member of an archive, read as a stream, and read again for
each new attempt."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Final, Protocol

from functions.common.checksum import Checksum
from functions.common.clients.storage import Buckets
from functions.common.clients.transport import chunks
from functions.common.deadline import Deadline
from functions.common.dicom.part10 import HEAD_BYTES, Header, MoreNeededError, read_header
from functions.common.errors import RetryableError
from functions.common.resources import ObjectRef
from functions.store.refusals import unsupported

READ_BYTES: Final = 256 * 1024
# What does not stand in the head is looked for up to here, so that the file is read only once.
_LONG_HEAD_BYTES: Final = 4 * 1024 * 1024


class Source:
    """Bytes that can be read again.

    The first reading goes on where `head` stopped, so that looking at the head costs no reading of
    its own.

    Args:
        open_: begins to read at the first byte.
        size: bytes in all; None when that is known only at the end.
        crc32c: base64, where it is known beforehand.
        again: whether a second reading costs no more than the first. It does in a tar.gz, where
            everything in front of a member is unpacked for it.
    """

    def __init__(
        self,
        open_: Callable[[], Iterator[bytes]],
        size: int | None,
        crc32c: str = "",
        *,
        again: bool = True,
    ) -> None:
        self._open = open_
        self._stream: Iterator[bytes] | None = None
        self._head = b""
        self.size = size
        self.crc32c = crc32c
        self.again = again

    @classmethod
    def of(cls, data: bytes) -> "Source":
        """Bytes that are in memory."""
        return cls(lambda: iter((data,)), len(data))

    @property
    def head(self) -> bytes:
        """The first 64 KiB or more; everything when that is less."""
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

    def chunks(self) -> Generator[bytes]:
        """All bytes, from the first on."""
        stream, self._stream = self._stream, None
        if stream is None:
            stream = self._open()
        elif self._head:
            yield self._head
        yield from stream

    def close(self) -> None:
        """Give up a reading that was begun; the next one begins at the first byte."""
        stream, self._stream = self._stream, None
        if isinstance(stream, Generator):
            stream.close()


class Inspector(Protocol):
    """Looks at the bytes on their way."""

    def add(self, chunk: bytes) -> None:
        """Take in the next bytes."""

    def end(self) -> None:
        """Called when all have come and are known to be right.

        Raises:
            PermanentError: they must not be sent.
        """


class Body:
    """A source as a request body: nothing incomplete is stored.

    The last chunk is held back until length and checksum are known to be right. A source that
    changed, was cut or was damaged on the way so breaks the request off and leaves nothing behind.
    """

    def __init__(self, source: Source, inspector: Inspector | None = None) -> None:
        self._source = source
        self._inspector = inspector
        # Of all that was sent, once it was.
        self.sent: Checksum | None = None

    def __iter__(self) -> Iterator[bytes]:
        checksum = Checksum()
        length = 0
        held = b""
        for chunk in self._source.chunks():
            if held:
                yield held
            checksum.add(chunk)
            length += len(chunk)
            if self._inspector is not None:
                self._inspector.add(chunk)
            held = chunk
        self._check(length, checksum.text)
        self.sent = checksum
        if held:
            yield held

    def _check(self, length: int, checksum: str) -> None:
        if self._source.size not in (None, length):
            raise RetryableError("unavailable")
        if self._source.crc32c not in ("", checksum):
            raise RetryableError("unavailable")
        if self._inspector is not None:
            self._inspector.end()


class SizedBody(Body):
    """A body that is sent with Content-Length."""

    def __init__(self, source: Source, size: int, inspector: Inspector | None = None) -> None:
        super().__init__(source, inspector)
        self._size = size

    def __len__(self) -> int:
        return self._size


def body_of(source: Source, inspector: Inspector | None = None) -> Body:
    """A body with Content-Length where the size is known, else in HTTP chunks."""
    if source.size is None:
        return Body(source, inspector)
    return SizedBody(source, source.size, inspector)


def object_source(
    ref: ObjectRef, size: int, crc32c: str, buckets: Buckets, deadline: Deadline
) -> Source:
    """An object as a source: one request for each reading."""

    def read() -> Iterator[bytes]:
        with buckets.open(ref, deadline) as response:
            if response.headers.get("x-goog-stored-content-encoding", "identity") != "identity":
                # Cloud Storage unpacks such an object on the way. Size and checksum in the event
                # are those of the packed bytes.
                source.size = None
                source.crc32c = ""
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
            raise unsupported(f"larger than {limit_bytes} bytes")
    return bytes(data)


def heads_of(source: Source) -> Iterator[bytes]:
    """The head of a source, and longer and longer ones up to 4 MiB, without a second reading."""
    head = source.head
    yield head
    while len(head) < _LONG_HEAD_BYTES:
        longer = source.read_head(min(4 * len(head), _LONG_HEAD_BYTES))
        if len(longer) == len(head):
            return
        head = longer
        yield head


def header_of(source: Source) -> Header:
    """What a DICOM file says it is.

    A header larger than 4 MiB costs one more reading, where a second reading is allowed.

    Raises:
        PermanentError: as part10.read_header; unsupported_input also when the header is too large
            and the source can be read only once.
    """
    for head in heads_of(source):
        try:
            return read_header([head], whole=source.size == len(head))
        except MoreNeededError:
            pass  # it is longer
    if not source.again:
        raise unsupported("its UIDs come too late to look for in a tar.gz")
    with contextlib.closing(source.chunks()) as data:
        return read_header(data)
