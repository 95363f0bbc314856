"""Bytes of a file in pieces, without keeping what has been sent in memory."""

import mmap
from collections.abc import Iterable, Iterator, Sequence

from infra.local.dicomstore.scan import PIECE, Buffer

GATHERED = 64 << 10  # bytes

Range = tuple[int, int]  # where a run of bytes starts, and how many they are


def pieces(data: Buffer, ranges: Iterable[Range]) -> Iterator[bytes]:
    """The bytes of some ranges, at most PIECE at a time."""
    for start, length in ranges:
        end = start + length
        for at in range(start, end, PIECE):
            yield data[at : min(at + PIECE, end)]
            _forget(data, at)


def joined(data: Buffer, ranges: Sequence[Range]) -> bytes:
    """The bytes of some ranges in one."""
    if len(ranges) == 1:
        start, length = ranges[0]
        return data[start : start + length]
    return b"".join(pieces(data, ranges))


def cut(view: memoryview) -> Iterator[bytes]:
    """Bytes at most PIECE at a time."""
    for at in range(0, len(view), PIECE):
        yield bytes(view[at : at + PIECE])


def gathered(small: Iterable[bytes]) -> Iterator[bytes]:
    """Small pieces joined, because each piece takes a write to the socket."""
    out: list[bytes] = []
    size = 0
    for piece in small:
        out.append(piece)
        size += len(piece)
        if size >= GATHERED:
            yield b"".join(out)
            out, size = [], 0
    if out:
        yield b"".join(out)


def _forget(data: Buffer, at: int) -> None:
    """Release the read pages of a mapped file; the system reads them again on demand.

    Without this, a process that sends a file of a gigabyte takes a gigabyte of memory.
    """
    if isinstance(data, mmap.mmap):
        start = at - at % mmap.PAGESIZE
        length = min(PIECE + mmap.PAGESIZE, len(data) - start)
        data.madvise(mmap.MADV_DONTNEED, start, length)
