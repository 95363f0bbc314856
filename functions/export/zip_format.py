"""A zip (PKWARE APPNOTE 6.3.9) written as a stream, in parts that are joined later.

Members are stored, not deflated: images are already compressed, or speed is more important. ZIP64
fields are used if a size or an offset needs them.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from functions.export.content import Content

_FIT: Final = 0xFFFFFFFF
_MEMBERS_FIT: Final = 0xFFFF
# 1980-01-01 for every member: the time of the export changes no byte.
_DATE: Final = 0x21
_PLAIN: Final = 20  # version needed to read it: 2.0
_ZIP64: Final = 45
_SIZES_FOLLOW: Final = 0x8


@dataclass(frozen=True)
class Member:
    """One file of the zip.

    Args:
        offset: of its header within its part.
        streamed: whether its sizes follow its data.
    """

    name: str
    size: int
    crc: int
    offset: int
    streamed: bool

    @property
    def version(self) -> int:
        """Of the zip format, that a reader needs."""
        return _ZIP64 if self.streamed else _PLAIN

    @property
    def flags(self) -> int:
        """The general purpose bits."""
        return _SIZES_FOLLOW if self.streamed else 0


class ZipPart:
    """Writes members one after the other; its output is one part of the zip."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._offset = 0

    def add(self, name: str, content: Content) -> Iterator[bytes]:
        """A member of any length. When a stream breaks, its bytes remain between the members, where
        no reader looks: the zip is still valid, and the member can be added again."""
        if content.is_small:
            yield from self._add_small(name, content)
        else:
            yield from self._add_stream(name, content)

    def _add_small(self, name: str, content: Content) -> Iterator[bytes]:
        crc = 0
        for data in content.head:
            crc = zlib.crc32(data, crc)
        size = sum(map(len, content.head))
        member = Member(name, size, crc, self._offset, streamed=False)
        yield self._counted(_local_header(member))
        for data in content.chunks():
            yield self._counted(data)
        self.members.append(member)

    def _add_stream(self, name: str, content: Content) -> Iterator[bytes]:
        offset = self._offset
        size = 0
        crc = 0
        yield self._counted(_local_header(Member(name, 0, 0, offset, streamed=True)))
        for data in content.chunks():
            crc = zlib.crc32(data, crc)
            size += len(data)
            yield self._counted(data)
        yield self._counted(struct.pack("<4sLQQ", b"PK\x07\x08", crc, size, size))
        self.members.append(Member(name, size, crc, offset, streamed=True))

    def _counted(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data


def _local_header(member: Member) -> bytes:
    name = member.name.encode()
    sums = (member.crc, member.size, member.size)
    extra = b""
    if member.streamed:
        # ZIP64, so that the sizes that follow the data have eight bytes.
        sums = (0, _FIT, _FIT)
        extra = struct.pack("<HHQQ", 1, 16, 0, 0)
    head = struct.pack(
        "<4s5H3L2H",
        *(b"PK\x03\x04", member.version, member.flags),
        *(0, 0, _DATE),  # method, time, date
        *sums,
        *(len(name), len(extra)),
    )
    return head + name + extra


def directory(parts: Iterable[tuple[int, Iterable[Member]]]) -> Iterator[bytes]:
    """The end of the zip: the central directory.

    Args:
        parts: each part's size in bytes and its members, in the order in which they are joined.
    """
    base = 0  # bytes of the parts so far
    count = 0
    length = 0  # of the directory
    for size, members in parts:
        for member in members:
            entry = _directory_entry(member, base + member.offset)
            count += 1
            length += len(entry)
            yield entry
        base += size
    if count >= _MEMBERS_FIT or base >= _FIT or length >= _FIT:
        record = (44, _ZIP64, _ZIP64, 0, 0, count, count, length, base)
        yield struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *record)
        yield struct.pack("<4sLQL", b"PK\x06\x07", 0, base + length, 1)
    short = min(count, _MEMBERS_FIT)
    yield struct.pack(
        "<4s4H2LH",
        *(b"PK\x05\x06", 0, 0),  # disks
        *(short, short),
        *(min(length, _FIT), min(base, _FIT)),
        0,  # comment
    )


def _directory_entry(member: Member, offset: int) -> bytes:
    name = member.name.encode()
    version = member.version
    size = member.size
    shown_offset = offset
    extra = b""
    if size >= _FIT or offset >= _FIT:
        version = _ZIP64
        extra = struct.pack("<HHQQQ", 1, 24, size, size, offset)
        size = _FIT
        shown_offset = _FIT
    head = struct.pack(
        "<4s6H3L5H2L",
        *(b"PK\x01\x02", version, version, member.flags),
        *(0, 0, _DATE),  # method, time, date
        *(member.crc, size, size),
        *(len(name), len(extra)),
        *(0, 0, 0, 0),  # comment, disk, attributes
        shown_offset,
    )
    return head + name + extra
