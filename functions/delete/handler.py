"""Delete studies, series or instances, and follow the long-running operations to their end."""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from functions.common.clients.dicomweb import DicomStore, uid
from functions.common.deadline import Deadline, age_s, timestamp, utc_now
from functions.common.dicom.dicomjson import STUDY_UID
from functions.common.errors import PermanentError
from functions.common.events import commands
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes, Word
from functions.common.events.requests import DeleteRequest
from functions.common.events.runtime import Services, View, event_function, request_id
from functions.common.resources import DicomStoreName, Resource
from functions.common.settings import DELETE
from functions.delete import followup
from functions.delete.deletion import Deletion, Settled
from functions.delete.followup import Target, Work
from functions.delete.guards import GuardRails

_LATE_S: Final = 600.0
_PUBLISHING_S: Final = 20.0  # kept of the budget for the messages at the end


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(DELETE, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Delete what the command names, or go on with a delete.

    Raises:
        PermanentError: invalid_event for a message that came by the wrong subscription;
            invalid_command; rejected, when a guard rail or the DICOM store refuses it.
        RetryableError: the DICOM store is busy or away.
    """
    left_s = deadline.remaining_s()
    working = Deadline(max(1.0, left_s - min(_PUBLISHING_S, left_s / 4)))
    message.check_way(followup.is_follow_up(message))
    if message.follow_up:
        given = commands.read(message, followup.KEYS)
        name = request_id(message)
        _Delivery(name, message, services, outcomes, deadline, working).go_on(given["continue"])
    else:
        wanted = DeleteRequest.read(message)
        name = request_id(message)
        _Delivery(name, message, services, outcomes, deadline, working).start(wanted)


@dataclass(frozen=True)
class _Delivery:
    """One message of a request.

    Args:
        name: the request's id.
        deadline: of all that is done; `working` ends earlier, so that there is time to publish.
    """

    name: str
    message: Message
    services: Services
    outcomes: Outcomes
    deadline: Deadline
    working: Deadline

    def start(self, wanted: DeleteRequest) -> None:
        """Find what the command names, and begin."""
        store = self._allowed(wanted.store or self.services.settings.dicom_store)
        resource = wanted.resource
        if wanted.dry_run:
            self._dry_run(store, wanted)
            return
        work = Work(
            asked=self.message.first_published,
            store=store.name.name,
            by_query=resource is None,
            targets=self._targets(store, wanted),
            stored_before=wanted.stored_before,
        )
        if resource or not work.targets:
            self.go_on(work)
            return
        # All or nothing: each study is checked before the first one goes.
        guards = self._guards(store, work)
        taken = 0
        for target in work.targets:
            taken += guards.count(target.resource, taken)
            guards.check_age(target.resource)
        # The plan is published before anything is deleted: a redelivery of this command would find
        # fewer studies.
        work.late = self._is_repeated
        self._follow_up(work)

    def go_on(self, work: Work) -> None:
        """Do as much as there is time for; the rest goes into a follow-up message."""
        store = self._allowed(_store_name(work.store))
        # A follow-up is always fresh: what counts is the command, however many messages ago it was
        # given.
        work.late = work.late or self._is_repeated
        guards = self._guards(store, work)
        for settled in Deletion(store, work, guards, self.working).advance():
            _count(work, settled)
            member = str(settled.target.resource) if work.by_query else ""
            self.outcomes.publish(self._outcome(settled, member))
        if work.targets:
            self._follow_up(work)
        elif work.by_query:
            self.outcomes.publish(_summary(self.name, work))

    @property
    def _is_repeated(self) -> bool:
        return self.message.attempt > 1 or self.message.replayed

    def _allowed(self, name: DicomStoreName) -> DicomStore:
        settings = self.services.settings
        if name not in (settings.delete_stores or (settings.dicom_store,)):
            raise PermanentError("rejected", "DELETE_STORES does not have this DICOM store")
        return self.services.dicom_store.of(name)

    def _guards(self, store: DicomStore, work: Work) -> GuardRails:
        settings, asked = self.services.settings, timestamp(work.asked)
        now = timestamp(utc_now()) or datetime.max
        limits = [timestamp(work.stored_before)]
        if settings.delete_min_age_hours:
            begin = min(now, asked or now)
            limits.append(begin - timedelta(hours=settings.delete_min_age_hours))
        is_late = work.late or (asked is not None and age_s(asked) > _LATE_S)
        return GuardRails(
            store=store,
            max_instances=settings.delete_max_instances,
            before=min((limit for limit in limits if limit), default=None),
            asked=asked if is_late else None,
            deadline=self.working,
        )

    def _targets(self, store: DicomStore, wanted: DeleteRequest) -> list[Target]:
        """The resource, or the studies of a query; one that matches more than `max_studies` is
        refused."""
        if wanted.resource:
            return [Target(wanted.resource)]
        assert wanted.query
        params = [*wanted.query.params, ("limit", str(wanted.max_studies + 1))]
        found = store.search(None, "studies", params, self.working)
        studies = {uid(item, STUDY_UID) for item in found}
        if len(studies) > wanted.max_studies:
            raise PermanentError(
                "rejected", f"the query matches more than {wanted.max_studies} studies"
            )
        return [Target(Resource(study)) for study in sorted(studies)]

    def _dry_run(self, store: DicomStore, wanted: DeleteRequest) -> None:
        """Say what would go: counts by search, bytes by the store's metrics, which lag."""
        targets = self._targets(store, wanted)
        series = set[Resource]()
        studies = instances = size_bytes = 0
        for target in targets:
            before = instances
            for instance in store.instances(target.resource, self.working):
                instances += 1
                series.add(Resource(instance.study, instance.series))
            if instances > before:
                studies += 1
                size_bytes += store.size_bytes(target.resource, self.working)
        counts = {"studies": studies, "series": len(series), "instances": instances}
        reason = "" if instances else "not_found"
        self.outcomes.publish(
            Outcome(
                "dry_run",
                reason,
                request_id=self.name,
                resource=wanted.resource,
                size_bytes=size_bytes,
                counts=counts,
            )
        )

    def _outcome(self, settled: Settled, member: str) -> Outcome:
        target = settled.target
        outcome = Outcome(
            settled.word,
            settled.reason,
            request_id=self.name,
            member=member,
            resource=target.resource,
            detail=settled.detail,
        )
        if settled.word == "deleted" and not settled.reason:
            counts = {"instances": target.instances}
            return replace(outcome, size_bytes=target.size_bytes, counts=counts)
        if settled.reason == "not_found" and self.message.attempt > 1:
            detail = "nothing was there; an earlier delivery may have deleted it"
            return replace(outcome, detail=detail)
        return outcome

    def _follow_up(self, work: Work) -> None:
        content = {"continue": work.to_json(), "request_id": self.name}
        data = json.dumps(content, separators=(",", ":")).encode()
        topic = self.services.settings.deletes_next_topic
        self.services.topics.publish(topic, data, {}, self.deadline)


def _store_name(text: str) -> DicomStoreName:
    try:
        return DicomStoreName(text)
    except ValueError:
        raise PermanentError("invalid_command", "a malformed follow-up message") from None


def _count(work: Work, settled: Settled) -> None:
    if settled.word != "deleted":
        work.counts["failed"] += 1
    elif settled.reason:
        work.counts["not_found"] += 1
    else:
        work.counts["deleted"] += 1
        work.counts["instances"] += settled.target.instances
        work.counts["bytes"] += settled.target.size_bytes


def _summary(name: str, work: Work) -> Outcome:
    """The outcome of the whole query, after those of its studies."""
    counts = {key: count for key, count in work.counts.items() if key != "bytes"}
    size_bytes = work.counts["bytes"]
    if not work.counts["failed"]:
        reason = "" if work.counts["deleted"] else "not_found"
        return Outcome("deleted", reason, request_id=name, size_bytes=size_bytes, counts=counts)
    word: Word = "partial" if work.counts["deleted"] else "rejected"
    return Outcome(word, "operation_failed", request_id=name, size_bytes=size_bytes, counts=counts)
