"""The plan of an export: its instances, packed into slices for one invocation each.

The order of a search is not documented, so a listing of several pages is checked for instances that
come twice, and repeated. The store's metrics cannot be used, because they lag (fact sheet section
17).
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

from functions.api.requests import ExportRequest
from functions.common.clients.dicomweb import uid
from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import INSTANCE_UID, SERIES_UID, STUDY_UID, DataSet
from functions.common.errors import PermanentError, RetryableError
from functions.common.log import log
from functions.common.resources import Resource
from functions.export.job import Job
from functions.export.packing import Found, Packer
from functions.export.slices import Item, Piece, Slice

PAGE: Final = 1000
# Of one instance, if each becomes an object.
FRAMES_MAX: Final = 1_000_000
_PASSES: Final = 3
_UIDS: Final = (("includefield", STUDY_UID), ("includefield", SERIES_UID))
_FRAMES: Final = "00280008"
_ROWS: Final = "00280010"


class Planner:
    """Finds the instances of an export.

    Args:
        size: of a slice, in objects.
    """

    def __init__(self, job: Job, size: int) -> None:
        self._store = job.store
        self._request = job.request
        self._deadline = job.deadline
        self._attempt = job.attempt
        self._packer = Packer(size, job.request.format.streamed)

    def targets(self, start: int) -> Iterator[Resource | None]:
        """The targets: the one resource, or the query's matches from the one at `start` on; None
        for a match that a page repeats."""
        query = self._request.query
        if query is None:
            yield self._request.resource
            return
        params = [*query.params, *_UIDS]
        seen = set[Resource]()
        for row in self._store.search_all(None, query.level, params, self._deadline, start=start):
            target = _of_level(row, query.level)
            if target in seen:
                yield None
                continue
            seen.add(target)
            yield target

    def slices(self, target: Resource | None) -> Iterator[Slice]:
        """The slices that become full with this target; `rest` returns the one that did not."""
        if target is None:
            return
        rows = self._rows(target)
        first = list(islice(rows, PAGE + 1))
        # A large study is listed series by series, so that never all of it is in memory.
        if len(first) > PAGE and not target.series:
            first.clear()  # a page takes some MiB
            yield from self._by_series(target)
            return
        found = self._listed(target, chain(first, rows))
        if target.instance:
            yield from self._packer.add_instances(found)
        else:
            yield from self._packer.add_whole(target, found)

    def rest(self) -> Iterator[Slice]:
        """The last slice, if there is one."""
        yield from self._packer.flush()

    def _by_series(self, study: Resource) -> Iterator[Slice]:
        rows = self._store.search_all(study, "series", [], self._deadline)
        uids = {uid(row, SERIES_UID) for row in rows}
        for one in sorted(uids):
            series = Resource(study.study, one)
            found = self._listed(series, self._rows(series))
            if not found:
                self._give_up_listing(series, "the search finds no instance of this series")
            yield from self._packer.add_whole(series, found)

    def _rows(self, target: Resource) -> Iterator[DataSet]:
        params = list(_UIDS)
        if target.instance:
            params.append(("SOPInstanceUID", target.instance))
        above = Resource(target.study, target.series)
        return self._store.search_all(above, "instances", params, self._deadline)

    def _listed(self, target: Resource, rows: Iterable[DataSet]) -> Found:
        """Every instance of a resource. If pages overlap, an instance comes twice and another one
        is missing; then all are listed again.

        Raises:
            RetryableError: unavailable, when fewer instances than rows are found each time.
        """
        found = Found()
        for _ in range(_PASSES):
            count = 0
            for row in rows:
                count += 1
                self._note(found, target, row)
            if len(found) >= count:
                return found
            counts = {"found": len(found), "listed": count}
            log("WARNING", "listing_short", study=target.study, counts=counts)
            rows = self._rows(target)
        self._give_up_listing(target, f"the search finds {len(found)} of {count} instances")
        return found

    def _note(self, found: Found, target: Resource, row: DataSet) -> None:
        series = target.series or uid(row, SERIES_UID)
        instance = Resource(target.study, series, uid(row, INSTANCE_UID))
        if not self._request.format.rendered:
            found.items[instance] = Item(instance)
            return
        frames = dicomjson.number(row, _FRAMES)
        if not dicomjson.number(row, _ROWS):
            found.skipped.add(instance)
        elif frames > FRAMES_MAX:
            if instance not in found.failed:
                self._fail(instance, "rejected", f"more than {FRAMES_MAX} frames")
            found.failed.add(instance)
        elif frames > 1:
            found.items[instance] = Item(instance, 1, frames)
        else:
            found.items[instance] = Item(instance)

    def _give_up_listing(self, target: Resource, detail: str) -> None:
        if not self._attempt.may_give_up:
            raise RetryableError("unavailable")
        self._fail(target, "unavailable", detail)

    def _fail(self, target: Resource, reason: str, detail: str) -> None:
        self._packer.fail(Piece(target).failure(reason, detail))


def _of_level(row: DataSet, level: str) -> Resource:
    study = uid(row, STUDY_UID)
    if level == "studies":
        return Resource(study)
    series = uid(row, SERIES_UID)
    if level == "series":
        return Resource(study, series)
    return Resource(study, series, uid(row, INSTANCE_UID))


def nothing_there(request: ExportRequest) -> PermanentError:
    """The error of an empty export."""
    detail = "the DICOM store has no such resource"
    if request.query:
        detail = "the query matches nothing"
    return PermanentError("not_found", detail)
