"""Metadata and JPEGs in one archive: which are pairs, without reading the archive again.

In a zip the other half is looked up in the directory. In a tar, and in archives inside an archive,
going back would unpack everything before it again: there the two must be close together, and a half
that waits for the other one is kept in memory.

A group is what is stored together: one member, or a pair, with the metadata first.
"""

from dataclasses import replace
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.store import metadata
from functions.store.archive import Member, Place, Walk
from functions.store.archive_limits import WAITING_BYTES
from functions.store.archive_readers import Zip
from functions.store.pair_names import ENDINGS, OTHER, stem_of
from functions.store.refusals import unsupported
from functions.store.source import Source, whole

Group = tuple[Member, ...]

# What a half takes besides its data: in memory, and in time, because the mark after each member
# names the places of all halves that wait.
_ENTRY_BYTES: Final = 4096
_NEAR: Final = f" within {WAITING_BYTES // 1024**2} MiB of it; put the two side by side"


def ready_groups(member: Member, walk: Walk, window: "Window") -> list[Group]:
    """What is ready to be stored, or has failed, after the walk reached this member."""
    if member.problem is not None or member.kind in ("dicom", "multipart"):
        return [(member,)]
    if member.kind not in ("json", "jpeg"):
        error = NothingToStoreError("neither DICOM, nor metadata with a JPEG")
        return [(member.failed(error),)]
    if not stem_of(member.name, member.kind):
        error = NothingToStoreError("metadata not named .json, or a JPEG not named .jpg")
        return [(member.failed(error),)]
    directory = walk.directory_of(member)
    if directory is None:
        return window.take(member)
    return _look_up(member, directory, walk)


def _look_up(half: Member, directory: Zip, walk: Walk) -> list[Group]:
    """A pair is ready when the walk reaches its metadata, wherever its JPEG is; when the walk
    reaches that JPEG, there is nothing left to do."""
    other = _other(half, directory, walk)
    if other is None:
        return [(_alone(half),)]
    if half.kind == "jpeg":
        return []
    described = _read_metadata(half)
    if described.problem is not None:
        return [(described,), (_alone(other),)]
    return [(described, other)]


def _other(half: Member, directory: Zip, walk: Walk) -> Member | None:
    """The other half. If several files could be this half, only the first one has a partner."""
    stem = stem_of(half.name, half.kind)
    first = directory.find(stem, ENDINGS[half.kind])
    if first is None or (first.place,) != half.place:
        return None
    kind = OTHER[half.kind]
    entry = directory.find(stem, ENDINGS[kind])
    if entry is None:
        return None
    other = walk.member_of(entry)
    if other.kind != kind:
        return None
    return other


class Window:
    """Halves in memory that wait for their other half."""

    def __init__(self, limit_bytes: int = WAITING_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes
        # By kind and stem, in the order in which they came.
        self._waiting: dict[tuple[str, str], Member] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no half waits."""
        return not self._waiting

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of the waiting halves."""
        return tuple(half.place for half in self._waiting.values())

    def take(self, half: Member) -> list[Group]:
        """The groups of a half, and of halves that must make room for it."""
        stem = stem_of(half.name, half.kind)
        if half.kind == "json":
            half = _read_metadata(half)
        if half.problem is not None:
            return [(half,)]
        if (OTHER[half.kind], stem) in self._waiting:
            other = self._remove(OTHER[half.kind], stem)
            if half.kind == "json":
                return [(half, other)]
            return [(other, half)]
        if (half.kind, stem) in self._waiting:
            return [(_alone(half),)]
        return self._keep(half, stem)

    def take_oldest(self) -> Member:
        """The half that has waited longest, with its problem: it has no partner."""
        kind, stem = next(iter(self._waiting))
        return _alone(self._remove(kind, stem), _NEAR)

    def _keep(self, half: Member, stem: str) -> list[Group]:
        """Let a half wait; halves that waited longest make room for it."""
        if _memory_of(half) > self._limit_bytes:
            return [(_alone(half, _NEAR),)]
        lost: list[Group] = []
        while self._left_bytes < _memory_of(half):
            lost.append((self.take_oldest(),))
        kept = half.kept()
        if kept.problem is not None:
            return [*lost, (kept,)]
        self._waiting[half.kind, stem] = kept
        self._left_bytes -= _memory_of(kept)
        return lost

    def _remove(self, kind: str, stem: str) -> Member:
        half = self._waiting.pop((kind, stem))
        self._left_bytes += _memory_of(half)
        return half


def _memory_of(half: Member) -> int:
    """The bytes that it takes while it waits."""
    return half.size + _ENTRY_BYTES


def _read_metadata(half: Member) -> Member:
    """Metadata with its bytes in memory; failed if it is not metadata."""
    try:
        text = whole(half.source, metadata.LIMIT_BYTES)
        metadata.parse(text)
    except PermanentError as error:
        return half.failed(error)
    return replace(half, source=Source.of(text))


def _alone(half: Member, where: str = "") -> Member:
    """A half as failed: its other half is missing."""
    if half.kind == "json":
        return half.failed(unsupported(f"metadata without its JPEG{where}"))
    return half.failed(NothingToStoreError(f"a JPEG without metadata{where}"))
