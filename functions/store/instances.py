"""The two forms in which an instance is sent to the DICOM store: an unchanged DICOM file, or
metadata with a JPEG, of which the store makes the file (fact sheet section 3.1)."""

import contextlib
import copy
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

from functions.common.checksum import Checksum
from functions.common.clients.dicomweb import AS_STORED, DicomStore
from functions.common.clients.transport import Response, chunks, drain
from functions.common.deadline import Deadline
from functions.common.dicom import dicomjson, multipart
from functions.common.dicom.dicomjson import DataSet
from functions.common.dicom.part10 import Header, MoreNeededError, read_header
from functions.common.errors import RetryableError
from functions.store import jpeg, metadata
from functions.store.metadata import SYNTAX, Metadata
from functions.store.refusals import unsupported
from functions.store.same_metadata import is_same
from functions.store.source import Source, body_of

_GONE: Final = (204, 404, 410)
# The store may escape characters and add URLs.
_STORED_METADATA_BYTES: Final = 4 * metadata.LIMIT_BYTES

# Whether the store has the same under the instance's UIDs; None if it has nothing there.
Same = bool | None


class DicomFile:
    """A Part 10 file, sent unchanged.

    Raises:
        PermanentError: as read_header; unsupported_input also when the header is too large and the
            source can be read only once.
        RetryableError: the source could not be read.
    """

    content_type: Final = "application/dicom"

    def __init__(self, source: Source) -> None:
        self.resource = _header_of(source).resource
        self._source = source

    @property
    def crc32c(self) -> str:
        """The checksum of the file; empty while it is not known."""
        checksum = self._source.checksum
        if self._source.crc32c or checksum is None:
            return self._source.crc32c
        return checksum.text

    def body(self) -> Iterable[bytes]:
        """The request's body."""
        return body_of(self._source.checked_chunks(), self._source.size)

    def same_in(self, store: DicomStore, deadline: Deadline) -> Same:
        """Compare with the stored file."""
        with store.get(self.resource, (), AS_STORED, deadline) as answer:
            if not _is_there(answer):
                return None
            stored = _checksum(_part(answer, deadline))
        if not self.crc32c:
            for _ in self._source.checked_chunks():
                # Only its checksum is needed.
                pass
        return stored.text == self.crc32c


def _header_of(source: Source) -> Header:
    """The header of the file. A header larger than 4 MiB takes one more reading."""
    for head in source.heads():
        try:
            return read_header([head], whole=source.size == len(head))
        except MoreNeededError:
            # The header is longer.
            pass
    if not source.can_reread:
        raise unsupported("its UIDs are too far into the file for a tar.gz")
    with contextlib.closing(source.chunks()) as data:
        return read_header(data)


class JpegInstance:
    """Metadata and a JPEG."""

    # Unknown: the store makes the file.
    crc32c: Final = ""

    def __init__(self, described: Metadata, picture: Source) -> None:
        self.resource = described.resource
        self._metadata = described
        self._picture = picture
        self._boundary = multipart.new_boundary()

    @property
    def content_type(self) -> str:
        """Of the request."""
        kind = 'multipart/related; type="application/dicom+json"'
        return f"{kind}; boundary={self._boundary}"

    def body(self) -> Iterable[bytes]:
        """The request's body.

        Raises:
            PermanentError: rejected, if metadata and JPEG contradict each other, and while it is
                read if the JPEG is cut off.
        """
        first = self._first()
        last = f"\r\n--{self._boundary}--\r\n".encode()

        def read() -> Iterator[bytes]:
            yield first
            markers = jpeg.Markers()
            for chunk in self._picture.checked_chunks():
                markers.add(chunk)
                yield chunk
            markers.end()
            yield last

        size = self._picture.size
        if size is not None:
            size += len(first) + len(last)
        return body_of(read(), size)

    def _first(self) -> bytes:
        """The body up to the JPEG."""
        text = json.dumps([self._attributes])
        kind = "application/dicom+json"
        if '"InlineBinary"' in text:
            # The service requires it then; inline values are little endian.
            kind += "; transfer-syntax=1.2.840.10008.1.2.1"
        syntax = dicomjson.text(self._attributes, SYNTAX)
        return (
            f"--{self._boundary}\r\n"
            f"Content-Type: {kind}\r\n"
            "\r\n"
            f"{text}\r\n"
            f"--{self._boundary}\r\n"
            f"Content-Location: {self._metadata.uri}\r\n"
            f"Content-Type: image/jpeg; transfer-syntax={syntax}\r\n"
            "\r\n"
        ).encode()

    @cached_property
    def _attributes(self) -> DataSet:
        return metadata.with_jpeg(self._metadata, jpeg.frame_of(self._picture))

    def same_in(self, store: DicomStore, deadline: Deadline) -> Same:
        """Compare with the attributes and the frame from the store."""
        stored = self._stored_attributes(store, deadline)
        if stored is None:
            return None
        if not is_same(self._attributes, stored):
            return False
        return self._is_frame_same(store, deadline)

    def _stored_attributes(self, store: DicomStore, deadline: Deadline) -> DataSet | None:
        """The metadata in the store; None if there is none, and empty if it cannot be this one."""
        with store.get(self.resource, ("metadata",), "application/dicom+json", deadline) as answer:
            if not _is_there(answer):
                return None
            text = _up_to(chunks(answer, deadline), _STORED_METADATA_BYTES)
        for _, data_set in dicomjson.data_sets([text], _STORED_METADATA_BYTES):
            if not metadata.is_deep(data_set):
                return data_set
        return {}

    def _is_frame_same(self, store: DicomStore, deadline: Deadline) -> bool:
        syntax = dicomjson.text(self._attributes, SYNTAX)
        accept = f'multipart/related; type="image/jpeg"; transfer-syntax={syntax}'
        with store.get(self.resource, ("frames", "1"), accept, deadline) as answer:
            if answer.status_code != 200:
                drain(answer)
                return False
            stored = _checksum(_part(answer, deadline))
        ours = self._picture.checksum or _checksum(self._picture.chunks())
        padded = copy.copy(ours)
        # An odd length is padded (PS3.5 annex A.4).
        padded.add(b"\0")
        return stored.text in (ours.text, padded.text)


Instance = DicomFile | JpegInstance


def _is_there(answer: Response) -> bool:
    """Whether the answer has the resource; False if it does not exist."""
    if answer.status_code in _GONE:
        drain(answer)
        return False
    if answer.status_code != 200:
        raise RetryableError("unavailable")
    return True


def _up_to(pieces: Iterable[bytes], limit: int) -> bytes:
    """All the bytes; none if they are more than the limit."""
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > limit:
            return b""
    return bytes(data)


def _checksum(pieces: Iterable[bytes]) -> Checksum:
    checksum = Checksum()
    for piece in pieces:
        checksum.add(piece)
    return checksum


def _part(answer: Response, deadline: Deadline) -> Iterator[bytes]:
    """The only part of an answer, or its body if it is not multipart."""
    content_type = answer.headers.get("Content-Type", "")
    body = chunks(answer, deadline)
    if not content_type.lower().startswith("multipart/"):
        yield from body
        return
    for part in multipart.parts(body, content_type):
        yield from part.chunks()
