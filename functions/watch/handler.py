"""Report when nothing was stored in a study for a while: it is complete, and waiting exports can
begin.

There is no timer and no database. The first stored record of a study creates its marker and
publishes a follow-up message; the other records are acknowledged. Pub/Sub delivers the follow-up
again and again until the DICOM store's count has not changed for `STUDY_QUIET_S`. Then the exports
are requested, the record is published and the marker is closed, in this order: if the process is
killed in between, this is repeated with the same ids.
"""

import functools
import json
from typing import Any, Final

from functions.common.clients.dicomweb import DicomStore
from functions.common.deadline import Deadline, utc_now
from functions.common.errors import PermanentError, RetryableError
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
# Pub/Sub dead-letters a message after 100 deliveries: a study that arrives slowly gets a new one.
_ATTEMPTS: Final = 80


def entry_point() -> View:
    """Make the deployed function.

    Raises:
        SettingsError: a setting, or an order of ON_STUDY_COMPLETE, is missing or malformed.
    """
    given = orders.read(Settings.load(WATCH))
    return event_function(WATCH, functools.partial(handle, open_studies=OpenStudies(), given=given))


def handle(
    message: Message,
    services: Services,
    outcomes: Outcomes,
    deadline: Deadline,
    open_studies: OpenStudies,
    given: tuple[Order, ...] = (),
) -> None:
    """Process a stored record, or check whether a study is complete.

    Raises:
        PermanentError: invalid_event.
        RetryableError: operation_pending while the study is not quiet; the DICOM store or the state
            bucket is busy or does not answer.
    """
    is_follow_up = message.json().keys() == _KEYS
    message.check_way(is_follow_up)
    markers = Markers(services.buckets, services.settings.state_bucket, deadline)
    if is_follow_up:
        _finish_when_quiet(message, markers, services, outcomes, deadline, given)
        return
    stored = Stored.of(message)
    if open_studies.covers(stored, services.settings.study_quiet_s):
        return
    marker = markers.open_for(stored)
    if not marker.is_open:
        return
    if marker.opened_by == stored.message_id:
        _follow_up(stored.study, marker, services, deadline)
    open_studies.seen_open(stored, marker.opened_by)


def _finish_when_quiet(
    message: Message,
    markers: Markers,
    services: Services,
    outcomes: Outcomes,
    deadline: Deadline,
    given: tuple[Order, ...],
) -> None:
    study, first = _read(message)
    marker = markers.find(study)
    if marker is None or not marker.is_open or marker.first != first:
        return  # another delivery finished it
    # The time before the count, which may take long: instances stored meanwhile may not be in it.
    waited = marker.is_quiet(services.settings.study_quiet_s)
    counted = utc_now()
    count = _count(services.dicom_store, study, deadline)
    # The number of series does not count: with several pages, a search may miss instances.
    has_moved = count.instances != marker.count.instances
    if has_moved:
        markers.keep_count(study, marker, count)
    if has_moved or not waited:
        if message.attempt < _ATTEMPTS:
            raise RetryableError("operation_pending")
        _follow_up(study, marker, services, deadline)
        return
    if count.instances:  # else it was deleted meanwhile, and is not reported
        asked = orders.give(given, study, count.instances, services, deadline)
        outcomes.publish(_complete(study, marker, count, asked))
    markers.close(study, marker, counted)


def _count(store: DicomStore, study: Resource, deadline: Deadline) -> Count:
    """The store's counts, by a search for instances: its metrics lag, and so may a search for
    series (fact sheet sections 4 and 7)."""
    instances = 0
    series: set[str] = set()
    for instance in store.instances(study, deadline):
        instances += 1
        series.add(instance.series)
    return Count(instances, len(series))


def _complete(study: Resource, marker: Marker, count: Count, asked: int) -> Outcome:
    return Outcome(
        "study_complete",
        resource=study,
        place=f"{study.study}#{marker.first}",  # its id: one for each time it became complete
        counts={
            # A count may miss a series, as above.
            "series": max(count.series, marker.count.series),
            "instances": count.instances,
            "exports": asked,
        },
        first=marker.first,
        last=marker.moved,
        again=marker.again,
    )


def _follow_up(study: Resource, marker: Marker, services: Services, deadline: Deadline) -> None:
    data: dict[str, Any] = {"study": study.study, "first": marker.first}
    topic = services.settings.studies_next_topic
    services.topics.publish(topic, json.dumps(data).encode(), {}, deadline)


def _read(message: Message) -> tuple[Resource, str]:
    """The study and the period of a follow-up message."""
    data = message.json()
    study, first = data["study"], data["first"]
    if not isinstance(study, str) or not isinstance(first, str):
        raise PermanentError("invalid_event", "a follow-up message has other values")
    return Resource(study), first
