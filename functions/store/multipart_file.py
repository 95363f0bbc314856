"""The how-to's multipart-request.file: the whole body of a store request as a file.

Its first part is the metadata of one instance, its second part the JPEG. A new request is made of
the two, so that they are checked and completed like a pair of files.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from functions.common.dicom import dicomjson, multipart
from functions.common.dicom.multipart import MalformedError, Part
from functions.store import metadata
from functions.store.instances import JpegInstance
from functions.store.metadata import SYNTAX, Metadata
from functions.store.refusals import rejected, unsupported
from functions.store.source import Source

_BOUNDARY: Final = re.compile(rb"(?:\r\n)?--([^\r\n]{1,70})\r\n")
_DAMAGED: Final = "a multipart file that is damaged or truncated"
# The metadata, and the headers of the JPEG.
_BEGINNING_BYTES: Final = 2 * metadata.LIMIT_BYTES


def instance_of(source: Source) -> JpegInstance:
    """The instance in a file that sniff() calls `multipart`.

    Raises:
        PermanentError: unsupported_input, if it does not consist of the metadata of one instance
            and a JPEG; rejected, if the two contradict each other.
        RetryableError: the source could not be read.
    """
    parts = _parts([source.read_head(_BEGINNING_BYTES)], source)
    try:
        text = b"".join(next(parts).chunks())
        headers = next(parts).headers
    except (MalformedError, StopIteration):
        raise unsupported(f"{_DAMAGED}, or contains only metadata") from None
    if len(text) > metadata.LIMIT_BYTES:
        raise unsupported(f"metadata larger than {metadata.LIMIT_BYTES} bytes")
    described = metadata.parse(text)
    _check(described, headers)
    return JpegInstance(described, Source(lambda: _jpeg(source), None))


def _parts(data: Iterable[bytes], source: Source) -> Iterator[Part]:
    """The parts in a source's bytes, or in the beginning of them."""
    found = _BOUNDARY.match(source.head)
    assert found is not None, "sniff() has found it"
    boundary = found[1].decode("latin-1")
    return multipart.parts(data, f"multipart/related; boundary={boundary}")


def _check(described: Metadata, headers: Mapping[str, str]) -> None:
    """Check that the headers of the second part match the metadata (fact sheet section 3.1); a
    transfer syntax may be in either."""
    if headers.get("content-location", described.uri) != described.uri:
        raise unsupported("metadata that refers to a different part from the next one")
    kind, parameters = multipart.media_type(headers.get("content-type", ""))
    if kind != "image/jpeg":
        raise unsupported("a part whose Content-Type is not image/jpeg")
    syntax = parameters.get("transfer-syntax", "")
    stated = dicomjson.text(described.attributes, SYNTAX)
    if syntax and not stated:
        described.attributes[SYNTAX] = {"vr": "UI", "Value": [syntax]}
    elif syntax not in ("", stated):
        raise rejected("metadata and JPEG state different transfer syntaxes")


def _jpeg(source: Source) -> Iterator[bytes]:
    """The bytes of the second part."""
    try:
        for number, part in enumerate(_parts(source.checked_chunks(), source)):
            if number == 1:
                yield from part.chunks()
            elif number > 1:
                raise unsupported("a multipart file with more than one JPEG")
    except MalformedError:
        raise unsupported(_DAMAGED) from None
