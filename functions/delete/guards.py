"""The guard rails of a delete: all that depend on the settings or on what the store holds. (The
command's form is checked in api/requests.py.) What they refuse is `rejected`.

    when                           what is refused
    a command or follow-up comes   check_store: a store that is not in DELETE_STORES
    a query's studies are listed   check_number: more studies than the command's `max_studies`
    a query begins                 check_all: any study that `count` or `age_refusal` refuses; then
                                   nothing at all is deleted. If the command was delivered before,
                                   a study that was stored again since waits for its own refusal,
                                   and does not count: an earlier delivery may have published that
                                   it may go
    a target is started            count: more than DELETE_MAX_INSTANCES in the whole request
                                   age_refusal: an instance that is too young

An instance is too young if it was stored

    at or after `stored_before` of the command,
    less than DELETE_MIN_AGE_HOURS before the command was sent, or
    after the command was sent: its target may have been stored again since. This is checked in
    any of three cases: the command is older than 10 minutes; it, or a follow-up of it, was
    delivered before; or an earlier DELETE of this target may have succeeded.

If the store does not say when an instance was stored, the first two refuse, because the command or
the operator named a limit. The third does not: without a time, no delete that is delivered twice
could ever end.

`count` and `age_refusal` look at the store's contents at that time: a message may be old, and
studies grow. A dry run makes only the first two checks.
"""

from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Self

from functions.common.clients.dicomweb import DicomStore
from functions.common.deadline import Deadline, age_s, now, parsed_rfc3339
from functions.common.errors import PermanentError
from functions.common.resources import DicomStoreName, Resource
from functions.common.settings import Settings
from functions.delete.followup import Work

_LATE_S: Final = 600.0
_STORED_AGAIN: Final = "stored again after the command was sent"
_THREADS: Final = 8
_BATCH: Final = 500  # instances that are asked for at once


def check_store(name: DicomStoreName, settings: Settings) -> None:
    """Check that this DICOM store may be deleted from.

    Raises:
        PermanentError: rejected.
    """
    allowed = settings.delete_stores
    if not allowed:
        allowed = (settings.dicom_store,)
    if name not in allowed:
        raise _refused_error("this DICOM store is not in DELETE_STORES")


def check_number(studies: Sized, max_studies: int) -> None:
    """Check how many studies a query matches.

    Raises:
        PermanentError: rejected.
    """
    if len(studies) > max_studies:
        raise _refused_error(f"the query matches more than {max_studies} studies")


@dataclass(frozen=True)
class GuardRails:
    """The limits of one request.

    Args:
        store: to delete from.
        max_instances: of the whole request.
        stored_before: only what was stored before this time may be deleted; None: anything.
        sent: when the command was published; None if unknown.
        late: whether any target may have been stored again since.
        repeated: whether the command or one of its follow-ups was delivered before.
        deadline: of the checks.
    """

    store: DicomStore
    max_instances: int
    stored_before: datetime | None
    sent: datetime | None
    late: bool
    repeated: bool
    deadline: Deadline

    @classmethod
    def of(
        cls,
        work: Work,
        store: DicomStore,
        settings: Settings,
        deadline: Deadline,
    ) -> Self:
        """The limits of a request, which may be an old one."""
        return cls(
            store=store,
            max_instances=settings.delete_max_instances,
            stored_before=_stored_before(work, settings.delete_min_age_hours),
            sent=parsed_rfc3339(work.published),
            late=_is_late(work),
            repeated=work.late,
            deadline=deadline,
        )

    def check_all(self, resources: Iterable[Resource]) -> None:
        """Check all targets of a request before the first one is deleted.

        Raises:
            PermanentError: rejected, as count and age_refusal.
            RetryableError: as DicomStore.search.
        """
        instances = 0
        for resource in resources:
            try:
                found = self.count(resource, others=instances)
            except PermanentError:
                # It may have grown since an earlier delivery planned it.
                if not self.repeated or self.age_refusal(resource) != _STORED_AGAIN:
                    raise
                continue
            refusal = self.age_refusal(resource)
            if refusal == _STORED_AGAIN and self.repeated:
                continue
            if refusal:
                raise _refused_error(refusal)
            instances += found

    def count(self, resource: Resource, others: int) -> int:
        """The number of instances of a resource, by a search, because the store's metrics lag.

        Args:
            others: how many other instances the request has deleted or will delete.

        Raises:
            PermanentError: rejected, when there are more than the request may delete.
            RetryableError: as DicomStore.search.
        """
        allowed = max(0, self.max_instances - others)
        one_too_many = allowed + 1
        found = self.store.count(resource, one_too_many, self.deadline)
        if found > allowed:
            limit = f"more than {self.max_instances} instances"
            raise _refused_error(f"{limit}, which DELETE_MAX_INSTANCES forbids")
        return found

    def age_refusal(self, resource: Resource, was_tried: bool = False) -> str:
        """Why a resource is refused that contains something too young; empty if it does not. Costs
        one request for each instance, if there is a limit.

        Args:
            was_tried: whether a DELETE of it was sent before. It may have succeeded, and what is
                there now was stored again.

        Raises:
            PermanentError, RetryableError: as DicomStore.search.
        """
        not_stored_since = None
        if self.late or was_tried:
            not_stored_since = self.sent
        if not self.stored_before and not not_stored_since:
            return ""
        refusal = ""
        for stored in self._stored_times(resource):
            if _is_since(not_stored_since, stored):
                refusal = _STORED_AGAIN
                # Only the other limit could still matter: check_all refuses everything for it.
                if self.stored_before is None:
                    break
            elif self._is_too_recent(stored):
                return "something in it was stored too recently"
        return refusal

    def holds_only_new(self, resource: Resource) -> bool:
        """Whether everything in a resource was stored after the command was sent; False if that is
        unknown.

        Raises:
            PermanentError, RetryableError: as DicomStore.search.
        """
        if self.sent is None:
            return False
        return all(_is_since(self.sent, stored) for stored in self._stored_times(resource))

    def _is_too_recent(self, stored: datetime | None) -> bool:
        if self.stored_before is None:
            return False
        return stored is None or stored >= self.stored_before

    def _stored_times(self, resource: Resource) -> Iterator[datetime | None]:
        """When each instance was stored; None if the store does not say."""
        instances = self.store.instances(resource, self.deadline)
        with ThreadPoolExecutor(_THREADS) as pool:
            while True:
                batch = list(islice(instances, _BATCH))
                if not batch:
                    return
                yield from pool.map(self._stored_time, batch)

    def _stored_time(self, instance: Resource) -> datetime | None:
        return parsed_rfc3339(self.store.stored_at(instance, self.deadline))


def _stored_before(work: Work, min_age_hours: int) -> datetime | None:
    """Only what was stored before this time may be deleted: the earlier one of the command's and of
    the settings' limit."""
    of_command = parsed_rfc3339(work.stored_before)
    if not min_age_hours:
        return of_command
    of_settings = _began(work) - timedelta(hours=min_age_hours)
    if of_command is None:
        return of_settings
    return min(of_command, of_settings)


def _began(work: Work) -> datetime:
    """When the command was published, also in late follow-up messages; now, if it is unknown or
    lies in the future."""
    published = parsed_rfc3339(work.published)
    if published is None:
        return now()
    return min(published, now())


def _is_since(limit: datetime | None, stored: datetime | None) -> bool:
    """Whether something was stored at that time or later; False if either is unknown."""
    if limit is None or stored is None:
        return False
    return stored >= limit


def _is_late(work: Work) -> bool:
    """Whether the command is old or was delivered before."""
    published = parsed_rfc3339(work.published)
    if work.late or published is None:
        return work.late
    return age_s(published) > _LATE_S


def _refused_error(detail: str) -> PermanentError:
    return PermanentError("rejected", detail)
