"""Packs the instances of an export into slices: whole studies or series if they fit."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.resources import Resource
from functions.export.slices import Item, Slice

# A series up to this many times the size of a slice is still one slice, so that it comes in one
# answer. That is safe: a slice that takes longer than an invocation continues with its rest. The
# limit is not higher, because after an answer breaks off, missing instances are retrieved one by
# one.
_STREAM_SLICES: Final = 5


@dataclass
class Found:
    """Instances that a search found.

    Args:
        items: the exported frames of each, or the whole instance.
        skipped: those without anything of the wanted kind.
        failed: those that cannot be exported.
    """

    items: dict[Resource, Item] = field(default_factory=dict)
    skipped: set[Resource] = field(default_factory=set)
    failed: set[Resource] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.items) + len(self.skipped) + len(self.failed)

    @property
    def weight(self) -> int:
        """The number of their objects; a skipped instance counts as one."""
        return sum(item.weight for item in self.items.values()) + len(self.skipped)

    def by_series(self) -> dict[Resource, "Found"]:
        """Those of each series, in order."""
        parts: dict[Resource, Found] = {}
        for instance in sorted([*self.items, *self.skipped]):
            series = Resource(instance.study, instance.series)
            part = parts.setdefault(series, Found())
            if instance in self.items:
                part.items[instance] = self.items[instance]
            else:
                part.skipped.add(instance)
        return parts


class Packer:
    """Fills slices.

    Args:
        size: of a slice, in objects.
        streamed: whether a whole study or series comes in one answer.
    """

    def __init__(self, size: int, streamed: bool) -> None:
        self._size = size
        self._streamed = streamed
        self._slice = Slice()
        self._before = Slice()

    def begin_target(self) -> None:
        """Remember the slice as it is now."""
        self._before = self._slice.copy()

    def drop_target(self) -> None:
        """Go back to the slice as it was when the last target began."""
        self._slice = self._before

    def add_whole(self, target: Resource, found: Found) -> Iterator[Slice]:
        """Add a study or series; returns the slices that become full. One that does not fit in a
        slice is packed series by series."""
        if found.weight <= self._size:
            yield from self._add(target, found)
            return
        for series, part in found.by_series().items():
            yield from self._add(series, part)

    def add_instances(self, found: Found) -> Iterator[Slice]:
        """Add instances that are each retrieved separately."""
        yield from self._add(None, found)

    def fail(self, failure: dict[str, Any]) -> None:
        """Add a failure, as in the manifest."""
        self._slice.failures.append(failure)

    def flush(self) -> list[Slice]:
        """Begin a new slice; returns the one before, if there is anything in it."""
        before = self._slice
        self._slice = Slice()
        if before.items or before.skipped or before.failures:
            return [before]
        return []

    def _add(self, stream: Resource | None, found: Found) -> Iterator[Slice]:
        if not self._streamed:
            stream = None
        limit = self._size
        if stream:
            limit *= _STREAM_SLICES
        items = [found.items[instance] for instance in sorted(found.items)]
        to_retrieve = sum(item.weight for item in items)
        # Nothing is retrieved for skipped instances, so any slice may name them.
        self._slice.skipped += sorted(found.skipped)
        if to_retrieve > limit:
            yield from self._add_cut(items)
            return
        # A stream larger than a slice is alone in its slice: it begins one here, and whatever comes
        # next begins another one.
        if self._slice.weight + to_retrieve > self._size:
            yield from self.flush()
        self._slice.items += items
        if stream and items:
            self._slice.streams.append(stream)

    def _add_cut(self, items: list[Item]) -> Iterator[Slice]:
        for item in items:
            for part in _cut(item, self._size):
                if self._slice.weight + part.weight > self._size:
                    yield from self.flush()
                self._slice.items.append(part)


def _cut(item: Item, size: int) -> Iterator[Item]:
    """An instance of very many frames in several parts."""
    if item.weight <= size:
        yield item
        return
    for first in range(item.first, item.last + 1, size):
        last = min(item.last, first + size - 1)
        yield Item(item.resource, first, last)
