"""The plan of an export: which instances there are, cut into slices of which each is one
invocation's work.

The order of a search is not documented, so a paged listing is checked against the store's own count
and repeated where it came short; a series that fits one page needs no paging at all.
"""

from collections.abc import Iterator
from typing import Any, Final

from functions.common.clients.dicomweb import DicomStore, uid
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.log import log
from functions.common.resources import Resource
from functions.export.request import RENDERED, STREAMED, ExportRequest, Item, Piece, Slice

PAGE: Final = 1000
_PASSES: Final = 3
_STREAM_SLICES: Final = (
    5  # a series up to this many times the size of a slice is still retrieved in one answer
)
_UIDS: Final = [("includefield", "0020000D"), ("includefield", "0020000E")]
_INSTANCE, _SERIES, _STUDY, _FRAMES, _ROWS = (
    "00080018",
    "0020000E",
    "0020000D",
    "00280008",
    "00280010",
)
Found = dict[Resource, Item | None]  # None: nothing of the wanted kind in it


class Planner:
    """Finds what an export consists of.

    Args:
        size: of a slice, in objects.
        last_chance: whether a listing that stays short becomes a failure, instead of another
            delivery's work.
    """

    def __init__(
        self,
        store: DicomStore,
        request: ExportRequest,
        size: int,
        deadline: Deadline,
        *,
        last_chance: bool = False,
    ) -> None:
        self._store, self._request, self._size, self._deadline = store, request, size, deadline
        self._last_chance = last_chance
        self._packer = _Packer(size, request.format in STREAMED)

    def targets(self, start: int) -> Iterator[Resource | None]:
        """What was asked for: the one resource, or the query's matches from the one at `start` on;
        None for a match that a page repeats."""
        if self._request.resource:
            yield self._request.resource
        if not self._request.query:
            return
        query, seen = self._request.query, set[Resource]()
        for item in self._store.search_all(
            None, query.level, [*query.params, *_UIDS], self._deadline, start=start
        ):
            series = uid(item, _SERIES) if query.level != "studies" else ""
            target = Resource(
                uid(item, _STUDY),
                series,
                uid(item, _INSTANCE) if query.level == "instances" else "",
            )
            yield None if target in seen else target
            seen.add(target)

    def slices(self, target: Resource | None) -> Iterator[Slice]:
        """The slices that become full with this target; `rest` gives the one that did not."""
        if target is None:
            return
        if target.instance:
            yield from self._packer.add([], *_parted(self._instances(target, 1)))
            return
        size = self._store.size(target, self._deadline)
        count = size.instances if size else None
        if target.series or (count is not None and count <= PAGE):
            yield from self._whole(target, count)
        else:
            for series in self._series(target):
                size = self._store.size(series, self._deadline)
                yield from self._whole(series, size.instances if size else None)

    def rest(self) -> Iterator[Slice]:
        """The last slice, if there is one."""
        yield from self._packer.flush()

    def _whole(self, target: Resource, count: int | None) -> Iterator[Slice]:
        by_series: dict[Resource, Found] = {}
        for resource, item in self._instances(target, count).items():
            by_series.setdefault(Resource(resource.study, resource.series), {})[resource] = item
        everything = [item for found in by_series.values() for item in found.items()]
        if sum(_weight(item) for item in everything) <= self._size:
            yield from self._packer.add([target], *_parted(dict(everything)))
            return
        for series, found in by_series.items():
            yield from self._packer.add([series], *_parted(found))

    def _instances(self, target: Resource, count: int | None) -> Found:
        """Every instance below a resource, by a listing that has at least as many as the store
        counts.

        Raises:
            RetryableError: unavailable, when it has fewer each time.
        """
        found: Found = {}
        params = [*_UIDS, *([("SOPInstanceUID", target.instance)] if target.instance else [])]
        above = Resource(target.study, target.series)
        for _ in range(_PASSES):
            if count is not None and count <= PAGE:
                page = [*params, ("limit", str(PAGE))]
                items = iter(self._store.search(above, "instances", page, self._deadline))
            else:
                items = self._store.search_all(above, "instances", params, self._deadline)
            for item in items:
                resource = Resource(
                    target.study, target.series or uid(item, _SERIES), uid(item, _INSTANCE)
                )
                found[resource] = self._item(resource, item)
            if count is None or len(found) >= count:
                break
            log(
                "WARNING",
                "listing_short",
                study=target.study,
                counts={"found": len(found), "counted": count},
            )
        else:
            if not target.instance:  # that one is just not there
                self._short(target, f"the search finds {len(found)} of {count} instances")
        return dict(sorted(found.items()))

    def _short(self, target: Resource, detail: str) -> None:
        if not self._last_chance:
            raise RetryableError("unavailable")
        self._packer.fail({**Piece(target).fields, "reason": "unavailable", "detail": detail})

    def _series(self, study: Resource) -> list[Resource]:
        found = self._store.search_all(study, "series", [], self._deadline)
        return sorted({Resource(study.study, uid(item, _SERIES)) for item in found})

    def _item(self, resource: Resource, item: dict[str, Any]) -> Item | None:
        if self._request.format not in RENDERED:
            return Item(resource)
        if not _number(item, _ROWS):
            return None
        frames = _number(item, _FRAMES)
        return Item(resource, 1, frames) if frames > 1 else Item(resource)


class _Packer:
    """Fills slices: whole studies or series while they fit, else parts of them."""

    def __init__(self, size: int, streamed: bool) -> None:
        self._size, self._streamed = size, streamed
        self._slice = Slice()

    def add(
        self, streams: list[Resource], items: list[Item], skipped: list[Resource]
    ) -> Iterator[Slice]:
        weight = sum(item.weight for item in items)
        self._slice.skipped += skipped
        if weight <= self._size * (_STREAM_SLICES if self._streamed and streams else 1):
            if self._slice.weight + weight > self._size:
                yield from self.flush()
            self._slice.items += items
            self._slice.streams += streams if self._streamed else []
            return
        for item in items:
            for part in _cut(item, self._size):
                if self._slice.weight + part.weight > self._size:
                    yield from self.flush()
                self._slice.items.append(part)

    def fail(self, failure: dict[str, Any]) -> None:
        self._slice.failures.append(failure)

    def flush(self) -> Iterator[Slice]:
        if self._slice.items or self._slice.skipped or self._slice.failures:
            yield self._slice
        self._slice = Slice()


def _parted(found: Found) -> tuple[list[Item], list[Resource]]:
    return [item for item in found.values() if item], [
        resource for resource, item in found.items() if not item
    ]


def _weight(found: tuple[Resource, Item | None]) -> int:
    return found[1].weight if found[1] else 1


def _cut(item: Item, size: int) -> Iterator[Item]:
    """An instance of very many frames in several parts."""
    if item.weight <= size:
        yield item
        return
    for first in range(item.first, item.last + 1, size):
        yield Item(item.resource, first, min(item.last, first + size - 1))


def _number(item: dict[str, Any], tag: str) -> int:
    values = item.get(tag, {}).get("Value") or [0]
    try:
        return int(values[0])
    except (TypeError, ValueError):
        return 0


def nothing_there(request: ExportRequest) -> PermanentError:
    """What an export of nothing ends in."""
    detail = (
        "the query matches nothing" if request.query else "the DICOM store has no such resource"
    )
    return PermanentError("not_found", detail)
