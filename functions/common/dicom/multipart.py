"""Reading multipart/related as a stream, and a boundary for writing it."""

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from functions.common.errors import RetryableError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_PARAMETER: Final = re.compile(r';\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]+)')
_PREAMBLE_LIMIT_BYTES: Final = 64 * 1024
# Of one part. The library's own limits, 8 headers of 4 KiB, are meant for forms.
_HEADERS_MAX: Final = 32
_HEADER_LIMIT_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class PartStart:
    """A part begins; header names are in lower case."""

    headers: dict[str, str]


@dataclass(frozen=True)
class PartEnd:
    """The part that began last is complete."""


Piece = PartStart | PartEnd | bytes


class MalformedError(RetryableError):
    """A body that is not multipart, or ends before its closing boundary.

    If it is a server's answer, a retry can help; if it is a file, it cannot.
    """

    def __init__(self) -> None:
        super().__init__("unavailable")


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """A Content-Type in lower case, and its parameters without quotes."""
    kind = header.partition(";")[0].strip().lower()
    found = _PARAMETER.findall(header)
    return kind, {name.lower(): value.strip('"') for name, value in found}


def new_boundary() -> str:
    """Long and random: a server once lost a file because a short boundary occurred in its pixel
    data."""
    return secrets.token_hex(24)


def read(chunks: Iterable[bytes], content_type: str) -> Iterator[Piece]:
    """The parts of a multipart/related body: for each a PartStart, its bytes in pieces, and a
    PartEnd.

    Args:
        chunks: the body as it arrives, cut anywhere.
        content_type: of the body; holds the boundary.

    Raises:
        MalformedError: the body is not multipart, or ends before its closing boundary.
    """
    boundary = media_type(content_type)[1].get("boundary", "")
    if not boundary:
        raise MalformedError
    try:
        reader = _Reader(boundary)
        for chunk in _without_preamble(chunks, boundary.encode()):
            yield from reader.feed(chunk)
    # Also for the Content-Type: a boundary may be longer than the library allows.
    except FormParserError as error:
        raise MalformedError from error
    if not reader.ended:
        raise MalformedError


class Part:
    """One part of a multipart body.

    Its bytes are read from the body as they arrive, so read them before the next part is requested;
    unread bytes are skipped then.

    Args:
        headers: names in lower case.
        pieces: of the body, after this part's PartStart.
    """

    def __init__(self, headers: dict[str, str], pieces: Iterator[Piece]) -> None:
        self.headers = headers
        self._pieces = pieces
        self._is_read = False

    def chunks(self) -> Iterator[bytes]:
        """The bytes that have not been read yet.

        Raises:
            RetryableError: unavailable, when the body ends within the part.
        """
        if self._is_read:
            return
        for piece in self._pieces:
            if not isinstance(piece, bytes):
                self._is_read = True
                return
            yield piece
        raise RetryableError("unavailable")

    def skip(self) -> None:
        """Read and drop the rest.

        Raises:
            RetryableError: as chunks.
        """
        for _ in self.chunks():
            pass


def parts(chunks: Iterable[bytes], content_type: str) -> Iterator[Part]:
    """The parts of a multipart/related body, each with its own stream.

    Args:
        chunks: the body as it arrives, cut anywhere.
        content_type: of the body; holds the boundary.

    Raises:
        RetryableError: as read.
    """
    pieces = read(chunks, content_type)
    for piece in pieces:
        if isinstance(piece, PartStart):
            part = Part(piece.headers, pieces)
            yield part
            part.skip()


def single(chunks: Iterable[bytes], content_type: str) -> Part:
    """A body that is not multipart, as a single part."""
    return Part({"content-type": content_type}, chain(chunks, (PartEnd(),)))


def _without_preamble(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes]:
    """The parser needs the first boundary at the start; RFC 2046 allows text before it."""
    # At the beginning of a line, and followed by the end of the line or of the whole body.
    opening = re.compile(rb"(?:\A|\n)(--" + re.escape(boundary) + rb")(?:\r|--)")
    stream = iter(chunks)
    head = b""
    for chunk in stream:
        head += chunk
        found = opening.search(head)
        if found:
            return chain((head[found.start(1) :],), stream)
        if len(head) > _PREAMBLE_LIMIT_BYTES:
            raise MalformedError
    return stream  # is at its end, without a boundary: `read` raises


class _Reader:
    """Turns the parser's callbacks into pieces."""

    def __init__(self, boundary: str) -> None:
        self.ended = False
        self._pieces: list[Piece] = []
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._add_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        self._parser = MultipartParser(
            boundary.encode(),
            callbacks,
            max_header_count=_HEADERS_MAX,
            max_header_size=_HEADER_LIMIT_BYTES,
        )

    def feed(self, chunk: bytes) -> list[Piece]:
        if not self.ended:  # text after the closing boundary is an epilogue
            self._parser.write(chunk)
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin(self) -> None:
        self._headers = {}

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        self._pieces.append(PartStart(self._headers))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _part_end(self) -> None:
        self._pieces.append(PartEnd())

    def _end(self) -> None:
        self.ended = True
