"""The how-to's multipart-request.file: the whole body of a store request as a file.

Its first part is the metadata of one instance, its second part the JPEG. What is sent is made anew
from the two, so that they are checked and completed like a pair of files.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from functions.common.dicom import dicomjson, multipart
from functions.common.dicom.multipart import MalformedError, PartStart, Piece
from functions.store import metadata
from functions.store.instances import JpegInstance
from functions.store.metadata import SYNTAX, Metadata
from functions.store.refusals import rejected, unsupported
from functions.store.source import Source, body_of, heads_of

_BOUNDARY: Final = re.compile(rb"(?:\r\n)?--([^\r\n]{1,70})\r\n")


def instance_of(source: Source) -> JpegInstance:
    """The instance in a file that sniff() calls `multipart`.

    Raises:
        PermanentError: unsupported_input, where it does not consist of the metadata of one instance
            and a JPEG; rejected, where the two contradict each other.
        RetryableError: the source could not be read.
    """
    text, headers = _first_part(source)
    described = metadata.parse(text)
    _check(described, headers)
    return JpegInstance(described, Source(lambda: _second_part(source), None))


def _first_part(source: Source) -> tuple[bytes, Mapping[str, str]]:
    """The metadata, and the headers of the part that follows it."""
    for head in heads_of(source):
        text = bytearray()
        starts = []
        with contextlib.suppress(MalformedError):  # the head is not the whole file
            for piece in _pieces(source, [head]):
                if isinstance(piece, PartStart):
                    starts.append(piece.headers)
                elif isinstance(piece, bytes) and len(starts) == 1:
                    text += piece
                if len(starts) == 2:
                    return bytes(text), starts[1]
        if len(text) > metadata.LIMIT_BYTES:
            raise unsupported(f"metadata larger than {metadata.LIMIT_BYTES} bytes")
    raise unsupported("a multipart file that is damaged or cut, or holds metadata alone")


def _pieces(source: Source, data: Iterable[bytes]) -> Iterator[Piece]:
    """The parts in the source, or in the beginning of it."""
    found = _BOUNDARY.match(source.head)
    assert found is not None, "sniff() has found it"
    boundary = found[1].decode("latin-1")
    return multipart.read(data, f"multipart/related; boundary={boundary}")


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
    try:
        # A body comes to its end only with the right length and checksum.
        for piece in _pieces(source, body_of(source)):
            if isinstance(piece, PartStart):
                parts += 1
            elif isinstance(piece, bytes) and parts == 2:
                yield piece
    except MalformedError:
        raise unsupported("a multipart file that is damaged or cut") from None
    if parts != 2:
        raise unsupported("a multipart file with more than one JPEG")
