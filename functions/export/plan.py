"""The plan of an export: which instances there are, cut into slices of which each is one
invocation's work.

The order of a search is not documented, so a listing of several pages is checked for instances that
come twice, and repeated. The store's metrics would not do: they lag (fact sheet section 17).
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final

from functions.common.clients.dicomweb import DicomStore, uid
from functions.common.deadline import Deadline
from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import INSTANCE_UID, SERIES_UID, STUDY_UID, DataSet
from functions.common.errors import PermanentError, RetryableError
from functions.common.log import log
from functions.common.resources import Resource
from functions.export.request import ExportRequest
from functions.export.slices import Item, Piece, Slice

PAGE: Final = 1000
_PASSES: Final = 3
_STREAM_SLICES: Final = (
    5  # a series up to this many times the size of a slice is still retrieved in one answer
)
_UIDS: Final = (("includefield", STUDY_UID), ("includefield", SERIES_UID))
_FRAMES: Final = "00280008"
_ROWS: Final = "00280010"
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
        self._packer = _Packer(size, request.format.streamed)

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
            series = uid(item, SERIES_UID) if query.level != "studies" else ""
            instance = uid(item, INSTANCE_UID) if query.level == "instances" else ""
            target = Resource(uid(item, STUDY_UID), series, instance)
            yield None if target in seen else target
            seen.add(target)

    def slices(self, target: Resource | None) -> Iterator[Slice]:
        """The slices that become full with this target; `rest` gives the one that did not."""
        if target is None:
            return
        rows = self._rows(target)
        first = list(islice(rows, PAGE + 1))
        if len(first) > PAGE and not target.series:
            for series in self._series(target):
                yield from self._packed(series, self._listed_series(series))
            return
        found = self._listed(target, chain(first, rows))
        if target.instance:
            yield from self._packer.add([], *_parted(found))
        else:
            yield from self._packed(target, found)

    def rest(self) -> Iterator[Slice]:
        """The last slice, if there is one."""
        yield from self._packer.flush()

    def _packed(self, target: Resource, found: Found) -> Iterator[Slice]:
        """A study or series as a whole where it fits a slice, else series by series."""
        if sum(map(_weight, found.items())) <= self._size:
            yield from self._packer.add([target], *_parted(found))
            return
        by_series: dict[Resource, Found] = {}
        for resource, item in found.items():
            by_series.setdefault(Resource(resource.study, resource.series), {})[resource] = item
        for series, part in by_series.items():
            yield from self._packer.add([series], *_parted(part))

    def _rows(self, target: Resource) -> Iterator[DataSet]:
        params = list(_UIDS)
        if target.instance:
            params.append(("SOPInstanceUID", target.instance))
        above = Resource(target.study, target.series)
        return self._store.search_all(above, "instances", params, self._deadline)

    def _listed_series(self, series: Resource) -> Found:
        found = self._listed(series, self._rows(series))
        if not found:  # the search of the study's series has it
            self._short(series, "the search finds no instance of this series")
        return found

    def _listed(self, target: Resource, rows: Iterable[DataSet]) -> Found:
        """Every instance below a resource. The order of a search is not documented: where pages
        overlap, an instance comes twice and another is missing, and all is listed again.

        Raises:
            RetryableError: unavailable, when fewer instances than rows are found each time.
        """
        found: Found = {}
        count = 0
        for _ in range(_PASSES):
            count = 0
            for row in rows:
                count += 1
                series = target.series or uid(row, SERIES_UID)
                resource = Resource(target.study, series, uid(row, INSTANCE_UID))
                found[resource] = self._item(resource, row)
            if len(found) >= count:
                return dict(sorted(found.items()))
            counts = {"found": len(found), "listed": count}
            log("WARNING", "listing_short", study=target.study, counts=counts)
            rows = self._rows(target)
        self._short(target, f"the search finds {len(found)} of {count} instances")
        return dict(sorted(found.items()))

    def _short(self, target: Resource, detail: str) -> None:
        if not self._last_chance:
            raise RetryableError("unavailable")
        self._packer.fail({**Piece(target).fields, "reason": "unavailable", "detail": detail})

    def _series(self, study: Resource) -> list[Resource]:
        found = self._store.search_all(study, "series", [], self._deadline)
        return sorted({Resource(study.study, uid(item, SERIES_UID)) for item in found})

    def _item(self, resource: Resource, row: DataSet) -> Item | None:
        if not self._request.format.rendered:
            return Item(resource)
        if not dicomjson.number(row, _ROWS):
            return None
        frames = dicomjson.number(row, _FRAMES)
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


def nothing_there(request: ExportRequest) -> PermanentError:
    """What an export of nothing ends in."""
    detail = (
        "the query matches nothing" if request.query else "the DICOM store has no such resource"
    )
    return PermanentError("not_found", detail)
