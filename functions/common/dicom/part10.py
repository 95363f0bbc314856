"""What the header of a DICOM Part 10 file (PS3.10 section 7) says about it, found without keeping
the file.

pydicom would cost every cold start 0.1 to 0.2 s and each file 0.35 ms for four values. What is
walked here are the elements' headers only (PS3.5 section 7.1), in any transfer syntax; values are
skipped, whatever their size.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.resources import Resource

HEAD_BYTES: Final = 64 * 1024  # holds the UIDs of nearly every file

_DIRECTORY_CLASS: Final = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_CLASS, _SYNTAX = 0x00020002, 0x00020010
_STUDY, _SERIES, _INSTANCE = 0x0020000D, 0x0020000E, 0x00080018
_PIXELS: Final = 0x7FE0  # the group of pixel data: every UID comes before it
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_FORM: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_FORM: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_DEPTH_MAX: Final = 64
_VALUE_MAX_BYTES: Final = 256  # of a UID with its padding
_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Header:
    """What a file says it is; the transfer syntax is empty where it does not say."""

    resource: Resource
    transfer_syntax: str = ""


class MoreNeededError(Exception):
    """The UIDs come later in the file than the bytes that were given."""


def is_part10(head: bytes) -> bool:
    """Whether it begins as a Part 10 file does: a preamble of 128 bytes, then DICM."""
    return head[128:132] == b"DICM"


def is_data_set(head: bytes) -> bool:
    """Whether it may be a Part 10 file that lost its preamble, or a bare data set: group 2 or 8 in
    little endian."""
    if len(head) < 8 or head[0] not in (0x02, 0x08) or head[1] or head[3]:
        return False
    return _is_vr(head[4:6]) or int.from_bytes(head[4:8], "little") < _VALUE_MAX_BYTES


def identify(head: bytes) -> Resource:
    """The study, series and SOP Instance UIDs.

    Args:
        head: the first bytes of the file, pixel data not needed.

    Raises:
        PermanentError: unsupported_input, when it is no Part 10 file, the header cannot be read, or
            a UID is missing or malformed.
    """
    if not is_part10(head):
        raise PermanentError("unsupported_input", "not a DICOM Part 10 file")
    return read_header([head]).resource


def read_header(data: Iterable[bytes], *, whole: bool = True) -> Header:
    """Walk a file until its UIDs are known.

    Args:
        data: the file from its first byte on, in pieces of any size; no more of it is taken than
            needed.
        whole: whether the file ends where `data` does.

    Raises:
        MoreNeededError: `data` ended before the UIDs were found, and is not the whole file.
        PermanentError: unsupported_input, when the header cannot be read, or a UID is missing or
            malformed; as NothingToStoreError when the file is a DICOMDIR.
    """
    syntax, found = _found(data, {_STUDY, _SERIES, _INSTANCE}, whole)
    uids = [found.get(tag, "") for tag in (_STUDY, _SERIES, _INSTANCE)]
    try:
        resource = Resource(*uids)
    except PermanentError:
        resource = None
    if resource is None or not resource.series or not resource.instance:
        raise PermanentError("unsupported_input", "a UID is missing or malformed")
    return Header(resource, syntax)


def read_instance_uid(data: Iterable[bytes], *, whole: bool = True) -> str:
    """The SOP Instance UID alone, empty when there is none: it is among the first elements, the
    others far behind.

    Args:
        data, whole: as for read_header.

    Raises:
        MoreNeededError, PermanentError: as read_header, but for what is missing or malformed.
    """
    return _found(data, {_INSTANCE}, whole)[1].get(_INSTANCE, "")


def _found(data: Iterable[bytes], wanted: set[int], whole: bool) -> tuple[str, dict[int, str]]:
    """The transfer syntax, and what there is of these elements."""
    reader = _Reader(iter(data))
    try:
        if reader.peek(132)[128:] == b"DICM":
            reader.skip(132)
        meta = _Walk(reader, "<", explicit=True).find(
            {_CLASS, _SYNTAX}, before_group=3, all_of_it=True
        )
        if meta.get(_CLASS) == _DIRECTORY_CLASS:
            raise NothingToStoreError("a DICOMDIR lists files and is no image")
        syntax = meta.get(_SYNTAX, "")
        if syntax == _DEFLATED:
            reader = _Reader(_inflated(reader))
        walk = _Walk(
            reader, ">" if syntax == _BIG_ENDIAN else "<", explicit=_is_vr(reader.peek(6)[4:])
        )
        return syntax, walk.find(wanted, before_group=_PIXELS)
    except EOFError:
        if not whole:
            raise MoreNeededError from None
        raise _unreadable() from None
    except zlib.error:
        raise _unreadable() from None


def _is_vr(letters: bytes) -> bool:
    return len(letters) == 2 and letters.isalpha() and letters.isupper()


def _unreadable(detail: str = "the header cannot be read") -> PermanentError:
    return PermanentError("unsupported_input", detail)


class _Reader:
    """A stream that can be looked into and skipped; keeps one piece and what a look needs.

    `data` and `at` (what is kept, and how far it was read) are open to the walk, which goes over
    dozens of small elements a file: a call for each would be most of what they cost.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.data = b""
        self.at = 0

    def peek(self, size: int) -> bytes:
        """The next bytes, without going on; fewer at the end."""
        while len(self.data) - self.at < size and (piece := next(self._pieces, None)) is not None:
            self.data = self.data[self.at :] + piece
            self.at = 0
        return self.data[self.at : self.at + size]

    def take(self, size: int) -> bytes:
        """The next bytes. Raises EOFError when there are fewer."""
        data = self.peek(size)
        if len(data) < size:
            raise EOFError
        self.at += size
        return data

    def skip(self, size: int) -> None:
        """Go on without looking. Raises EOFError when the end comes first."""
        while (left := len(self.data) - self.at) < size:
            size -= left
            self.at = 0
            if (piece := next(self._pieces, None)) is None:
                self.data = b""
                raise EOFError
            self.data = piece
        self.at += size

    def rest(self) -> Iterator[bytes]:
        """Everything from here on."""
        yield self.data[self.at :]
        yield from self._pieces


class _Walk:
    """Goes over elements in one encoding."""

    def __init__(self, reader: _Reader, order: str, explicit: bool) -> None:
        self._reader = reader
        self._explicit = explicit
        self._head = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "I").unpack_from

    def find(
        self, wanted: set[int], before_group: int, *, all_of_it: bool = False
    ) -> dict[int, str]:
        """The values of these elements of the groups before this one.

        Stops there, at the end of the data, or (unless `all_of_it`) when all are found.
        """
        found: dict[int, str] = {}
        reader, head_at, explicit = self._reader, self._head, self._explicit
        while all_of_it or len(found) < len(wanted):
            if reader.at + 8 > len(reader.data) and len(head := reader.peek(8)) < 8:
                if head:
                    raise EOFError
                break
            group, number, vr, short = head_at(reader.data, reader.at)
            if group >= before_group:
                break
            reader.at += 8
            length, implicit = (
                (short, False) if explicit and vr in _SHORT_FORM else self._length(vr, short)
            )
            if (tag := group << 16 | number) in wanted and length <= _VALUE_MAX_BYTES:
                found[tag] = reader.take(length).decode("latin-1").strip(" \0")
            elif reader.at + length <= len(reader.data):
                reader.at += length
            elif length == _UNDEFINED:
                self._skip_items(implicit)
            else:
                reader.skip(length)
        return found

    def _length(self, vr: bytes, short: int) -> tuple[int, bool]:
        """The length of the element whose first 8 bytes were just read, and whether its items are
        in implicit VR."""
        reader = self._reader
        if not self._explicit or not _is_vr(vr):
            return self._long(reader.data, reader.at - 4)[0], not self._explicit
        if vr in _LONG_FORM:
            return self._long(reader.take(4))[0], vr == b"UN"  # PS3.5 section 6.2.2, note 4
        return short, False

    def _skip_items(self, implicit: bool) -> None:
        """Go past a value of undefined length; a stack of what is open, and of the mark that closes
        it."""
        stack = [(self._inside(implicit), _SEQUENCE_END)]
        while stack:
            walk, end = stack[-1]
            group, number, vr, short = walk._head(self._reader.take(8))
            tag = group << 16 | number
            if tag == end:
                stack.pop()
                continue
            if end == _ITEM_END:
                length, implicit = walk._length(vr, short)
                inside = (walk._inside(implicit), _SEQUENCE_END)
            elif tag == _ITEM:
                length, inside = (
                    walk._long(self._reader.data, self._reader.at - 4)[0],
                    (walk, _ITEM_END),
                )
            else:
                raise _unreadable()
            if length != _UNDEFINED:
                self._reader.skip(length)
            elif len(stack) < _DEPTH_MAX:
                stack.append(inside)
            else:
                raise _unreadable("sequences are nested too deep")

    def _inside(self, implicit: bool) -> "_Walk":
        return _Walk(self._reader, "<", explicit=False) if implicit and self._explicit else self


def _inflated(reader: _Reader) -> Iterator[bytes]:
    """The inflated rest, in bounded pieces."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in reader.rest():
        left = piece
        while left and not inflater.eof:
            yield inflater.decompress(left, _PIECE_BYTES)
            left = inflater.unconsumed_tail
