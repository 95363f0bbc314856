"""Report when nothing was stored in a study for a while: it is complete, and waiting exports can
begin.

There is no timer and no database. The first stored record of a study creates its marker and
publishes a follow-up message; most other records are only acknowledged. Pub/Sub delivers the
follow-up again and again until nothing has changed for `STUDY_QUIET_S`. Then the exports are
requested, the record is published and the marker is closed, in this order: if the process is killed
in between, this is repeated with the same ids.
"""

import functools
import json
from dataclasses import dataclass
from typing import Final

from functions.common.clients.dicomweb import DicomStore
from functions.common.deadline import Deadline, now, rfc3339
from functions.common.errors import PermanentError, RetryableError, correctable
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.events.runtime import Services, View, event_function
from functions.common.resources import Resource
from functions.common.settings import WATCH, Settings
from functions.watch import orders
from functions.watch.markers import Count, Marker, Markers
from functions.watch.memory import OpenStudies
from functions.watch.orders import Order
from functions.watch.stored import Stored

_KEYS: Final = frozenset({"study", "first"})
# Pub/Sub dead-letters a message after 100 deliveries: a study that arrives slowly gets a new
# follow-up message.
_ATTEMPTS: Final = 80


def entry_point() -> View:
    """Make the deployed function.

    Raises:
        SettingsError: a setting, or an order of ON_STUDY_COMPLETE, is missing or malformed.
    """
    known_orders = orders.read(Settings.load(WATCH))
    bound = functools.partial(
        handle,
        open_studies=OpenStudies(),
        known_orders=known_orders,
    )
    return event_function(WATCH, bound)


def handle(
    message: Message,
    services: Services,
    outcomes: Outcomes,
    deadline: Deadline,
    open_studies: OpenStudies,
    known_orders: tuple[Order, ...] = (),
) -> None:
    """Process a stored record, or check whether a study is complete.

    Raises:
        PermanentError: invalid_event.
        RetryableError: operation_pending while the study is not quiet; the DICOM store or the state
            bucket is busy, refuses or does not answer.
    """
    is_follow_up = message.json().keys() == _KEYS
    message.check_subscription(is_follow_up)
    delivery = _Delivery(
        services=services,
        outcomes=outcomes,
        deadline=deadline,
        markers=Markers(
            buckets=services.buckets,
            bucket=services.settings.state_bucket,
            quiet_s=services.settings.study_quiet_s,
            deadline=deadline,
        ),
    )
    if is_follow_up:
        study, first = _read(message)
        delivery.check(study, first, message.attempt, known_orders)
    else:
        delivery.watch(Stored.of(message), open_studies)


@dataclass(frozen=True)
class _Delivery:
    """One message, and what is needed to process it."""

    services: Services
    outcomes: Outcomes
    deadline: Deadline
    markers: Markers

    def watch(self, stored: Stored, open_studies: OpenStudies) -> None:
        """An instance was stored: its study is open."""
        if open_studies.covers(stored, self.services.settings.study_quiet_s):
            return
        marker = self.markers.record(stored)
        if not marker.is_open:
            return
        if marker.was_opened_by(stored):
            self._follow_up(stored.study, marker)
        open_studies.seen_open(stored.study, marker)

    def check(
        self,
        study: Resource,
        first: str,
        attempt: int,
        known_orders: tuple[Order, ...],
    ) -> None:
        """A follow-up message: report the study if it is complete.

        Args:
            first: of the marker that the message belongs to.
            attempt: of the delivery, from 1.
        """
        marker = self.markers.find(study)
        if marker is None or not marker.is_open or rfc3339(marker.first) != first:
            return  # another delivery finished it
        # Taken before the count, because instances stored while counting may be missed.
        counting_began = now()
        was_quiet = marker.is_quiet(self.services.settings.study_quiet_s)
        count = _count(self.services.dicom_store, study, self.deadline)
        # With several pages, one instance may come twice and another one be missing. The number of
        # instances is right all the same; that of the series may not be.
        is_same = count.instances == marker.count.instances
        if is_same and was_quiet:
            # One that was deleted meanwhile is not reported.
            has_instances = count.instances > 0
            if has_instances:
                self._complete(study, marker, count, known_orders)
            self.markers.close(study, marker, counting_began, reported=has_instances)
            return
        if not is_same:
            self.markers.keep_count(study, marker, count)
        if attempt < _ATTEMPTS:
            raise RetryableError("operation_pending")
        self._follow_up(study, marker)

    def _complete(
        self,
        study: Resource,
        marker: Marker,
        count: Count,
        known_orders: tuple[Order, ...],
    ) -> None:
        """Start the exports and report the study."""
        exports = orders.publish(
            orders=known_orders,
            study=study,
            completion=marker.generation,
            services=self.services,
            deadline=self.deadline,
        )
        counts = {
            # With several pages, this count may miss a series.
            "series": max(count.series, marker.count.series),
            "instances": count.instances,
            "exports": exports,
        }
        complete = Outcome(
            "study_complete",
            resource=study,
            place=f"{study.study}#{marker.generation}",  # its id: one for each completion
            counts=counts,
            first=rfc3339(marker.first),
            last=rfc3339(marker.changed),
            again=marker.reported,
        )
        self.outcomes.publish(complete)

    def _follow_up(self, study: Resource, marker: Marker) -> None:
        content = {"study": study.study, "first": rfc3339(marker.first)}
        data = json.dumps(content).encode()
        topic = self.services.settings.studies_next_topic
        self.services.topics.publish(topic, data, {}, self.deadline)


def _count(store: DicomStore, study: Resource, deadline: Deadline) -> Count:
    """The store's counts, by a search for instances: its metrics lag, and so may a search for
    series (fact sheet sections 4 and 7).

    Raises:
        RetryableError: the store is busy or does not answer; unavailable also when it refuses the
            search. If the follow-up message were acknowledged then, its marker would stay open.
    """
    instances = 0
    series: set[str] = set()
    with correctable():
        for instance in store.instances(study, deadline):
            instances += 1
            series.add(instance.series)
    return Count(instances, len(series))


def _read(message: Message) -> tuple[Resource, str]:
    """The study and the period of a follow-up message."""
    data = message.json()
    study, first = data["study"], data["first"]
    if not isinstance(study, str) or not isinstance(first, str):
        raise PermanentError("invalid_event", "a follow-up message has malformed values")
    return Resource(study), first
