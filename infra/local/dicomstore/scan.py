"""Finds the elements of a DICOM Part 10 file without reading their values (PS3.5 section 7, PS3.10
section 7).

All lengths are checked, so a file that was cut inside an element is refused; pixel data of any size
takes no time. Written for speed: one CT takes about 0.1 ms.
"""

import mmap
import struct
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

Buffer = bytes | mmap.mmap

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, PIXEL_REPRESENTATION, BITS_ALLOCATED = 0x7FE00010, 0x00280103, 0x00280100
IMPLICIT_LE, EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED_LE, EXPLICIT_BE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
LONG_FORM = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
MAX_DEPTH = 60
# Elements in one data set or item: no information object has nearly as many, and each takes memory.
MAX_ELEMENTS = 50_000
MAX_INFLATED = 1 << 30  # bytes; a deflated data set beyond this is refused
PIECE = 1 << 20  # bytes read or inflated at a time
# Names for the elements to share.
_VR_NAMES = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF"),
    *("OL", "OV", "OW", "PN", "SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN"),
    *("UR", "US", "UT", "UV"),
)
VRS = {name.encode(): name for name in _VR_NAMES}


class NotDicomError(Exception):
    """The bytes are not a complete DICOM file; the message says where, only by tags."""


class Element(NamedTuple):
    """One element: where its value is in the scanned buffer; `items` for a sequence."""

    tag: int
    vr: str
    start: int
    length: int  # bytes of the value, delimiters included when its length is undefined
    items: list["Elements"] | None = None
    encapsulated: bool = False


Elements = dict[int, Element]


class File(NamedTuple):
    """A scanned file. `data` is the buffer that `Element.start` counts in (inflated when the file
    is deflated)."""

    data: Buffer
    meta: Elements
    elements: Elements
    transfer_syntax: str
    big_endian: bool

    def raw(self, element: Element) -> bytes:
        """The value's bytes as stored."""
        return self.data[element.start : element.start + element.length]

    def text(self, tag: int, elements: Elements | None = None) -> str:
        """The value of an ASCII element, without padding; empty when absent.

        `elements` are those of an item; without them it is the file's own.
        """
        if elements is None:
            element = self.elements.get(tag) or self.meta.get(tag)
        else:
            element = elements.get(tag)
        if not element:
            return ""
        return self.raw(element).decode("latin-1").strip(" \0")

    def number(self, tag: int, elements: Elements | None = None) -> int:
        """The first value of a US element of the data set or of one of its items; 0 when absent."""
        if elements is None:
            elements = self.elements
        element = elements.get(tag)
        if not element:
            return 0
        raw = self.raw(element)[:2]
        if self.big_endian:
            return int.from_bytes(raw, "big")
        return int.from_bytes(raw, "little")


class _Scanner:
    """Reads element headers in one encoding; explicit and implicit VR, little and big endian."""

    def __init__(self, data: Buffer, explicit: bool, big: bool = False) -> None:
        order = "<"
        if big:
            order = ">"
        self.data = data
        self.explicit = explicit
        self.head = struct.Struct(order + "HH2sH").unpack_from
        self.long = struct.Struct(order + "I").unpack_from

    def elements(
        self, pos: int, end: int, depth: int = 0, stop_group: int = 0x10000
    ) -> tuple[Elements, int]:
        """The elements from pos, and where they ended: at end, after an item delimiter, or before
        stop_group."""
        found: Elements = {}
        data, head, long, explicit = self.data, self.head, self.long, self.explicit
        while pos < end:
            if end - pos < 8:
                if not any(data[pos:end]):
                    break  # zero padding after the last element
                raise NotDicomError(f"cut inside an element header at byte {pos}")
            group, number, vr, short = head(data, pos)
            tag = group << 16 | number
            if tag == ITEM_END and depth:
                return found, pos + 8
            if group >= stop_group:
                break
            if tag == 0 and not any(data[pos : min(end, pos + 4096)]):
                break
            if explicit and vr.isalpha() and vr.isupper():
                name = VRS.get(vr) or vr.decode("latin-1")
                if vr in LONG_FORM:
                    if end - pos < 12:
                        raise NotDicomError(f"cut inside the header of {tag:08X}")
                    (length,) = long(data, pos + 8)
                    pos += 12
                else:
                    length = short
                    pos += 8
                if name == "UN" and length != UNDEFINED:
                    name = self._implicit_vr(
                        tag, found
                    )  # PS3.5 6.2.2: the dictionary may know better
            else:
                name = self._implicit_vr(tag, found)
                (length,) = long(data, pos + 4)
                pos += 8
            if length == UNDEFINED or name == "SQ":
                element = self._open_ended(tag, name, pos, length, end, depth)
            else:
                element = Element(tag, name, pos, length)
            pos += element.length
            if pos > end:
                raise NotDicomError(f"cut inside the value of {tag:08X}")
            found[tag] = element
            if len(found) > MAX_ELEMENTS:
                raise NotDicomError(f"more than {MAX_ELEMENTS} elements in one data set")
        return found, pos

    def _open_ended(
        self, tag: int, vr: str, pos: int, length: int, end: int, depth: int
    ) -> Element:
        if depth > MAX_DEPTH:
            raise NotDicomError("sequences nested too deep")
        if tag == PIXEL_DATA or vr in ("OB", "OW"):
            stop = self._fragments(tag, pos, end)
            return Element(tag, vr, pos, stop - pos, encapsulated=True)
        scanner = self
        if (
            vr == "UN"
        ):  # PS3.5 6.2.2 note: undefined length UN is a sequence in implicit VR little endian
            scanner = _Scanner(self.data, explicit=False)
        limit = end
        if length != UNDEFINED:
            limit = pos + length
        if limit > end:
            raise NotDicomError(f"cut inside the sequence {tag:08X}")
        items, stop = scanner.items(tag, pos, limit, length == UNDEFINED, depth + 1)
        return Element(tag, "SQ", pos, stop - pos, items)

    def items(
        self, tag: int, pos: int, end: int, delimited: bool, depth: int
    ) -> tuple[list[Elements], int]:
        """The items of a sequence and where it ended."""
        found: list[Elements] = []
        while pos < end or delimited:
            mark, length, pos = self._mark(tag, pos, end)
            if mark == SEQUENCE_END:
                return found, pos
            if mark != ITEM:
                raise NotDicomError(f"no item where one should be in {tag:08X}")
            stop = end
            if length != UNDEFINED:
                stop = pos + length
            if stop > end:
                raise NotDicomError(f"cut inside an item of {tag:08X}")
            item, after = self.elements(pos, stop, depth)
            if length == UNDEFINED and self.data[after - 8 : after - 4] not in _ITEM_ENDS:
                raise NotDicomError(f"cut inside an item of {tag:08X}")
            pos = stop
            if length == UNDEFINED:
                pos = after
            found.append(item)
        return found, pos

    def _fragments(self, tag: int, pos: int, end: int) -> int:
        while True:
            mark, length, pos = self._mark(tag, pos, end)
            if mark == SEQUENCE_END:
                return pos
            if mark != ITEM or pos + length > end:
                raise NotDicomError(f"cut inside a fragment of {tag:08X}")
            pos += length

    def _implicit_vr(self, tag: int, siblings: Elements) -> str:
        """The VR of an element if the file does not say it; UN if it is not in the dictionary
        either."""
        if tag & 0xFFFF == 0:
            return "UL"
        if tag >> 16 & 1:
            if 0x10 <= tag & 0xFFFF <= 0xFF:
                return "LO"
            return "UN"
        try:
            vr = str(dictionary_VR(tag))
        except KeyError:
            return "UN"
        if vr == "US or SS":  # as Pixel Representation says, which precedes them
            sign = siblings.get(PIXEL_REPRESENTATION)
            if sign and any(self.data[sign.start : sign.start + sign.length]):
                return "SS"
            return "US"
        if " or " in vr:
            return "OW"
        return vr

    def _mark(self, tag: int, pos: int, end: int) -> tuple[int, int, int]:
        if end - pos < 8:
            raise NotDicomError(f"cut inside {tag:08X}")
        group, number, _, _ = self.head(self.data, pos)
        (length,) = self.long(self.data, pos + 4)
        return group << 16 | number, length, pos + 8


_ITEM_ENDS = (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d")


def scan(data: Buffer, scratch: Path | None = None) -> File:
    """Scan a whole file.

    Args:
        data: the file's bytes, or a map of them.
        scratch: a folder on a disk, where a deflated data set is inflated to; None is the system's
            folder for temporary files.

    Raises:
        NotDicomError: not DICOM, or cut inside an element.
    """
    start, meta = 0, Elements()
    if data[128:132] == b"DICM":
        start = 132
    elif len(data) < 8 or data[0] not in (0x02, 0x08):
        raise NotDicomError(
            "neither a DICM prefix nor an element of group 0002 or 0008 at the start"
        )
    if data[start : start + 2] == b"\x02\x00":
        explicit = _names_vr(data, start)
        meta, start = _Scanner(data, explicit).elements(start, len(data), stop_group=3)
    syntax = File(data, meta, {}, "", False).text(0x00020010)
    if not syntax:
        syntax = IMPLICIT_LE
        if _names_vr(data, start):
            syntax = EXPLICIT_LE
    if syntax == DEFLATED_LE:
        data = _inflated(data, start, scratch)
    big = syntax == EXPLICIT_BE
    elements, _ = _Scanner(data, syntax != IMPLICIT_LE, big).elements(start, len(data))
    return File(data, meta, elements, syntax, big)


def _names_vr(data: Buffer, start: int) -> bool:
    """Whether the element at start is in explicit VR."""
    vr = data[start + 4 : start + 6]
    return vr.isalpha() and vr.isupper()


def _inflated(data: Buffer, start: int, scratch: Path | None) -> Buffer:
    """The file with its data set inflated: on disk, since a megabyte can become a gigabyte.

    Raises NotDicomError: it does not inflate, is cut, or is larger than MAX_INFLATED.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.write(data[:start])
        at, rest = start, b""
        while not inflater.eof:
            piece = rest or data[at : at + PIECE]
            if not rest:
                at += len(piece)
            try:
                inflated = inflater.decompress(piece, PIECE)
            except zlib.error as error:
                raise NotDicomError("the deflated data set does not inflate") from error
            rest = inflater.unconsumed_tail
            file.write(inflated)
            if file.tell() > MAX_INFLATED:
                raise NotDicomError(f"the deflated data set is larger than {MAX_INFLATED} bytes")
            if not piece and not inflated:
                raise NotDicomError("the deflated data set is cut")
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
