"""A zip (PKWARE APPNOTE 6.3.9) written as a stream, in parts that are joined later. Members are
stored, not deflated: images are compressed already, or are wanted fast. ZIP64 fields appear where a
size or an offset needs them.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_FIT: Final = 0xFFFFFFFF
_DATE: Final = 0x21  # 1980-01-01: the same instances make the same bytes
_PLAIN: Final = 20  # version needed to read it: 2.0
_ZIP64: Final = 45
_SIZES_FOLLOW: Final = 0x8


@dataclass(frozen=True)
class Member:
    """One file of the zip. `offset` is that of its header within its part; `streamed`: its sizes
    follow its data."""

    name: str
    size: int
    crc: int
    offset: int
    streamed: bool


class ZipPart:
    """Writes members one after the other; what it yields is one part of the zip."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._offset = 0

    def add(self, name: str, pieces: list[bytes]) -> Iterator[bytes]:
        """A member that is in memory."""
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        size = sum(map(len, pieces))
        member = Member(name, size, crc, self._offset, streamed=False)
        yield self._counted(_local(member))
        for piece in pieces:
            yield self._counted(piece)
        self.members.append(member)

    def add_stream(self, name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """A member of any length. When `pieces` raises, what was written of it is left between the
        members, where no reader looks: the zip stays good, and the member can be added again."""
        offset, size, crc = self._offset, 0, 0
        yield self._counted(_local(Member(name, 0, 0, offset, streamed=True)))
        for piece in pieces:
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            yield self._counted(piece)
        yield self._counted(struct.pack("<4sLQQ", b"PK\x07\x08", crc, size, size))
        self.members.append(Member(name, size, crc, offset, streamed=True))

    def _counted(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data


def _local(member: Member) -> bytes:
    name = member.name.encode()
    if member.streamed:  # ZIP64, so that the sizes that follow have eight bytes
        extra = struct.pack("<HHQQ", 1, 16, 0, 0)
        head = (_ZIP64, _SIZES_FOLLOW, 0, 0, _DATE, 0, _FIT, _FIT, len(name), len(extra))
    else:
        extra = b""
        head = (_PLAIN, 0, 0, 0, _DATE, member.crc, member.size, member.size, len(name), 0)
    return struct.pack("<4s5H3L2H", b"PK\x03\x04", *head) + name + extra


def directory(parts: Iterable[tuple[int, Iterable[Member]]]) -> Iterator[bytes]:
    """The end of the zip: the central directory.

    Args:
        parts: each part's size in bytes and its members, in the order in which they are joined.
    """
    base = count = length = 0
    for size, members in parts:
        for member in members:
            entry = _central(member, base + member.offset)
            count, length = count + 1, length + len(entry)
            yield entry
        base += size
    if count >= 0xFFFF or base >= _FIT or length >= _FIT:
        record = (44, _ZIP64, _ZIP64, 0, 0, count, count, length, base)
        yield struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *record)
        yield struct.pack("<4sLQL", b"PK\x06\x07", 0, base + length, 1)
    short = min(count, 0xFFFF)
    yield struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, short, short, min(length, _FIT), min(base, _FIT), 0
    )


def _central(member: Member, offset: int) -> bytes:
    name, large = member.name.encode(), member.size >= _FIT or offset >= _FIT
    extra = struct.pack("<HHQQQ", 1, 24, member.size, member.size, offset) if large else b""
    size, at = (_FIT, _FIT) if large else (member.size, offset)
    version = _ZIP64 if large or member.streamed else _PLAIN
    flags = _SIZES_FOLLOW if member.streamed else 0
    head = (
        version,
        version,
        flags,
        0,
        0,
        _DATE,
        member.crc,
        size,
        size,
        len(name),
        len(extra),
        0,
        0,
        0,
        0,
        at,
    )
    return struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *head) + name + extra
