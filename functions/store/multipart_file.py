"""The how-to's multipart-request.file: the whole body of a store request as a file.

Its first part is the metadata of one instance, its second part the JPEG. What is sent is made anew
from the two, so that they are checked and completed like a pair of files.
"""

import contextlib
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Final

from functions.common.dicom import dicomjson, multipart
from functions.common.dicom.multipart import MalformedError, PartEnd, PartStart, Piece
from functions.store import metadata
from functions.store.instances import JpegInstance
from functions.store.metadata import SYNTAX, Metadata
from functions.store.refusals import rejected, unsupported
from functions.store.source import Source, body_of

_BOUNDARY: Final = re.compile(rb"(?:\r\n)?--([^\r\n]{1,70})\r\n")


def instance_of(source: Source) -> JpegInstance:
    """The instance in a file that sniff() calls `multipart`.

    Raises:
        PermanentError: unsupported_input, where it does not consist of the metadata of one instance
            and a JPEG; rejected, where the two contradict each other.
        RetryableError: the source could not be read.
    """
    with contextlib.closing(_pieces(source)) as pieces:
        text = _first_part(pieces)
        headers = _next_headers(pieces)
    described = metadata.parse(text)
    _check(described, headers)
    return JpegInstance(described, Source(lambda: _second_part(source), None))


def _pieces(source: Source) -> Generator[Piece]:
    """The parts of the file.

    Raises:
        PermanentError: unsupported_input, where it is not whole.
    """
    found = _BOUNDARY.match(source.head)
    assert found is not None, "sniff() has found it"
    boundary = found[1].decode("latin-1")
    try:
        # A body reads to the end only what has the right length and checksum.
        yield from multipart.read(body_of(source), f"multipart/related; boundary={boundary}")
    except MalformedError:
        raise unsupported("a multipart file that is damaged or cut") from None


def _first_part(pieces: Iterator[Piece]) -> bytes:
    text = bytearray()
    for piece in pieces:
        if isinstance(piece, PartEnd):
            break
        if isinstance(piece, bytes):
            text += piece
        if len(text) > metadata.LIMIT_BYTES:
            raise unsupported(f"metadata larger than {metadata.LIMIT_BYTES} bytes")
    return bytes(text)


def _next_headers(pieces: Iterator[Piece]) -> Mapping[str, str]:
    piece = next(pieces, None)
    if not isinstance(piece, PartStart):
        raise unsupported("a multipart file with metadata alone")
    return piece.headers


def _check(described: Metadata, headers: Mapping[str, str]) -> None:
    """The headers of the second part have to be those that the metadata speaks of (fact sheet
    section 3.1); a transfer syntax may stand in either."""
    if headers.get("content-location", described.uri) != described.uri:
        raise unsupported("metadata that names another part than the one that follows")
    kind, parameters = multipart.media_type(headers.get("content-type", ""))
    if kind != "image/jpeg":
        raise unsupported("a part that is not called image/jpeg")
    syntax = parameters.get("transfer-syntax", "")
    stated = dicomjson.text(described.attributes, SYNTAX)
    if syntax and not stated:
        described.attributes[SYNTAX] = {"vr": "UI", "Value": [syntax]}
    elif syntax not in ("", stated):
        raise rejected("metadata and JPEG state different transfer syntaxes")


def _second_part(source: Source) -> Iterator[bytes]:
    parts = 0
    with contextlib.closing(_pieces(source)) as pieces:
        for piece in pieces:
            if isinstance(piece, PartStart):
                parts += 1
            elif isinstance(piece, bytes) and parts == 2:
                yield piece
    if parts != 2:
        raise unsupported("a multipart file with more than one JPEG")
