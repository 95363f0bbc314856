"""DICOM JSON metadata of one instance (PS3.18 annex F) whose pixel data is a JPEG.

Missing attributes are filled in: the character set, the transfer syntax, the reference to the JPEG,
and attributes from the JPEG's own header. Metadata that contradicts the JPEG is refused: the DICOM
store would accept it (it derives none of these attributes, fact sheet section 3.1), but nobody
could decode it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from functions.common import jsonvalues
from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import INSTANCE_UID, SERIES_UID, STUDY_UID, DataSet
from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.resources import Resource
from functions.store.jpeg import Frame
from functions.store.refusals import rejected, unsupported

# Parsed, metadata takes up to 25 times as much memory.
LIMIT_BYTES: Final = 1024 * 1024
PIXELS: Final = "7FE00010"
SYNTAX: Final = "00020010"

_DEPTH_MAX: Final = 64
_CHARACTER_SET: Final = "00080005"
_CLASS: Final = "00080016"
# The only character set that the service accepts.
_UTF8: Final = "ISO_IR 192"
_URI: Final = "jpeg-image"
_OTHER_BULK_DATA: Final = "bulk data that is not the JPEG"
_SAMPLES: Final = "00280002"
_COLOURS: Final = "00280004"
_PLANAR: Final = "00280006"
_FRAMES: Final = "00280008"
_ROWS: Final = "00280010"
_COLUMNS: Final = "00280011"
_ALLOCATED: Final = "00280100"
_STORED: Final = "00280101"
_HIGH_BIT: Final = "00280102"
_SIGN: Final = "00280103"
_NAMES: Final = {
    SYNTAX: "TransferSyntaxUID",
    _COLOURS: "PhotometricInterpretation",
    _SAMPLES: "SamplesPerPixel",
    _ROWS: "Rows",
    _COLUMNS: "Columns",
    _ALLOCATED: "BitsAllocated",
    _STORED: "BitsStored",
}
# The possible names of three samples, by the JPEG's header; the usual one first. Only the lossy
# processes have YBR_FULL_422 (PS3.5 section 8.2.1).
_THREE_SAMPLES: Final = {
    "RGB": ("RGB",),
    "YBR": ("YBR_FULL_422", "YBR_FULL"),
    "": ("YBR_FULL_422", "YBR_FULL", "RGB"),
}
_THREE_SAMPLES_LOSSLESS: Final = {
    "RGB": ("RGB",),
    "YBR": ("YBR_FULL",),
    "": ("RGB", "YBR_FULL"),
}
_ONE_SAMPLE: Final[tuple[str, ...]] = ("MONOCHROME2", "MONOCHROME1", "PALETTE COLOR")


@dataclass(frozen=True)
class Metadata:
    """One data set, complete except for attributes from its JPEG."""

    resource: Resource
    attributes: DataSet
    # Names the JPEG in the store request.
    uri: str


def parse(text: bytes) -> Metadata:
    """Read metadata.

    Raises:
        PermanentError: unsupported_input, if something is missing or the service would not accept
            it; NothingToStoreError when it is other JSON.
    """
    data_set = _data_set(text)
    if is_deep(data_set):
        raise unsupported("sequences are nested too deeply")
    resource = dicomjson.instance(data_set)
    if resource is None or not dicomjson.uid(data_set, _CLASS):
        raise unsupported("a UID is missing or malformed")
    if dicomjson.text(data_set, _CHARACTER_SET) not in ("", _UTF8):
        raise unsupported("metadata in another character set than UTF-8")
    uri = _uri(data_set)
    data_set[_CHARACTER_SET] = {"vr": "CS", "Value": [_UTF8]}
    data_set[PIXELS] = {"vr": "OB", "BulkDataURI": uri}
    return Metadata(resource, data_set, uri)


def _data_set(text: bytes) -> DataSet:
    document = jsonvalues.parsed(text)
    if document is None:
        raise NothingToStoreError("neither DICOM nor readable JSON")
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    known = (STUDY_UID, SERIES_UID, INSTANCE_UID, _CLASS)
    if not isinstance(document, dict) or document.keys().isdisjoint(known):
        raise NothingToStoreError("JSON that is not the metadata of one instance")
    return document


def _uri(data_set: DataSet) -> str:
    """The metadata's URI of its pixel data."""
    for tag, attribute in data_set.items():
        if tag != PIXELS and isinstance(attribute, dict) and "BulkDataURI" in attribute:
            raise unsupported(_OTHER_BULK_DATA)
    pixels = data_set.get(PIXELS)
    if not pixels:
        return _URI
    if not isinstance(pixels, dict) or "InlineBinary" in pixels:
        raise unsupported(_OTHER_BULK_DATA)
    uri = pixels.get("BulkDataURI", _URI)
    # It is sent in a header of the request.
    if not isinstance(uri, str) or not uri.isascii() or not uri.isprintable():
        raise unsupported(_OTHER_BULK_DATA)
    if not uri:
        raise unsupported("an empty BulkDataURI")
    return uri


def is_deep(value: object) -> bool:
    """Whether JSON is nested deeper than any data set; checked without recursion."""
    level = [value]
    for _ in range(_DEPTH_MAX):
        if not level:
            return False
        level = [child for parent in level for child in _children(parent)]
    return bool(level)


def _children(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def with_jpeg(metadata: Metadata, frame: Frame) -> DataSet:
    """The attributes, compared with the JPEG (PS3.5 section 8.2.1), with those from the JPEG added.

    Raises:
        PermanentError: rejected, if the two contradict each other; the detail names the
            contradiction.
    """
    attributes = dict(metadata.attributes)
    if not frame.transfer_syntaxes:
        raise _contradiction(
            "the DICOM store takes a baseline, extended or lossless JPEG; this one is progressive"
            " or of another kind"
        )
    if frame.samples not in (1, 3):
        raise _contradiction(f"the JPEG has {frame.samples} samples a pixel, DICOM 1 or 3")
    if _has(attributes, _FRAMES) and dicomjson.number(attributes, _FRAMES) != 1:
        raise _contradiction("NumberOfFrames is not 1, and the JPEG is one frame")
    for tag, numbers in _numbers_of(frame).items():
        _fill_in_or_compare_number(attributes, tag, numbers)
    _fill_in_or_compare_text(attributes, SYNTAX, "UI", frame.transfer_syntaxes)
    if frame.samples == 3:
        _fill_in(attributes, _PLANAR, "US", 0)
    _fill_in_or_compare_text(attributes, _COLOURS, "CS", _colours_of(frame))
    _fill_in(attributes, _HIGH_BIT, "US", dicomjson.number(attributes, _STORED) - 1)
    _fill_in(attributes, _SIGN, "US", 0)
    return attributes


def _colours_of(frame: Frame) -> tuple[str, ...]:
    """The possible photometric interpretations; the usual one first."""
    if frame.samples == 1:
        return _ONE_SAMPLE
    if frame.is_lossless:
        return _THREE_SAMPLES_LOSSLESS[frame.colour]
    return _THREE_SAMPLES[frame.colour]


def _numbers_of(frame: Frame) -> dict[str, list[int]]:
    """The possible values of each attribute; the usual one first."""
    allocated = 8
    if frame.precision > 8:
        allocated = 16
    stored = [frame.precision]
    if frame.is_lossless:
        # It may be coded with all bits that are allocated: its precision does not tell how many
        # of them are stored.
        stored.extend(range(1, allocated + 1))
    numbers = {
        _SAMPLES: [frame.samples],
        _COLUMNS: [frame.columns],
        _ALLOCATED: [allocated],
        _STORED: stored,
    }
    if frame.rows:
        numbers[_ROWS] = [frame.rows]
    return numbers


def _fill_in_or_compare_number(attributes: DataSet, tag: str, allowed: list[int]) -> None:
    _fill_in(attributes, tag, "US", allowed[0])
    stated = dicomjson.number(attributes, tag)
    if stated not in allowed:
        raise _contradiction(
            f"{_NAMES[tag]} is {stated} in the metadata and {allowed[0]} in the JPEG"
        )


def _fill_in_or_compare_text(
    attributes: DataSet, tag: str, vr: str, allowed: tuple[str, ...]
) -> None:
    _fill_in(attributes, tag, vr, allowed[0])
    if dicomjson.text(attributes, tag) not in allowed:
        raise _contradiction(f"{_NAMES[tag]} is not that of the JPEG, {' or '.join(allowed)}")


def _has(attributes: DataSet, tag: str) -> bool:
    return bool(dicomjson.values(attributes, tag))


def _fill_in(attributes: DataSet, tag: str, vr: str, value: int | str) -> None:
    if not _has(attributes, tag):
        attributes[tag] = {"vr": vr, "Value": [value]}


def _contradiction(detail: str) -> PermanentError:
    return rejected(f"metadata and JPEG contradict each other: {detail}")
