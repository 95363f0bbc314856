"""The outcome record: every input ends in exactly one.

Pub/Sub delivers at least once, so a record may be published again after a crash. Its `id` depends
only on the input: if several records have the same id, the first by `time` counts; later ones
repeat it, or are `duplicate` or `superseded`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from functions.common.clients.pubsub import Topics
from functions.common.deadline import Deadline, utc_now
from functions.common.events.messages import Message
from functions.common.log import FIELDS, log
from functions.common.resources import ObjectRef, Resource

Word = Literal[
    "stored",  # the DICOM store has it
    "duplicate",  # the DICOM store already had it, byte for byte
    "conflict",  # the store has other bytes under its UIDs
    "rejected",  # it cannot be done; reason says why
    "superseded",  # the object is gone, or a newer generation has its own event
    "deleted",
    "exported",
    "partial",  # a part of it was done; the counts say how much
    "dry_run",
    "study_complete",  # nothing was stored in a study for a while
    "skipped",  # not a scan: a member of an archive, or a folder's placeholder
]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one input.

    Args:
        outcome: one of the outcomes above.
        reason: why, if that is not obvious; one of the reasons in errors.py, or empty.
        source: the object that an event was about, if it was about one.
        request_id: the id of a command, or of the request that uploaded an object.
        member: the path inside an archive.
        place: its position in the archive, to distinguish members with the same path.
        resource: the study, series or instance, as far as known.
        size_bytes: of the input, or of everything that was written.
        counts: counts by kind, for inputs of several parts.
        detail: one line of our own words.
        first, last: of study_complete: when its first instance was stored, and when its quiet time
            began; RFC 3339.
        again: of study_complete: whether it was reported before.
    """

    outcome: Word
    reason: str = ""
    source: ObjectRef | None = None
    request_id: str = ""
    member: str = ""
    place: str = ""
    resource: Resource | None = None
    size_bytes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""
    first: str = ""
    last: str = ""
    again: bool = False


@dataclass(frozen=True)
class Outcomes:
    """Publishes and logs the outcomes of one delivery.

    Args:
        function: the function's name.
        topic: `projects/P/topics/T`.
        topics: the client.
        message: the delivery that is being handled.
        deadline: of this invocation.
        trace: `projects/P/traces/T`, or empty.
    """

    function: str
    topic: str
    topics: Topics
    message: Message
    deadline: Deadline
    trace: str = ""

    def publish(self, outcome: Outcome) -> None:
        """Publish a record, and log it without the object's name.

        Raises:
            RetryableError: it could not be published; the input must be delivered again.
        """
        record = self._record(outcome)
        attributes = {
            "outcome": outcome.outcome,
            "function": self.function,
            "reason": outcome.reason,
            "study": record.get("study", ""),
            "request_id": outcome.request_id,
        }
        self.topics.publish(self.topic, json.dumps(record).encode(), attributes, self.deadline)
        logged = {key: value for key, value in record.items() if key in FIELDS}
        log("INFO", "outcome", trace=self.trace, **logged)

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        identity = outcome.source or outcome.request_id
        record = {
            "id": outcome_id(self.function, identity, outcome.member + outcome.place),
            "time": utc_now(),
            "outcome": outcome.outcome,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "function": self.function,
            **_source(outcome.source),
            "request_id": outcome.request_id,
            "member": outcome.member,
            **_resource(outcome.resource),
            "counts": dict(outcome.counts),
            "bytes": outcome.size_bytes,
            "first": outcome.first,
            "last": outcome.last,
            "again": outcome.again or "",
            "attempt": self.message.attempt,
            "duration_ms": round(self.deadline.elapsed_s() * 1000),
            "trace": self.trace,
        }
        return {key: value for key, value in record.items() if value not in ("", {})}


def _source(source: ObjectRef | None) -> dict[str, str]:
    if source is None:
        return {}
    return {"bucket": source.bucket, "name": source.name, "generation": str(source.generation)}


def _resource(resource: Resource | None) -> dict[str, str]:
    if resource is None:
        return {}
    return {"study": resource.study, "series": resource.series, "instance": resource.instance}


def outcome_id(function: str, identity: ObjectRef | str, member: str = "") -> str:
    """The id of an input's outcome: a hash, which can be logged (a name cannot)."""
    if isinstance(identity, str):
        parts = [identity]
    else:
        parts = [identity.bucket, identity.name, str(identity.generation)]
    text = json.dumps([function, *parts, member])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
