"""The plan of an export: its instances, packed into slices for one invocation each.

The order of a search is not documented, so a listing of several pages is checked for rows that come
twice, and repeated. The store's metrics cannot be used, because they lag (fact sheet section
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
from functions.export.slices import Item, Slice, failure

PAGE: Final = 1000
# Of one instance, if each becomes an object.
FRAMES_MAX: Final = 1_000_000
# A listing that is incomplete is repeated.
_LISTINGS: Final = 3
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
        self._deadline = job.work_deadline
        self._attempt = job.attempt
        self._packer = Packer(size, job.request.format.streamed)

    def targets(self, after: Resource | None) -> list[Resource]:
        """The one resource, or the query's matches, sorted by their UIDs.

        Each delivery lists all matches again, so that a match is not missed if the store's order
        changes in between.

        Args:
            after: the last match that an earlier delivery has planned.

        Raises:
            RetryableError: unavailable, when the matches were not all found. From the delivery on
                that may give up, this is recorded as a failure instead, and planning goes on.
        """
        if self._request.resource:
            return [self._request.resource]
        query = self._request.query
        if query is None:
            return []
        matches = self._resources(None, query.level, [*query.params, *_UIDS])
        if after:
            matches = {match for match in matches if match > after}
        return sorted(matches)

    def slices(self, target: Resource) -> Iterator[Slice]:
        """The slices that become full with this target; `rest` returns the one that did not."""
        self._packer.begin_target()
        rows = self._rows(target)
        first = list(islice(rows, PAGE + 1))
        # A large study is listed series by series, so that never all of it is in memory.
        if len(first) > PAGE and not target.series:
            # The two pages that were read take some MiB.
            del first, rows
            yield from self._by_series(target)
            return
        found = self._listed(target, chain(first, rows))
        if target.instance:
            yield from self._packer.add_instances(found)
        else:
            yield from self._packer.add_whole(target, found)

    def drop_target(self) -> None:
        """Forget what was found of the last target: the time was over before it was complete."""
        self._packer.drop_target()

    def rest(self) -> list[Slice]:
        """The last slice, if there is one."""
        return self._packer.flush()

    def _by_series(self, study: Resource) -> Iterator[Slice]:
        for series in sorted(self._resources(study, "series", list(_UIDS))):
            found = self._listed(series, self._rows(series))
            if len(found) == 0:
                self._give_up_or_raise(series, "the search finds no instance of this series")
                continue
            yield from self._packer.add_whole(series, found)

    def _rows(self, target: Resource) -> Iterator[DataSet]:
        params = list(_UIDS)
        if target.instance:
            params.append(("SOPInstanceUID", target.instance))
        above = Resource(target.study, target.series)
        return self._store.search_all(above, "instances", params, self._deadline)

    def _resources(
        self,
        above: Resource | None,
        level: str,
        params: list[tuple[str, str]],
    ) -> set[Resource]:
        """The studies, series or instances that a search finds."""
        # What earlier listings found is kept: together they may be complete.
        found = set[Resource]()
        for _ in range(_LISTINGS):
            count = 0
            for row in self._store.search_all(above, level, params, self._deadline):
                count += 1
                found.add(_of_level(row, level))
            if _is_complete(len(found), count):
                return found
        self._give_up_or_raise(above, f"the search finds {len(found)} of {count} {level}")
        return found

    def _listed(self, target: Resource, rows: Iterable[DataSet]) -> Found:
        """Every instance of a resource.

        Args:
            rows: of the first listing.
        """
        found = Found()
        for _ in range(_LISTINGS):
            count = 0
            for row in rows:
                count += 1
                self._note(found, target, row)
            if _is_complete(len(found), count):
                return found
            rows = self._rows(target)
        self._give_up_or_raise(target, f"the search finds {len(found)} of {count} instances")
        return found

    def _note(self, found: Found, target: Resource, row: DataSet) -> None:
        series = target.series or uid(row, SERIES_UID)
        instance = Resource(target.study, series, uid(row, INSTANCE_UID))
        if not self._request.format.rendered:
            found.items[instance] = Item(instance)
            return
        frames = dicomjson.number(row, _FRAMES)
        if not dicomjson.number(row, _ROWS):
            # There is no image in it.
            found.skipped.add(instance)
        elif frames > FRAMES_MAX:
            # A listing that is read again must not repeat the failure.
            if instance not in found.failed:
                detail = f"more than {FRAMES_MAX} frames"
                self._packer.fail(failure(instance, "rejected", detail))
            found.failed.add(instance)
        elif frames > 1:
            # Each frame becomes an object.
            found.items[instance] = Item(instance, 1, frames)
        else:
            found.items[instance] = Item(instance)

    def _give_up_or_raise(self, target: Resource | None, detail: str) -> None:
        """Every listing is incomplete: record a failure, or leave it to another delivery.

        Args:
            target: None for a query.
        """
        if not self._attempt.may_give_up:
            raise RetryableError("unavailable")
        self._packer.fail(failure(target, "unavailable", detail))


def _is_complete(found: int, listed: int) -> bool:
    """Whether as many resources were found as rows were listed. If pages overlap, a row comes twice
    and another one is missing."""
    if found >= listed:
        return True
    log("WARNING", "listing_short", counts={"found": found, "listed": listed})
    return False


def _of_level(row: DataSet, level: str) -> Resource:
    study = uid(row, STUDY_UID)
    if level == "studies":
        return Resource(study)
    series = uid(row, SERIES_UID)
    if level == "series":
        return Resource(study, series)
    return Resource(study, series, uid(row, INSTANCE_UID))


def not_found_error(request: ExportRequest) -> PermanentError:
    """The error of an empty export."""
    detail = "the DICOM store has no such resource"
    if request.query:
        detail = "the query matches nothing"
    return PermanentError("not_found", detail)
