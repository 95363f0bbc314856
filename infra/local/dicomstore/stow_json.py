"""Store from DICOM JSON metadata and bulk parts: they become a Part 10 file (sheet 3.1, form 3)."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID

from infra.local.dicomstore import choices, media, rewrite
from infra.local.dicomstore.codestream import jpeg_syntax
from infra.local.dicomstore.rows import Uids
from infra.local.dicomstore.scan import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    ITEM,
    PIECE,
    SEQUENCE_END,
    UNDEFINED,
)
from infra.local.dicomstore.stow import Outcome, Receiver, RejectedError, Stream, feed

JSON_MAX = 256 << 20  # bytes of the JSON part
# Its limits, because pydicom makes an object of more than a kilobyte of each element and item.
MAX_OBJECTS, MAX_VALUES = 250_000, 1_000_000
PIXEL_DATA, SYNTAX, CHARACTER_SET = "7FE00010", "00020010", "00080005"
TAG = re.compile("[0-9A-F]{8}")
REQUIRED = ("00080016", "00080018", "0020000D", "0020000E")
JPEG = "1.2.840.10008.1.2.4."
SYNTAXES_OF = {
    "image/jpeg": (JPEG + "50", JPEG + "51", JPEG + "57", JPEG + "70"),
    "image/jls": (JPEG + "80", JPEG + "81"),
    "image/jp2": (JPEG + "90", JPEG + "91"),
    "image/jpx": (JPEG + "92", JPEG + "93"),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
}
NATIVE = (IMPLICIT_LE, EXPLICIT_LE)


class Bulk(NamedTuple):
    """A part that came after the JSON: its Content-Type and its bytes."""

    kind: str
    parameters: dict[str, str]
    path: Path


class JsonRequest:
    """Reads the parts, then stores each data set."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._json = bytearray()
        self._bulk: dict[str, Bulk] = {}
        self._used: set[str] = set()
        self._paths: list[Path] = []
        self._parts = 0
        self._has_syntax = False
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        self._file: BinaryIO | None = None

    def run(self, stream: Stream, boundary: str) -> None:
        """Store what the body holds. Raises ApiError 400: not multipart, or the first part is no
        array."""
        callbacks: dict[str, Any] = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._opened,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }
        try:
            feed(stream, boundary, callbacks, self._end)  # type: ignore[arg-type]
            datasets = self._datasets()
            if self._bulk.keys() - {uri for dataset in datasets for _, uri in _uris(dataset)}:
                raise media.ApiError(
                    choices.UNNAMED_PART, "no BulkDataURI names a part's Content-Location", "array"
                )
            for dataset in datasets:
                self._store(dataset)
        finally:
            for path in self._paths:
                path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._parts += 1
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _opened(self) -> None:
        kind, parameters = media.parse(self._headers.get("content-type", ""))
        if self._parts == 1:
            if kind != "application/dicom+json":
                raise media.ApiError(400, "the first part is not application/dicom+json", "array")
            self._has_syntax = "transfer-syntax" in parameters
            return
        _, path = self._receiver.index.new_file()
        self._paths.append(path)
        self._file = path.open("wb")
        location = self._headers.get("content-location", "")
        if location in self._bulk:
            raise media.ApiError(400, "two parts have the same Content-Location", "array")
        self._bulk[location] = Bulk(kind, parameters, path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file:
            self._file.write(memoryview(data)[start:end])
        else:
            self._json += data[start:end]
            if len(self._json) > JSON_MAX:
                raise media.ApiError(400, "the JSON part is too large", "array")

    def _end(self) -> None:
        if self._file:
            file, self._file = self._file, None
            file.close()

    def _datasets(self) -> list[dict[str, Any]]:
        if b'"InlineBinary"' in self._json and not self._has_syntax:
            raise _malformed(
                "InlineBinary needs a transfer-syntax in the first part's Content-Type"
            )
        objects = self._json.count(b"{")
        values = self._json.count(b",")
        if objects > MAX_OBJECTS or values > MAX_VALUES:
            raise _malformed("the JSON part holds too many attributes")
        try:
            datasets: Any = json.loads(self._json)
        except (ValueError, RecursionError) as error:
            raise _malformed("the first part is not JSON") from error
        if not _are_datasets(datasets):
            raise _malformed("the first part is not an array of data sets")
        return list(datasets)

    def _store(self, dataset: dict[str, Any]) -> None:
        uids = Uids(
            _first(dataset, "0020000D"),
            _first(dataset, "0020000E"),
            _first(dataset, "00080018"),
        )
        try:
            self._claim(dataset)
            with self._receiver.new_file() as (name, path, file):
                _write(file, dataset, self._bulk)
                self._receiver.take(name, path, file)
        except RejectedError as error:
            outcome = Outcome(uids, _first(dataset, "00080016"), str(error))
            self._receiver.outcomes.append(outcome)

    def _claim(self, dataset: dict[str, Any]) -> None:
        named = {uri for _, uri in _uris(dataset)}
        if named & self._used:
            raise RejectedError("A BulkDataURI must be unique in the whole request.")
        self._used |= named


def _malformed(message: str) -> media.ApiError:
    return media.ApiError(400, message, "array")


def _are_datasets(found: Any) -> bool:
    """Whether JSON is an array of objects of objects."""
    if not isinstance(found, list):
        return False
    return all(map(_is_dataset, found))


def _is_dataset(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    return all(isinstance(element, dict) for element in found.values())


def _uris(dataset: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each BulkDataURI and the element it is for: its tag, or `sequence/index/tag`."""
    for tag, element in dataset.items():
        if not isinstance(element, dict):
            continue  # not an element but part of a person's name
        if "BulkDataURI" in element:
            yield tag, str(element["BulkDataURI"])
        values = element.get("Value")
        if not isinstance(values, list):
            continue
        for number, item in enumerate(values):
            if isinstance(item, dict):
                for inner, uri in _uris(item):
                    yield f"{tag}/{number}/{inner}", uri


def _first(dataset: dict[str, Any], tag: str) -> str:
    """An attribute's first value; none when it is not ASCII, as every UID and code is."""
    values = dataset.get(tag, {}).get("Value")
    if not isinstance(values, list) or not values:
        return ""
    value = str(values[0] or "")
    if not value.isascii():
        return ""
    return value


def _check(dataset: dict[str, Any]) -> None:
    """Check the service's rules for a data set (fact sheet section 3.1).

    Raises:
        RejectedError: the first rule that it breaks.
    """
    syntax = _first(dataset, SYNTAX)
    if not syntax or syntax in (EXPLICIT_BE, DEFLATED_LE):
        raise RejectedError(f"TransferSyntaxUID (0002,0010) is missing or not supported: {syntax}")
    if _first(dataset, CHARACTER_SET) != "ISO_IR 192":
        raise RejectedError("SpecificCharacterSet (0008,0005) must be ISO_IR 192.")
    for tag in REQUIRED:
        if not _first(dataset, tag):
            raise RejectedError(f"The required attribute {tag} is missing.")
    for tag in dataset:
        if not TAG.fullmatch(tag):
            raise RejectedError(
                "An attribute's name is not a tag of eight hexadecimal digits in upper case."
            )
    _check_bulk(dataset)


def _check_bulk(dataset: dict[str, Any]) -> None:
    """At most one bulk data part, not inside a sequence, and PixelData only as such.

    Raises:
        RejectedError: as _check.
    """
    uris = dict(_uris(dataset))
    is_in_sequence = any("/" in tag for tag in uris)
    if len(uris) > 1 or is_in_sequence:
        raise RejectedError("More than one BulkDataURI in an instance, or one inside a sequence.")
    if PIXEL_DATA in dataset and PIXEL_DATA not in uris:
        raise RejectedError("PixelData (7FE0,0010) must be a bulk data part.")


def _write(file: BinaryIO, dataset: dict[str, Any], parts: dict[str, Bulk]) -> None:
    """Write the Part 10 file that a data set describes.

    Raises:
        RejectedError: as _check.
    """
    _check(dataset)
    syntax = _first(dataset, SYNTAX)
    tag, uri = next(_uris(dataset), ("", ""))
    if not tag:
        file.write(_part10(dataset, dataset, syntax))
        return
    part = _part(tag, uri, syntax, parts)
    if choices.PART_SYNTAX_FROM_CODESTREAM and part.kind == "image/jpeg":
        with part.path.open("rb") as source:
            syntax = jpeg_syntax(source.read(PIECE), syntax)
    before = {key: value for key, value in dataset.items() if key < tag}
    after = {key: value for key, value in dataset.items() if key > tag}
    file.write(_part10(before, dataset, syntax))
    _write_bulk(file, tag, dataset[tag].get("vr", "OB"), syntax, part)
    file.write(_encoded(after, syntax))


def _part10(before: dict[str, Any], dataset: dict[str, Any], syntax: str) -> bytes:
    """Preamble, group 0002 and the attributes before the bulk one, without those of group 0002."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID(_first(dataset, "00080016"))
    meta.MediaStorageSOPInstanceUID = UID(_first(dataset, "00080018"))
    group_2 = DicomBytesIO()
    write_file_meta_info(group_2, meta, enforce_standard=True)
    others = {tag: value for tag, value in before.items() if not tag.startswith("0002")}
    preamble = bytes(128) + b"DICM"
    return preamble + group_2.getvalue() + _encoded(others, syntax)


def _encoded(dataset: dict[str, Any], syntax: str) -> bytes:
    """Attributes as bytes. Raises RejectedError: pydicom cannot make a data set of them, or cannot
    write it."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, syntax == IMPLICIT_LE
    try:
        write_dataset(out, Dataset.from_json(dataset))
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RecursionError,
        OSError,
    ) as error:
        raise RejectedError(f"The JSON is not a DICOM data set: {type(error).__name__}") from error
    return out.getvalue()


def _part(tag: str, uri: str, syntax: str, parts: dict[str, Bulk]) -> Bulk:
    """The part that a BulkDataURI names. Raises RejectedError: there is none, or it does not fit
    the transfer syntax (fact sheet 3.1)."""
    if uri not in parts:
        raise RejectedError(f"No part has the Content-Location that {tag} names.")
    part = parts[uri]
    if not _fits(part, tag, syntax):
        raise RejectedError(f"A part of type {part.kind} does not fit transfer syntax {syntax}.")
    return part


def _fits(part: Bulk, tag: str, syntax: str) -> bool:
    """Whether a part can be the value of this attribute in this transfer syntax."""
    is_pixel_data = tag == PIXEL_DATA
    is_same_syntax = part.parameters.get("transfer-syntax", syntax) == syntax
    if part.kind == "application/octet-stream":
        return is_same_syntax or not is_pixel_data or syntax in NATIVE
    if not is_pixel_data or not is_same_syntax:
        return False
    return syntax in SYNTAXES_OF.get(part.kind, ())


def _write_bulk(file: BinaryIO, tag: str, vr: str, syntax: str, part: Bulk) -> None:
    """Write an element whose value is a part. Raises RejectedError: its VR has no bulk data."""
    if vr not in ("OB", "OW", "UN"):
        raise RejectedError("BulkDataURI is for VR OB, OW and UN.")
    number = int(tag, 16)
    size = part.path.stat().st_size
    padding = b"\0" * (size % 2)
    length = size + len(padding)
    encapsulated = tag == PIXEL_DATA and syntax not in NATIVE
    if encapsulated:
        # An empty basic offset table, then the part as one fragment (PS3.5 A.4).
        file.write(rewrite.header(number, "OB", UNDEFINED, implicit=False))
        file.write(rewrite.mark(ITEM, 0))
        file.write(rewrite.mark(ITEM, length))
    else:
        is_implicit = syntax == IMPLICIT_LE
        file.write(rewrite.header(number, vr, length, implicit=is_implicit))
    with part.path.open("rb") as source:
        shutil.copyfileobj(source, file, PIECE)
    file.write(padding)
    if encapsulated:
        file.write(rewrite.mark(SEQUENCE_END, 0))
