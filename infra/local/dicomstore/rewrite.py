"""A data set written in another transfer syntax, streamed: values are copied, never parsed.

Only headers differ between native transfer syntaxes, and the byte order of numbers (PS3.5 sections
7.1, 7.3 and annex A). Sequences and items are written with undefined length.
"""

import struct
from collections.abc import Iterator

from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from infra.local.dicomstore import model, slices
from infra.local.dicomstore.scan import (
    BITS_ALLOCATED,
    IMPLICIT_LE,
    ITEM,
    ITEM_END,
    LONG_FORM,
    PIECE,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Elements,
    File,
)

META_LENGTH, META_VERSION, TRANSFER_SYNTAX = 0x00020000, 0x00020001, 0x00020010
MEDIA_CLASS, MEDIA_INSTANCE, IMPLEMENTATION = 0x00020002, 0x00020003, 0x00020012
SOP_CLASS, SOP_INSTANCE = 0x00080016, 0x00080018
SHORT_MAX = 0xFFFF  # bytes that an explicit VR with a short length can hold


def meta_information(file: File, syntax: str) -> bytes:
    """The preamble and group 0002 of a file for a new transfer syntax (PS3.10 section 7.1)."""
    values = {
        tag: (element.vr, file.raw(element))
        for tag, element in file.meta.items()
        if tag > META_LENGTH
    }
    values[META_VERSION] = ("OB", b"\0\1")
    values[TRANSFER_SYNTAX] = ("UI", syntax.encode())
    # What is missing has the value of the data set.
    for tag, own in ((MEDIA_CLASS, SOP_CLASS), (MEDIA_INSTANCE, SOP_INSTANCE)):
        if tag not in values:
            values[tag] = ("UI", file.text(own).encode("latin-1"))
    if IMPLEMENTATION not in values:
        values[IMPLEMENTATION] = ("UI", PYDICOM_IMPLEMENTATION_UID.encode())
    group = b""
    for tag in sorted(values):
        vr, value = values[tag]
        group += _small(tag, vr, value)
    length = _small(META_LENGTH, "UL", struct.pack("<I", len(group)))
    preamble = bytes(128)
    if file.data[128:132] == b"DICM":
        preamble = file.data[:128]
    return preamble + b"DICM" + length + group


def _small(tag: int, vr: str, value: bytes) -> bytes:
    """A small element in explicit VR little endian."""
    padding = b"\0" * (len(value) % 2)
    return header(tag, vr, len(value) + len(padding), implicit=False) + value + padding


def header(tag: int, vr: str, length: int, implicit: bool) -> bytes:
    """The header of an element in little endian; one whose VR is too short for it becomes UN
    (PS3.5 6.2.2)."""
    group, number = tag >> 16, tag & 0xFFFF
    if implicit:
        return struct.pack("<HHI", group, number, length)
    name = vr.encode("latin-1")
    if name not in LONG_FORM and length > SHORT_MAX:
        name = b"UN"
    if name in LONG_FORM:
        return struct.pack("<HH2sHI", group, number, name, 0, length)
    return struct.pack("<HH2sH", group, number, name, length)


class Writer:
    """Writes elements of a scanned file in explicit or implicit VR little endian."""

    def __init__(self, file: File, syntax: str) -> None:
        self._file = file
        self._implicit = syntax == IMPLICIT_LE

    def header(self, tag: int, vr: str, length: int) -> bytes:
        """The header of an element."""
        return header(tag, vr, length, self._implicit)

    def small(self, tag: int, vr: str, value: bytes) -> bytes:
        """An element with a value of an even number of bytes."""
        return self.header(tag, vr, len(value)) + value

    def elements(self, elements: Elements) -> Iterator[bytes]:
        """A data set or item, without group lengths, which would be wrong."""
        allocated = self._file.number(BITS_ALLOCATED, elements)
        for tag in sorted(elements):
            if tag & 0xFFFF:
                yield from self.element(elements[tag], allocated)

    def element(self, element: Element, allocated: int = 0) -> Iterator[bytes]:
        """One element; `allocated` is the BitsAllocated beside it, for pixels."""
        if element.items is not None:
            yield self.header(element.tag, "SQ", UNDEFINED)
            for item in element.items:
                yield mark(ITEM, UNDEFINED)
                yield from self.elements(item)
                yield mark(ITEM_END, 0)
            yield mark(SEQUENCE_END, 0)
        elif element.encapsulated:
            # Its fragments and the delimiter after them are copied as they are.
            yield self.header(element.tag, "OB", UNDEFINED)
            yield from slices.pieces(self._file.data, [(element.start, element.length)])
        else:
            yield self.header(element.tag, element.vr, element.length)
            yield from self._value(element, allocated)

    def _value(self, element: Element, allocated: int) -> Iterator[bytes]:
        word = 1
        if self._file.big_endian:
            word = model.word_bytes(element.tag, element.vr, allocated)
        # A piece holds whole words: their sizes are powers of two.
        swapped = word > 1 and element.length % word == 0 and PIECE % word == 0
        for piece in slices.pieces(self._file.data, [(element.start, element.length)]):
            if swapped:
                yield model.little_endian(piece, word)
            else:
                yield piece


def mark(tag: int, length: int) -> bytes:
    """The start of an item or fragment, or the end of a sequence or item (PS3.5 7.5)."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length)
