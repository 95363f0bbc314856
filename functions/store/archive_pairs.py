"""Metadata and a JPEG that lie in one archive: which belong together, without going through the
archive again.

In a zip the other half is looked up in the directory. In a tar, and in archives inside an archive,
going back would mean unpacking everything in front again: there the two have to lie close together,
and what waits for its other half is kept in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.store import metadata
from functions.store.archive import Member, Place, Walk
from functions.store.pair_names import ENDINGS, OTHER, HalfKind, stem_of
from functions.store.refusals import unsupported
from functions.store.source import Source, whole

WAITING_BYTES: Final = 16 * 1024 * 1024
_ENTRY_BYTES: Final = 1024  # what a half takes besides its data
_FAR: Final = f"does not lie within {WAITING_BYTES // 1024**2} MiB of it; put the two side by side"


@dataclass(frozen=True)
class Half:
    """Metadata or a JPEG in an archive.

    Args:
        kind: which of the two.
        stem: what both halves' names have in common.
        name: its path in the archive.
        place: where it lies.
        size: in bytes.
        data: its bytes, where they are kept in memory.
    """

    kind: HalfKind
    stem: str
    name: str
    place: Place
    size: int
    data: bytes = b""


@dataclass(frozen=True)
class Together:
    """A pair that can be stored.

    Args:
        described: the half that is metadata.
        text: the metadata.
        pictured: the half that is a JPEG.
        picture: the JPEG.
    """

    described: Half
    text: bytes
    pictured: Half
    picture: Source

    @property
    def halves(self) -> tuple[Half, Half]:
        """Both."""
        return self.described, self.pictured


@dataclass(frozen=True)
class Alone:
    """A half that has no other, or cannot be read."""

    half: Half
    error: PermanentError


Ready = Together | Alone


def half_of(member: Member) -> Half:
    """The half that a member is.

    Raises:
        NothingToStoreError: its name cannot be that of one.
    """
    kind: HalfKind = "jpeg"
    if member.kind == "json":
        kind = "json"
    stem = stem_of(member.name, kind)
    if not stem:
        raise NothingToStoreError("metadata or a JPEG whose name does not say so")
    return Half(kind, stem, member.name, member.place, member.size)


class Lookup:
    """Pairs of a zip. A pair is stored when the walk comes to its metadata, wherever its JPEG lies;
    when the walk comes to that JPEG, nothing is left to do."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    def take(self, half: Half, member: Member) -> list[Ready]:
        """What can be brought to its outcome now that the walk has come to this half."""
        other = self._other(half)
        if other is None:
            return [Alone(half, _no_other(half))]
        if half.kind == "jpeg":
            return []
        pictured = half_of(other)
        try:
            text = whole(member.source, metadata.LIMIT_BYTES)
            metadata.parse(text)
        except PermanentError as error:
            return [Alone(half, error), Alone(pictured, _no_other(pictured))]
        return [Together(half, text, pictured, other.source)]

    def _other(self, half: Half) -> Member | None:
        """The other half. Of several files that could be this half, only the first has one."""
        first = self._walk.find(half.stem, ENDINGS[half.kind])
        if first is None or (first.place,) != half.place:
            return None
        kind = OTHER[half.kind]
        entry = self._walk.find(half.stem, ENDINGS[kind])
        if entry is None:
            return None
        other = self._walk.look_into(entry)
        if other.kind != kind:
            return None
        return other


class Window:
    """Pairs of which both halves lie close together."""

    def __init__(self, limit_bytes: int = WAITING_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept_bytes = 0
        # By kind and stem; the one that came first is first.
        self._waiting: dict[tuple[HalfKind, str], Half] = {}

    def __iter__(self) -> Iterator[Half]:
        return iter(self._waiting.values())

    @property
    def places(self) -> list[Place]:
        """Where the halves lie that wait."""
        return [half.place for half in self]

    def take(self, half: Half, member: Member) -> list[Ready]:
        """What can be brought to its outcome now that the walk has come to this half."""
        try:
            return self._take(half, member)
        except PermanentError as error:
            return [Alone(half, error)]

    def _take(self, half: Half, member: Member) -> list[Ready]:
        text = b""
        if half.kind == "json":
            text = whole(member.source, metadata.LIMIT_BYTES)
            metadata.parse(text)
        other = self._waiting.get((OTHER[half.kind], half.stem))
        if other is None:
            return self._keep(half, lambda: text or whole(member.source, self._limit_bytes))
        self.remove(other)
        if half.kind == "json":
            return [Together(half, text, other, Source.of(other.data))]
        return [Together(other, other.data, half, member.source)]

    def _keep(self, half: Half, read: Callable[[], bytes]) -> list[Ready]:
        """Have a half wait; those that waited longest lose their room to it."""
        if (half.kind, half.stem) in self._waiting:
            return [Alone(half, _no_other(half))]
        if half.size + _ENTRY_BYTES > self._limit_bytes:
            return [Alone(half, _too_far(half))]
        lost: list[Ready] = []
        while self._kept_bytes + half.size + _ENTRY_BYTES > self._limit_bytes:
            oldest = next(iter(self))
            self.remove(oldest)
            lost.append(Alone(oldest, _too_far(oldest)))
        kept = replace(half, data=read())
        self._waiting[(half.kind, half.stem)] = kept
        self._kept_bytes += kept.size + _ENTRY_BYTES
        return lost

    def remove(self, half: Half) -> None:
        """It waits no more."""
        del self._waiting[(half.kind, half.stem)]
        self._kept_bytes -= half.size + _ENTRY_BYTES

    def left_alone(self, half: Half) -> PermanentError:
        """What is wrong with a half that still waits when the archive ends."""
        return _too_far(half)


def _no_other(half: Half) -> PermanentError:
    if half.kind == "json":
        return unsupported("metadata without its JPEG")
    return NothingToStoreError("a JPEG without metadata")


def _too_far(half: Half) -> PermanentError:
    if half.kind == "json":
        return unsupported(f"metadata whose JPEG, if there is one, {_FAR}")
    return NothingToStoreError(f"a JPEG whose metadata, if there is any, {_FAR}")
