"""DICOM JSON metadata of one instance (PS3.18 annex F) whose pixel data is a JPEG.

What a person need not write is filled in: the character set, the transfer syntax, the reference to
the JPEG, and the attributes that the JPEG itself states. What contradicts the JPEG is refused: the
DICOM store would take it (it derives none of these attributes, fact sheet section 3.1), and nobody
could decode it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import INSTANCE_UID, SERIES_UID, STUDY_UID, DataSet
from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.resources import Resource
from functions.store.jpeg import Frame
from functions.store.refusals import rejected, unsupported

LIMIT_BYTES: Final = 1024 * 1024  # parsed, it takes up to 25 times as much memory
PIXELS: Final = "7FE00010"
SYNTAX: Final = "00020010"

_DEPTH_MAX: Final = 64
_CHARACTER_SET: Final = "00080005"
_CLASS: Final = "00080016"
_UTF8: Final = "ISO_IR 192"  # the only one that the service takes
_URI: Final = "jpeg-image"
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
    _SAMPLES: "SamplesPerPixel",
    _ROWS: "Rows",
    _COLUMNS: "Columns",
    _ALLOCATED: "BitsAllocated",
    _STORED: "BitsStored",
}
_ONE_SAMPLE: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_THREE_SAMPLES: Final = ("RGB", "YBR_FULL", "YBR_FULL_422")


@dataclass(frozen=True)
class Metadata:
    """One data set, complete but for what its JPEG states."""

    resource: Resource
    attributes: DataSet
    uri: str  # names the JPEG in the store request


def parse(text: bytes) -> Metadata:
    """Read metadata.

    Raises:
        PermanentError: unsupported_input, where something is missing or the service would not take
            it; as NothingToStoreError when it is other JSON.
    """
    data_set = _data_set(text)
    if is_deep(data_set):
        raise unsupported("sequences are nested too deep")
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
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise NothingToStoreError("neither DICOM nor readable JSON") from None
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    known = (STUDY_UID, SERIES_UID, INSTANCE_UID, _CLASS)
    if not isinstance(document, dict) or document.keys().isdisjoint(known):
        raise NothingToStoreError("JSON that is not the metadata of one instance")
    return document


def _uri(data_set: DataSet) -> str:
    """What the metadata calls its pixel data."""
    refused = unsupported("bulk data that is not the JPEG")
    for tag, attribute in data_set.items():
        if tag != PIXELS and isinstance(attribute, dict) and "BulkDataURI" in attribute:
            raise refused
    pixels = data_set.get(PIXELS)
    if not pixels:
        return _URI
    if not isinstance(pixels, dict) or "InlineBinary" in pixels:
        raise refused
    uri = pixels.get("BulkDataURI", _URI)
    # It goes into a header of the request.
    if not isinstance(uri, str) or not uri.isascii() or not uri.isprintable():
        raise refused
    return uri


def is_deep(value: object) -> bool:
    """Whether JSON is nested deeper than any data set is; told without recursion."""
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
    """The attributes with what the JPEG adds to them.

    Raises:
        PermanentError: rejected, where the two contradict each other; the detail says in what.
    """
    complete = dict(metadata.attributes)
    _Comparison(complete, frame).run()
    return complete


class _Comparison:
    """Compares a data set with its JPEG (PS3.5 section 8.2.1), and fills in what it leaves out."""

    def __init__(self, data_set: DataSet, frame: Frame) -> None:
        self._data_set = data_set
        self._frame = frame

    def run(self) -> None:
        self._compare_syntax()
        self._compare_frames()
        frame = self._frame
        if frame.samples not in (1, 3):
            raise _contradiction(f"the JPEG has {frame.samples} samples a pixel, DICOM 1 or 3")
        self._compare(_SAMPLES, frame.samples)
        if frame.rows:
            self._compare(_ROWS, frame.rows)
        self._compare(_COLUMNS, frame.columns)
        self._compare_bits()
        self._compare_colours()
        if frame.samples == 3:
            self._fill_in(_PLANAR, "US", 0)
        self._fill_in(_SIGN, "US", 0)

    def _compare_syntax(self) -> None:
        syntaxes = self._frame.transfer_syntaxes
        if not syntaxes:
            raise _contradiction(
                "the DICOM store takes a baseline, extended or lossless JPEG; this one is"
                " progressive or of another kind"
            )
        self._fill_in(SYNTAX, "UI", syntaxes[0])
        if dicomjson.text(self._data_set, SYNTAX) not in syntaxes:
            raise _contradiction(f"TransferSyntaxUID is not that of the JPEG, {syntaxes[0]}")

    def _compare_frames(self) -> None:
        if self._has(_FRAMES) and dicomjson.number(self._data_set, _FRAMES) != 1:
            raise _contradiction("NumberOfFrames is not 1, and the JPEG is one frame")

    def _compare_bits(self) -> None:
        precision = self._frame.precision
        allocated = 8
        if precision > 8:
            allocated = 16
        self._compare(_ALLOCATED, allocated)
        if self._frame.is_lossless and self._has(_STORED):
            # It may be coded with all bits that are allocated.
            if not 0 < dicomjson.number(self._data_set, _STORED) <= allocated:
                raise _contradiction(f"BitsStored is not within BitsAllocated, {allocated}")
        else:
            self._compare(_STORED, precision)
        self._fill_in(_HIGH_BIT, "US", dicomjson.number(self._data_set, _STORED) - 1)

    def _compare_colours(self) -> None:
        frame = self._frame
        fitting: tuple[str, ...] = _ONE_SAMPLE
        usual = "MONOCHROME2"
        if frame.samples == 3:
            fitting = _THREE_SAMPLES
            usual = "YBR_FULL_422"
        if frame.colour == "RGB":
            fitting = ("RGB",)
            usual = "RGB"
        elif frame.colour == "YBR":
            fitting = ("YBR_FULL", "YBR_FULL_422")
        self._fill_in(_COLOURS, "CS", usual)
        if dicomjson.text(self._data_set, _COLOURS) not in fitting:
            raise _contradiction(
                f"PhotometricInterpretation is not that of the JPEG, {' or '.join(fitting)}"
            )

    def _compare(self, tag: str, value: int) -> None:
        self._fill_in(tag, "US", value)
        stated = dicomjson.number(self._data_set, tag)
        if stated != value:
            name = _NAMES[tag]
            raise _contradiction(f"{name} is {stated} in the metadata and {value} in the JPEG")

    def _has(self, tag: str) -> bool:
        return bool(dicomjson.values(self._data_set, tag))

    def _fill_in(self, tag: str, vr: str, value: int | str) -> None:
        if not self._has(tag):
            self._data_set[tag] = {"vr": vr, "Value": [value]}


def _contradiction(detail: str) -> PermanentError:
    return rejected(f"metadata and JPEG contradict each other: {detail}")
