"""The marker of a study: one small object in the state bucket, `studies/<study>.json`.

    (none) ──first record──▶ open ──quiet for STUDY_QUIET_S──▶ complete ──later record──▶ open

An open marker names the record that opened it: the delivery of that record publishes the follow-up
message, which waits until the study is complete. Every change is made on the condition that the
generation is the one that was read, so of two processes one succeeds, and the other's message is
delivered again.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from functions.common.clients.json_objects import JsonObjects, Kept
from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.deadline import Deadline, age_s, timestamp, utc_now, written
from functions.common.errors import RetryableError
from functions.common.resources import Resource
from functions.watch.stored import Stored

_FOLDER: Final = "studies"
_LIMIT_BYTES: Final = 4096
_CLOCKS_S: Final = 1.0  # the greatest difference between two machines' clocks


@dataclass(frozen=True)
class Count:
    """The counts of a study in the DICOM store; -1: not counted yet."""

    instances: int = -1
    series: int = -1


@dataclass(frozen=True)
class Marker:
    """The state of a study. Times are RFC 3339 in UTC.

    Args:
        opened_by: the message id of the record that opened it.
        first: when the first record of this period was made.
        count: the last count.
        moved: when that number of instances was first seen.
        counted: when the count began that made the study complete; empty while it is open.
        again: whether the study was complete before.
        generation: of the object; 0: not written yet.
    """

    opened_by: str
    first: str
    count: Count = Count()
    moved: str = ""
    counted: str = ""
    again: bool = False
    generation: int = 0

    @property
    def is_open(self) -> bool:
        """Whether its follow-up message still waits."""
        return not self.counted

    def is_quiet(self, quiet_s: float) -> bool:
        """Whether its number of instances was first seen at least so many seconds ago."""
        moved = timestamp(self.moved)
        return moved is not None and age_s(moved) >= quiet_s

    def holds(self, stored: Stored) -> bool:
        """Whether the instance is certain to be in the count that made the study complete."""
        counted = timestamp(self.counted)
        return counted is not None and stored.before <= counted - timedelta(seconds=_CLOCKS_S)


class Markers:
    """Reads and writes markers.

    Args:
        buckets: the client.
        bucket: the state bucket.
        deadline: of the invocation.
    """

    def __init__(self, buckets: Buckets, bucket: str, deadline: Deadline) -> None:
        self._objects = JsonObjects(buckets, bucket, deadline, _LIMIT_BYTES)

    def open_for(self, stored: Stored) -> Marker:
        """The study's marker after this record, which opens it unless a marker already counts it.

        Raises:
            RetryableError: operation_pending, when another process changed it meanwhile.
        """
        marker = self.find(stored.study)
        if marker is None:
            return self._write(stored.study, Marker(stored.message_id, written(stored.before)))
        if marker.is_open or marker.holds(stored):
            return marker
        reopened = Marker(
            opened_by=stored.message_id,
            first=written(stored.before),
            again=True,
            generation=marker.generation,
        )
        return self._write(stored.study, reopened)

    def find(self, study: Resource) -> Marker | None:
        """The study's marker, if it has one.

        Raises:
            RetryableError: the state bucket does not answer.
        """
        kept = self._objects.read(_name(study))
        if kept is None:
            return None
        return _marker(kept)

    def keep_count(self, study: Resource, marker: Marker, count: Count) -> None:
        """Keep a count that differs from the last one."""
        self._write(study, replace(marker, count=count, moved=utc_now()))

    def close(self, study: Resource, marker: Marker, counted: str) -> None:
        """The study is complete; `counted` is when the last count began."""
        self._write(study, replace(marker, counted=counted))

    def _write(self, study: Resource, marker: Marker) -> Marker:
        try:
            generation = self._objects.write(_name(study), _value(marker), marker.generation)
        except PreconditionFailedError:
            raise RetryableError("operation_pending") from None
        return replace(marker, generation=generation)


def _name(study: Resource) -> str:
    return f"{_FOLDER}/{study.study}.json"


def _marker(kept: Kept) -> Marker:
    """Read a marker; only this function writes to the folder."""
    value = dict(kept.value)
    try:
        count = Count(*value.pop("count"))
        return Marker(**value, count=count, generation=kept.generation)
    except (TypeError, KeyError):
        raise RetryableError("unavailable") from None


def _value(marker: Marker) -> dict[str, Any]:
    return {
        "opened_by": marker.opened_by,
        "first": marker.first,
        "count": [marker.count.instances, marker.count.series],
        "moved": marker.moved,
        "counted": marker.counted,
        "again": marker.again,
    }
