"""Delete studies, series or instances, and wait for the long-running operations."""

import json
from dataclasses import dataclass
from typing import Final

from functions.api import commands
from functions.api.requests import STUDIES_MAX, DeleteRequest
from functions.common.clients.dicomweb import DicomStore, uid
from functions.common.deadline import Deadline
from functions.common.dicom.dicomjson import STUDY_UID
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services, View, event_function
from functions.common.resources import DicomStoreName, Resource
from functions.common.settings import DELETE
from functions.delete import followup, guards, report
from functions.delete.deletion import Deletion, Settled
from functions.delete.followup import Target, Work
from functions.delete.guards import GuardRails
from functions.delete.report import Found

_PUBLISHING_S: Final = 20.0  # of the budget, reserved for the messages at the end


def entry_point() -> View:
    """Make the deployed function."""
    return event_function(DELETE, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Delete the command's target, or continue a delete.

    Raises:
        PermanentError: invalid_event for a message that came by the wrong subscription;
            invalid_command; rejected, when a guard rail or the DICOM store refuses it.
        RetryableError: the DICOM store is busy or does not answer.
    """
    message.check_subscription(followup.is_follow_up(message))
    delivery = _Delivery(
        request_id=message.request_id(),
        message=message,
        services=services,
        outcomes=outcomes,
        deadline=deadline,
        working=deadline.reserving(_PUBLISHING_S),
    )
    if message.follow_up:
        given = commands.read(message, followup.KEYS)
        delivery.go_on(given["continue"])
    else:
        delivery.start(DeleteRequest.read(message))


@dataclass(frozen=True)
class _Delivery:
    """One message of a request.

    Args:
        deadline: for all work; `working` ends earlier, so that there is time to publish.
    """

    request_id: str
    message: Message
    services: Services
    outcomes: Outcomes
    deadline: Deadline
    working: Deadline

    def start(self, wanted: DeleteRequest) -> None:
        """Find the command's targets, and begin."""
        name = wanted.store or self.services.settings.dicom_store
        store = self._allowed(name)
        if wanted.dry_run:
            self._dry_run(store, wanted)
            return
        work = Work(
            published=self.message.first_published,
            store=store.name.name,
            by_query=wanted.resource is None,
            targets=[],
            stored_before=wanted.stored_before,
            late=self._is_repeated,
        )
        if wanted.resource:
            # It is checked when it is started.
            work.targets = [Target(wanted.resource)]
            self.go_on(work)
            return
        guard_rails = self._guard_rails(store, work)
        studies = self._studies_to_delete(store, wanted, guard_rails)
        if not studies:
            # Only the outcome is missing.
            self.go_on(work)
            return
        # All or nothing.
        guard_rails.check_all(studies)
        # The plan is published before anything is deleted: a redelivery of this command would find
        # fewer studies.
        work.targets = [Target(study) for study in studies]
        self._follow_up(work)

    def go_on(self, work: Work) -> None:
        """Work while there is time; the rest goes into a follow-up message."""
        store = self._allowed(_store_name(work.store))
        # A follow-up is always fresh: the age of the command counts, over all its messages.
        work.late = work.late or self._is_repeated
        deletion = Deletion(
            store=store,
            work=work,
            guards=self._guard_rails(store, work),
            deadline=self.working,
        )
        for settled in deletion.advance():
            try:
                self._report(work, settled)
            except RetryableError:
                if not deletion.started:
                    raise
                # The follow-up has to be published first, because only this process knows the
                # operation that it has started. It finds again how this target ended, and reports
                # that.
                work.targets.append(settled.target)
                break
        if work.targets:
            self._follow_up(work)
        elif work.by_query:
            self.outcomes.publish(report.of_query(self.request_id, work))

    def _report(self, work: Work, settled: Settled) -> None:
        outcome = report.of_target(self.request_id, settled, work)
        self.outcomes.publish(outcome)
        report.count(work, settled)

    @property
    def _is_repeated(self) -> bool:
        return self.message.attempt > 1 or self.message.replayed

    def _allowed(self, name: DicomStoreName) -> DicomStore:
        guards.check_store(name, self.services.settings)
        return self.services.dicom_store.of(name)

    def _guard_rails(self, store: DicomStore, work: Work) -> GuardRails:
        settings = self.services.settings
        return GuardRails.of(work, store, settings, self.working)

    def _studies_to_delete(
        self,
        store: DicomStore,
        wanted: DeleteRequest,
        guard_rails: GuardRails,
    ) -> list[Resource]:
        """The studies that the query matched when the command was sent."""
        if not self._is_repeated:
            return self._studies(store, wanted, wanted.max_studies)
        # An earlier delivery may have published its plan. If this one were refused because of a
        # study that came since, the request would be recorded as rejected, and delete all the same.
        found = self._studies(store, wanted, STUDIES_MAX)
        studies = [study for study in found if not guard_rails.holds_only_new(study)]
        if not studies:
            # All of them are new, or gone. Each is refused, or not found, by itself.
            studies = found
        guards.check_number(studies, wanted.max_studies)
        return studies

    def _studies(self, store: DicomStore, wanted: DeleteRequest, most: int) -> list[Resource]:
        """The studies of a query, at most so many."""
        assert wanted.query
        one_too_many = str(most + 1)
        params = [*wanted.query.params, ("limit", one_too_many)]
        found = store.search(None, "studies", params, self.working)
        studies = {uid(item, STUDY_UID) for item in found}
        guards.check_number(studies, most)
        return [Resource(study) for study in sorted(studies)]

    def _dry_run(self, store: DicomStore, wanted: DeleteRequest) -> None:
        if wanted.resource:
            resources = [wanted.resource]
        else:
            resources = self._studies(store, wanted, wanted.max_studies)
        found = Found()
        for resource in resources:
            self._count(store, resource, found)
        outcome = report.of_dry_run(self.request_id, wanted.resource, found)
        self.outcomes.publish(outcome)

    def _count(self, store: DicomStore, resource: Resource, found: Found) -> None:
        """Add what a resource contains."""
        series: set[str] = set()
        instances = 0
        for instance in store.instances(resource, self.working):
            series.add(instance.series)
            instances += 1
        if not instances:
            return
        found.studies += 1
        found.series += len(series)
        found.instances += instances
        found.size_bytes += store.size_bytes(resource, self.working)

    def _follow_up(self, work: Work) -> None:
        content = {"continue": work.to_json(), "request_id": self.request_id}
        data = json.dumps(content, separators=(",", ":")).encode()
        topic = self.services.settings.deletes_next_topic
        self.services.topics.publish(topic, data, {}, self.deadline)


def _store_name(text: str) -> DicomStoreName:
    try:
        return DicomStoreName(text)
    except ValueError:
        raise PermanentError("invalid_command", "a malformed follow-up message") from None
