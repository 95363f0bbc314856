"""Reading the header of a DICOM Part 10 file (PS3.10 section 7) from a stream, with pydicom,
without keeping the file.

pydicom trusts its input: it inflates a whole deflated file, reads whole sequences, prints element
values in warnings, and raises exceptions of any type. Here it reads from a bounded stream, and its
exceptions become one of two answers: unsupported, or more bytes needed.
"""

import functools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from functions.common.errors import DicomFunctionsError, NothingToStoreError, PermanentError
from functions.common.resources import Resource

HEAD_BYTES: Final = 64 * 1024  # contains the UIDs of nearly every file

_DIRECTORY_CLASS: Final = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_PREAMBLE_BYTES: Final = 132
_META_GROUP: Final = 0x0002
_CLASS, _SYNTAX = 0x00020002, 0x00020010
_INSTANCE, _STUDY, _SERIES = 0x00080018, 0x0020000D, 0x0020000E
_DIRECTORY_GROUP: Final = 0x0004  # only of a DICOMDIR, which may have many records
_PIXELS: Final = 0x7FE00000  # the group of pixel data: every UID comes before it
_READS_MAX: Final = 100_000  # by pydicom, in one header: 0.4 s of CPU, 40 MB of sequence items
_READ_BYTES_MAX: Final = 16 * 1024 * 1024  # what is skipped is not counted
_INFLATED_MAX: Final = 4 * 1024 * 1024
_WINDOW_BYTES: Final = 64 * 1024  # how far back pydicom may seek
_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Header:
    """The header of a file; the transfer syntax is empty if it has none."""

    resource: Resource
    transfer_syntax: str = ""


class MoreNeededError(Exception):
    """The UIDs are later in the file than the given bytes."""


def is_part10(head: bytes) -> bool:
    """Whether it begins like a Part 10 file: a preamble of 128 bytes, then DICM."""
    return head[128:132] == b"DICM"


def is_vr(letters: bytes) -> bool:
    """Whether two bytes look like a value representation, such as UI."""
    return len(letters) == 2 and letters.isalpha() and letters.isupper()


def read_header(data: Iterable[bytes], *, whole: bool = True) -> Header:
    """Read a file until its UIDs are known.

    Args:
        data: the file from its first byte on, in pieces of any size; only the needed bytes are
            read.
        whole: whether `data` is the whole file.

    Raises:
        MoreNeededError: `data` ended before the UIDs were found, and is not the whole file.
        PermanentError: unsupported_input, when the header cannot be read, or a UID is missing,
            malformed or occurs twice; NothingToStoreError when the file is a DICOMDIR.
    """
    values, syntax = _read(data, (_INSTANCE, _STUDY, _SERIES), whole)
    uids = [values.get(tag, "") for tag in (_STUDY, _SERIES, _INSTANCE)]
    try:
        resource = Resource(*uids)
    except PermanentError:
        resource = None
    if resource is None or not resource.series or not resource.instance:
        raise _unsupported("a UID is missing or malformed")
    return Header(resource, syntax)


def read_instance_uid(data: Iterable[bytes], *, whole: bool = True) -> str:
    """Only the SOP Instance UID, empty when there is none: it is among the first elements, far
    before the others.

    Args:
        data, whole: as for read_header.

    Raises:
        MoreNeededError, PermanentError: as read_header, except for missing or malformed UIDs.
    """
    values, _ = _read(data, (_INSTANCE,), whole)
    return values.get(_INSTANCE, "")


def _read(
    data: Iterable[bytes], wanted: tuple[int, ...], whole: bool
) -> tuple[dict[int, str], str]:
    """The wanted elements that the file has, and the transfer syntax."""
    filereader = _library()
    stream = _Stream(iter(data))
    watch = _Watch(wanted)
    try:
        elements = _elements(filereader, stream, watch, wanted)
    except MemoryError:
        raise  # this machine's fault, not the file's
    # The only place for pydicom's errors, which can be of any type for malformed input.
    except Exception as error:
        if stream.error:
            raise stream.error from None
        if stream.ended and not whole:
            raise MoreNeededError from None
        raise _unsupported("the header cannot be read") from error
    if elements.get(_CLASS) == _DIRECTORY_CLASS:
        raise NothingToStoreError("a DICOMDIR is a list of files, not an image")
    if len(watch.seen) > len(set(watch.seen)):
        raise _unsupported("a UID occurs twice")
    syntax = elements.get(_SYNTAX, "")
    values = {tag: elements[tag] for tag in wanted if tag in elements}
    if len(values) < len(wanted) and stream.ended and not whole:
        raise MoreNeededError
    return values, syntax


def _elements(
    filereader: Any, stream: "_Stream", watch: "_Watch", wanted: tuple[int, ...]
) -> dict[int, str]:
    """The wanted elements, the transfer syntax and the Media Storage SOP Class, as far as the file
    has them."""
    elements = filereader.data_element_generator
    meta = {}
    if is_part10(stream.read(_PREAMBLE_BYTES)):
        tags = [_CLASS, _SYNTAX]
        meta = _texts(elements(stream, False, True, _is_after_meta, specific_tags=tags))
    syntax = meta.get(_SYNTAX, "")
    if syntax == _DEFLATED:
        stream.inflate()
    is_implicit = syntax == _IMPLICIT
    start = stream.tell()
    vr = stream.read(6)[4:]
    if not syntax or is_implicit == is_vr(vr):
        # It does not say how it is encoded, or is encoded differently: pydicom can guess.
        stream.seek(0)
        dataset = filereader.read_partial(stream, watch, force=True, specific_tags=list(wanted))
        found = [dataset.get_item(tag) for tag in wanted if tag in dataset]
    else:
        stream.seek(start)
        is_little = syntax != _BIG_ENDIAN
        found = elements(stream, is_implicit, is_little, watch, specific_tags=list(wanted))
    return {**meta, **_texts(found)}


def _is_after_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return int(tag) >> 16 != _META_GROUP


def _texts(elements: Iterable[Any]) -> dict[int, str]:
    """The values as in the file; a value that is cut off is left out."""
    texts = {}
    for element in elements:
        value = element.value
        if isinstance(value, bytes) and len(value) == element.length:
            texts[int(element.tag)] = value.decode("latin-1").strip(" \0")
    return texts


@functools.cache
def _library() -> Any:
    """pydicom's reader, imported at the first file.

    Validation is off and warnings are silenced: both print element values.
    """
    import warnings

    import pydicom.config
    import pydicom.filereader

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom.filereader


class _Watch:
    """pydicom asks this before each element of the data set whether to stop there.

    After everything is found, the rest of the last group is searched for an element that occurs
    twice.
    """

    def __init__(self, wanted: tuple[int, ...]) -> None:
        self._wanted = wanted
        self._last_group = max(wanted) >> 16
        self.seen: list[int] = []

    def __call__(self, tag: int, _vr: str | None, length: int) -> bool:
        number = int(tag)  # of pydicom's own type, whose comparison is slow
        group = number >> 16
        if group > self._last_group and len(self.seen) >= len(self._wanted):
            return True
        if number in self._wanted and length:
            self.seen.append(number)
        return number >= _PIXELS or group == _DIRECTORY_GROUP


class _TooMuchError(Exception):
    """More than any header needs."""


class _Stream:
    """The beginning of a file, for pydicom, which seeks forward a lot and back a little.

    Skipped bytes are not kept. `ended`: whether the source ended; `error`: the source's error, in
    place of which pydicom may raise its own.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._data = b""  # the window
        self._start = self._end = 0  # the window's offsets
        self._at = 0
        self._reads = 0
        self._read_bytes = 0
        self.ended = False
        self.error: DicomFunctionsError | None = None

    def tell(self) -> int:
        """The offset of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset; backwards only within the window."""
        if whence == 2:
            raise _TooMuchError  # the end is not known
        place = offset + self._at if whence else offset
        if place < self._start:
            raise _TooMuchError
        self._at = place
        return place

    def read(self, size: int = -1) -> bytes:
        """The next bytes; fewer at the end."""
        if size < 0:
            raise _TooMuchError  # all of it
        self._reads += 1
        self._read_bytes += size
        if self._reads > _READS_MAX or self._read_bytes > _READ_BYTES_MAX:
            raise _TooMuchError
        if self._at + size > self._end:
            self._load(self._at + size)
        begin = self._at - self._start
        data = self._data[begin : begin + size]
        self._at += len(data)
        return data

    def inflate(self) -> None:
        """The rest is deflated: continue with the inflated bytes, as if they were a file."""
        rest = chain((self._data[self._at - self._start :],), self._pieces)
        self._pieces = _inflated(rest)
        self._data = b""
        self._start = self._end = self._at = 0

    def _load(self, end: int) -> None:
        """Load the bytes up to this offset into the window, and forget those far back."""
        while self._end < end and not self.ended:
            try:
                piece = next(self._pieces, None)
            except DicomFunctionsError as error:
                self.error = error
                raise
            if piece is None:
                self.ended = True
                return
            keep_from = max(self._start, min(self._at, self._end) - _WINDOW_BYTES)
            self._data = self._data[keep_from - self._start :] + piece
            self._start = keep_from
            self._end += len(piece)


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The inflated bytes, in bounded pieces, up to a limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    for piece in pieces:
        left = piece
        while left and not inflater.eof:
            data = inflater.decompress(left, _PIECE_BYTES)
            size += len(data)
            if size > _INFLATED_MAX:
                raise _TooMuchError
            yield data
            left = inflater.unconsumed_tail


def _unsupported(detail: str) -> PermanentError:
    return PermanentError("unsupported_input", detail)
