"""What waits in an archive for its other half: metadata for its JPEG, or a JPEG for its metadata.

Little of it is kept in memory. Metadata that is kept stays until its JPEG has come; JPEGs are kept
only while nothing newer needs the room, which is enough where the two lie side by side. Of all
others only the place is remembered.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.store import pair
from functions.store.archive import Cursor
from functions.store.content import Kind

_KEPT_BYTES: Final = 4 * 1024 * 1024
_NAMES_BYTES: Final = (
    4 * 1024 * 1024
)  # a follow-up message holds them all as JSON; Pub/Sub takes 10 MB
_ENDINGS: Final = {"json": pair.JSON_ENDINGS, "jpeg": pair.JPEG_ENDINGS}


@dataclass(slots=True)
class Half:
    """Metadata or a JPEG of an archive."""

    kind: Kind
    stem: str  # what both halves' names have in common; empty for a name that no half can have
    ending: str
    before: Cursor
    size: int
    data: bytes | None = None  # None: not kept in memory

    @classmethod
    def of(cls, kind: Kind, name: str, before: Cursor, size: int) -> "Half":
        """The half of this name."""
        stem = pair.stem_of(name, _ENDINGS[kind])
        return cls(kind, stem, name[len(stem) :], before, size)

    @property
    def name(self) -> str:
        """Its path in the archive."""
        return self.stem + self.ending

    def alone(self) -> PermanentError:
        """What is wrong with it when its other half does not come."""
        if self.kind == "json":
            return PermanentError("unsupported_input", "metadata without its JPEG")
        return NothingToStoreError("a JPEG without metadata")


@dataclass
class Halves:
    """All that wait, at most one of each kind for a stem."""

    _waiting: dict[str, dict[str, Half]] = field(
        default_factory=lambda: {"json": {}, "jpeg": {}}
    )  # by kind and stem
    _jpegs: dict[str, Half] = field(
        default_factory=dict
    )  # those in memory by stem, the oldest first
    kept_bytes: Counter[str] = field(default_factory=Counter)  # in memory, by kind
    _names_bytes: int = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Half]:
        """Metadata first, in the order in which it came; they may be removed meanwhile."""
        return iter([half for halves in self._waiting.values() for half in halves.values()])

    def other(self, half: Half) -> Half | None:
        """What it waits for, where that waits too."""
        return self._waiting["jpeg" if half.kind == "json" else "json"].get(half.stem)

    def add(self, half: Half) -> Half:
        """Have it wait.

        Returns:
            The one that waits: an earlier reading of the same.

        Raises:
            PermanentError: unsupported_input, where another of its kind and stem waits;
                unsafe_archive, when a follow-up message could not hold them all.
        """
        other = self.other(half)
        if other is not None:
            half.stem = other.stem  # once in memory
        there = self._waiting[half.kind].setdefault(half.stem, half)
        if there.before != half.before:
            raise half.alone()
        if there is half:
            self._names_bytes += len(json.dumps(half.name))
            if self._names_bytes > _NAMES_BYTES:
                raise PermanentError("unsafe_archive", "too many files wait for their other half")
        return there

    def remove(self, half: Half) -> None:
        """It waits no more."""
        there = self._waiting[half.kind].pop(half.stem, None)
        if there is not None:
            self._let_go(there)
            self._names_bytes -= len(json.dumps(there.name))

    def keep(self, half: Half, size: int, read: Callable[[], bytes]) -> None:
        """Read one that waits into memory, where there is room for so many bytes."""
        if half.data is not None or self.kept_bytes["json"] + size > _KEPT_BYTES:
            return
        while self.kept_bytes.total() + size > _KEPT_BYTES:
            self._let_go(next(iter(self._jpegs.values())))
        half.data = read()
        self.kept_bytes[half.kind] += len(half.data)
        if half.kind == "jpeg":
            self._jpegs[half.stem] = half

    def both(self) -> dict[Cursor, Half]:
        """By place, those whose other half waits as well; nothing but metadata of these stays in
        memory."""
        for half in self:
            if half.kind == "jpeg" or not self.other(half):
                self._let_go(half)
        return {half.before: half for half in self if self.other(half)}

    def _let_go(self, half: Half) -> None:
        if half.data is not None:
            self.kept_bytes[half.kind] -= len(half.data)
            half.data = None
            if half.kind == "jpeg":
                del self._jpegs[half.stem]
