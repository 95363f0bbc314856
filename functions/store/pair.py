"""DICOM JSON metadata and a JPEG as one instance (multipart/related;
type="application/dicom+json").

The DICOM store makes the Part 10 file of them (fact sheet section 3.1); here the metadata is
checked and completed with what a person need not write: the character set, the transfer syntax, and
where the pixel data comes from.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from functions.common.checksum import Checksum
from functions.common.clients import transport
from functions.common.clients.dicomweb import DicomStore
from functions.common.deadline import Deadline
from functions.common.dicom import multipart
from functions.common.errors import NothingToStoreError, PermanentError, RetryableError
from functions.common.resources import Resource, is_uid
from functions.store.sources import Source, body_of

METADATA_LIMIT_BYTES: Final = 1024 * 1024  # read, it may take 25 times as much memory
JSON_ENDINGS: Final = (".json",)
JPEG_ENDINGS: Final = (".jpg", ".jpeg")

_CHARACTER_SET, _CLASS, _INSTANCE = "00080005", "00080016", "00080018"
_STUDY, _SERIES, _SYNTAX, _PIXELS = "0020000D", "0020000E", "00020010", "7FE00010"
_UTF8: Final = "ISO_IR 192"  # the only one that the service takes
_URI: Final = "jpeg-image"
# JPEG's start-of-frame marker and the transfer syntax of what follows it (PS3.5 annex A.4);
# baseline where in doubt.
_BASELINE: Final = "1.2.840.10008.1.2.4.50"
_SYNTAXES: Final = {0xC0: _BASELINE, 0xC1: "1.2.840.10008.1.2.4.51", 0xC3: "1.2.840.10008.1.2.4.70"}
_GONE: Final = (204, 404, 410)


@dataclass(frozen=True)
class Metadata:
    """One data set in DICOM JSON (PS3.18 annex F), complete but for the transfer syntax."""

    resource: Resource
    attributes: dict[str, Any]
    uri: str


def stem_of(name: str, endings: tuple[str, ...]) -> str:
    """The name without its ending, which both halves share; empty when it has none of the
    endings."""
    ending = next((e for e in endings if name.lower().endswith(e)), "")
    return name[: -len(ending)] if ending else ""


def parse_metadata(text: bytes) -> Metadata:
    """Read and complete the metadata.

    Raises:
        PermanentError: unsupported_input, where something is missing or the service would not take
            it; as NothingToStoreError when it is other JSON.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise NothingToStoreError("neither DICOM nor readable JSON") from None
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict) or not any(
        key in document for key in (_STUDY, _SERIES, _INSTANCE, _CLASS)
    ):
        raise NothingToStoreError("JSON that is not the metadata of one instance")
    uids = [_value(document, tag) for tag in (_STUDY, _SERIES, _INSTANCE, _CLASS)]
    if not all(map(is_uid, uids)):
        raise PermanentError("unsupported_input", "a UID is missing or malformed")
    if _value(document, _CHARACTER_SET) not in ("", _UTF8):
        raise PermanentError(
            "unsupported_input", "metadata in another character set than ISO_IR 192"
        )
    pixels = document.get(_PIXELS) or {}
    uri = pixels.get("BulkDataURI", _URI) if isinstance(pixels, dict) else None
    others = any(
        isinstance(a, dict) and "BulkDataURI" in a for tag, a in document.items() if tag != _PIXELS
    )
    if (
        others
        or not isinstance(uri, str)
        or not uri.isascii()
        or not uri.isprintable()
        or "InlineBinary" in pixels
    ):
        raise PermanentError("unsupported_input", "bulk data that is not the JPEG")
    document[_CHARACTER_SET] = {"vr": "CS", "Value": [_UTF8]}
    document[_PIXELS] = {"vr": "OB", "BulkDataURI": uri}
    return Metadata(Resource(*uids[:3]), document, uri)


class Pair:
    """Metadata and a JPEG as an instance to be stored."""

    crc32c: Final = ""  # the file is made by the store

    def __init__(self, metadata: Metadata, jpeg: Source) -> None:
        self.resource = metadata.resource
        self._metadata = metadata
        self._jpeg = jpeg
        self._boundary = multipart.new_boundary()
        self.content_type = (
            f'multipart/related; type="application/dicom+json"; boundary={self._boundary}'
        )

    @cached_property
    def _syntax(self) -> str:
        return _value(self._metadata.attributes, _SYNTAX) or _syntax_of(self._jpeg.head)

    def body(self) -> Iterable[bytes]:
        """The request's body."""
        attributes = {**self._metadata.attributes, _SYNTAX: {"vr": "UI", "Value": [self._syntax]}}
        text = json.dumps([attributes])
        # Inline binary values are little endian; only then does the service ask for the part's
        # transfer syntax.
        kind = "application/dicom+json" + (
            "; transfer-syntax=1.2.840.10008.1.2.1" if '"InlineBinary"' in text else ""
        )
        first = (
            f"--{self._boundary}\r\nContent-Type: {kind}\r\n\r\n{text}\r\n"
            f"--{self._boundary}\r\nContent-Location: {self._metadata.uri}\r\n"
            f"Content-Type: image/jpeg; transfer-syntax={self._syntax}\r\n\r\n"
        ).encode()
        last = f"\r\n--{self._boundary}--\r\n".encode()

        def read() -> Iterator[bytes]:
            yield first
            yield from body_of(self._jpeg)
            yield last

        size = None if self._jpeg.size is None else len(first) + self._jpeg.size + len(last)
        return body_of(Source(read, size))

    def same_in(self, store: DicomStore, deadline: Deadline) -> bool | None:
        """Compare with the attributes and the frame that the store gives back."""
        stored = self._stored_attributes(store, deadline)
        if stored is None:
            return None
        for tag, attribute in self._metadata.attributes.items():
            if (
                tag != _PIXELS
                and not tag.startswith("0002")
                and _plain(attribute) != _plain(stored.get(tag))
            ):
                return False
        accept = f'multipart/related; type="image/jpeg"; transfer-syntax={self._syntax}'
        with store.get(self.resource, ("frames", "1"), accept, deadline) as answer:
            if answer.status_code != 200:
                transport.drain(answer)
                return False
            stored_checksum = Checksum()
            for piece in multipart.read(
                transport.chunks(answer, deadline), answer.headers.get("Content-Type", "")
            ):
                if isinstance(piece, bytes):
                    stored_checksum.add(piece)
        ours = Checksum()
        for chunk in self._jpeg.chunks():
            ours.add(chunk)
        same = stored_checksum.text == ours.text
        ours.add(b"\0")  # an odd length is padded (PS3.5 annex A.4)
        return same or stored_checksum.text == ours.text

    def _stored_attributes(self, store: DicomStore, deadline: Deadline) -> dict[str, Any] | None:
        with store.get(self.resource, ("metadata",), "application/dicom+json", deadline) as answer:
            if answer.status_code in _GONE:
                transport.drain(answer)
                return None
            if answer.status_code != 200:
                raise RetryableError("unavailable")
            text = transport.read_all(answer, deadline, 4 * METADATA_LIMIT_BYTES)
        try:
            document = json.loads(text)
        except ValueError:
            raise RetryableError("unavailable") from None
        found = document[0] if isinstance(document, list) and document else document
        return found if isinstance(found, dict) else {}


def _value(attributes: dict[str, Any], tag: str) -> str:
    attribute = attributes.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _plain(attribute: Any) -> Any:
    """An attribute as text without what may differ between two ways of writing the same."""
    if isinstance(attribute, dict):
        kept = {key: _plain(value) for key, value in attribute.items()}
        return {key: value for key, value in kept.items() if value not in ("", [], {})}
    if isinstance(attribute, list):
        return [_plain(value) for value in attribute]
    if isinstance(attribute, float) and attribute.is_integer():
        attribute = int(attribute)
    return "" if attribute is None else str(attribute).strip()


def _syntax_of(head: bytes) -> str:
    """The transfer syntax of a JPEG, by its first start-of-frame marker."""
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _SYNTAXES.get(marker, _BASELINE)
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return _BASELINE
