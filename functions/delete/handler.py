"""Delete studies, series or instances, and follow the long-running operations to their end."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from functions.common.clients.dicomweb import DicomStore, uid
from functions.common.deadline import Deadline, age_s, timestamp, utc_now
from functions.common.errors import PermanentError
from functions.common.events import commands
from functions.common.events.commands import Query
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.events.runtime import Services, View, event_function, request_id
from functions.common.resources import DicomStoreName, Resource
from functions.common.settings import DELETE, Settings
from functions.delete.deletion import Deletion, Settled, Target, Work, stored_since

_STUDIES_MAX: Final = 1000
_LATE_S: Final = 600.0
_PUBLISHING_S: Final = 20.0  # kept of the budget for the messages at the end
_COMMAND: Final[dict[str, commands.Parse]] = {
    "path": commands.resource,
    "query": Query.parse,
    "max_studies": commands.whole(1, _STUDIES_MAX),
    "dry_run": commands.flag,
    "stored_before": commands.time,
    "request_id": commands.text,
}
_FOLLOW_UP: Final[dict[str, commands.Parse]] = {"continue": Work.parse, "request_id": commands.text}


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(DELETE, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Delete what the command names, or go on with a delete.

    Raises:
        PermanentError: invalid_command; rejected, when a guard rail or the DICOM store refuses it.
        RetryableError: the DICOM store is busy or away.
    """
    working = Deadline(
        max(1.0, deadline.remaining_s() - min(_PUBLISHING_S, deadline.remaining_s() / 4))
    )
    message.check_way(_is_follow_up(message))
    if message.follow_up:
        given = commands.read(message, _FOLLOW_UP)
        name, work = request_id(message, given), given["continue"]
        _advance(name, work, message, services, outcomes, working)
        return
    command = commands.read(message, _COMMAND)
    name = request_id(message, command)
    store, resource = _scope(command, services)
    targets = _targets(store, resource, command, working)
    if command.get("dry_run"):
        outcomes.publish(_dry_run(name, resource, targets))
        return
    _guard(store, targets, command, services.settings, working)
    late = message.attempt > 1 or message.replayed
    work = Work(message.first_published, store.name.name, resource is None, targets, late=late)
    if resource is None and targets:
        # The plan is published before anything is deleted: a redelivery of this command would find
        # fewer studies.
        _follow_up(name, work, services, deadline)
    else:
        _advance(name, work, message, services, outcomes, working)


def _is_follow_up(message: Message) -> bool:
    return bool(message.data.strip()) and "continue" in message.json()


def _scope(command: dict[str, Any], services: Services) -> tuple[DicomStore, Resource | None]:
    """The store, and the resource (None: a query's matches)."""
    if ("path" in command) == ("query" in command):
        raise PermanentError("invalid_command", "a delete takes either path or query")
    if "query" not in command:
        if "max_studies" in command:
            raise PermanentError("invalid_command", "max_studies goes with query")
        store, resource = command["path"]
        return _allowed(store or services.settings.dicom_store, services), resource
    if "max_studies" not in command or command["query"].level != "studies":
        raise PermanentError(
            "invalid_command", "a delete by query is of studies and takes max_studies"
        )
    return _allowed(services.settings.dicom_store, services), None


def _allowed(name: DicomStoreName, services: Services) -> DicomStore:
    settings = services.settings
    if name not in (settings.delete_stores or (settings.dicom_store,)):
        raise PermanentError("rejected", "DELETE_STORES does not have this DICOM store")
    return services.dicom_store.of(name)


def _targets(
    store: DicomStore, resource: Resource | None, command: dict[str, Any], deadline: Deadline
) -> list[Target]:
    """What is to be deleted, with its size; a query that matches more than `max_studies` is
    refused."""
    if resource:
        return [_measured(store, resource, deadline)]
    wanted: int = command["max_studies"]
    params = [*command["query"].params, ("limit", str(wanted + 1))]
    studies = {uid(item, "0020000D") for item in store.search(None, "studies", params, deadline)}
    if len(studies) > wanted:
        raise PermanentError("rejected", f"the query matches more than {wanted} studies")
    return [_measured(store, Resource(study), deadline) for study in sorted(studies)]


def _measured(store: DicomStore, resource: Resource, deadline: Deadline) -> Target:
    size = store.size(resource, deadline)
    return (
        Target(resource, size.instances, size.size_bytes, series=size.series)
        if size
        else Target(resource)
    )


def _dry_run(name: str, resource: Resource | None, targets: list[Target]) -> Outcome:
    """Counts and bytes of what would go."""
    found = [target for target in targets if target.instances]
    counts = {
        "studies": len({target.resource.study for target in found}),
        "series": sum(target.series for target in found),
        "instances": sum(target.instances for target in found),
    }
    size_bytes = sum(target.size_bytes for target in found)
    reason = "" if found else "not_found"
    return Outcome(
        "dry_run", reason, request_id=name, resource=resource, size_bytes=size_bytes, counts=counts
    )


def _guard(
    store: DicomStore,
    targets: list[Target],
    command: dict[str, Any],
    settings: Settings,
    deadline: Deadline,
) -> None:
    instances = sum(target.instances for target in targets)
    if instances > settings.delete_max_instances:
        raise PermanentError(
            "rejected", f"{instances} instances are more than DELETE_MAX_INSTANCES"
        )
    moments = [moment for moment in (timestamp(command.get("stored_before", "")),) if moment]
    if settings.delete_min_age_hours and (now := timestamp(utc_now())):
        moments.append(now - timedelta(hours=settings.delete_min_age_hours))
    if not moments:
        return
    for target in targets:
        if stored_since(
            store, target.resource, min(moments).isoformat(), deadline, when_unknown=True
        ):
            raise PermanentError("rejected", "something in it was stored too recently")


def _advance(
    name: str,
    work: Work,
    message: Message,
    services: Services,
    outcomes: Outcomes,
    deadline: Deadline,
) -> None:
    store = _allowed(_store_name(work.store), services)
    # A follow-up is always fresh: what counts is the command, however many messages ago it was
    # given.
    work.late = work.late or message.attempt > 1 or message.replayed
    asked = timestamp(work.asked)
    late = work.late or (asked is not None and age_s(asked) > _LATE_S)
    most = services.settings.delete_max_instances
    for settled in Deletion(store, work, late, most, deadline).advance():
        _count(work, settled)
        if work.by_query:
            outcomes.publish(_outcome(name, settled, message, member=str(settled.target.resource)))
        else:
            outcomes.publish(_outcome(name, settled, message))
    if work.targets:
        _follow_up(name, work, services, outcomes.deadline)
    elif work.by_query:
        outcomes.publish(_summary(name, work))


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


def _outcome(name: str, settled: Settled, message: Message, member: str = "") -> Outcome:
    target = settled.target
    gone = settled.word == "deleted" and not settled.reason
    outcome = Outcome(
        settled.word,
        settled.reason,
        request_id=name,
        member=member,
        resource=target.resource,
        detail=settled.detail,
    )
    if gone:
        return replace(
            outcome, size_bytes=target.size_bytes, counts={"instances": target.instances}
        )
    if settled.reason == "not_found" and message.attempt > 1:
        return replace(outcome, detail="nothing was there; an earlier delivery may have deleted it")
    return outcome


def _summary(name: str, work: Work) -> Outcome:
    """The outcome of the whole query, after those of its studies."""
    counts = {key: count for key, count in work.counts.items() if key != "bytes"}
    size_bytes = work.counts["bytes"]
    if not work.counts["failed"]:
        reason = "" if work.counts["deleted"] else "not_found"
        return Outcome("deleted", reason, request_id=name, size_bytes=size_bytes, counts=counts)
    word: Any = "partial" if work.counts["deleted"] else "rejected"
    return Outcome(word, "operation_failed", request_id=name, size_bytes=size_bytes, counts=counts)


def _follow_up(name: str, work: Work, services: Services, deadline: Deadline) -> None:
    data = json.dumps(
        {"continue": work.to_json(), "request_id": name}, separators=(",", ":")
    ).encode()
    services.topics.publish(services.settings.deletes_next_topic, data, {}, deadline)
