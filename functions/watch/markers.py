"""The marker of a study: one small object in the state bucket, `studies/<study>.json`.

    (none) ──first record──▶ open ──quiet for STUDY_QUIET_S──▶ complete ──later record──▶ open

An open marker names the record that opened it: the delivery of that record, or of its replay,
publishes the follow-up message, which waits until the study is complete. Every change is made on
the condition that the generation is the one that was read, so of two processes one succeeds, and
the other's message is delivered again.

The quiet time of an open marker begins again when the number of instances has changed, and when a
record comes. The number alone is not enough: one instance may be replaced by another. Records
that come in quick succession do not all write the marker: a record does if it is newer than the
last change by more than a quarter of the quiet time. So at least three quarters of the quiet time
lie between the last record and the count that closes the marker.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from functions.common.clients.json_objects import JsonObjects, Kept
from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.deadline import Deadline, age_s, now, parsed_rfc3339, rfc3339
from functions.common.errors import RetryableError
from functions.common.resources import Resource
from functions.watch.stored import Stored

_FOLDER: Final = "studies"
_LIMIT_BYTES: Final = 4096
_CLOCKS: Final = timedelta(seconds=1)  # the greatest difference between two machines' clocks


@dataclass(frozen=True)
class Count:
    """The counts of a study in the DICOM store; -1: not counted yet."""

    instances: int = -1
    series: int = -1


@dataclass(frozen=True)
class Marker:
    """The state of a study.

    Args:
        opened_by: the message id of the record that opened it.
        record_id: the id of that record.
        first: when the first record of this period was made.
        changed: when the quiet time began: with a record, or with another number of instances.
        count: the last count.
        counting_began: when the count began that made the study complete; None while it is open.
        reported: whether the study was ever reported as complete.
        generation: of the object; 0: not written yet. The generation that is closed identifies a
            completion: as long as nothing changes, a repeated attempt finds the same one.
    """

    opened_by: str
    record_id: str
    first: datetime
    changed: datetime
    count: Count = Count()
    counting_began: datetime | None = None
    reported: bool = False
    generation: int = 0

    @classmethod
    def opened(cls, stored: Stored) -> "Marker":
        """A new one, which this record opens."""
        return cls(
            opened_by=stored.message_id,
            record_id=stored.record_id,
            first=stored.time,
            changed=stored.time,
        )

    @property
    def is_open(self) -> bool:
        """Whether its follow-up message still waits."""
        return self.counting_began is None

    def was_opened_by(self, stored: Stored) -> bool:
        """Whether this record opened it: its follow-up message may be missing.

        If it could not be published, the record's message becomes a dead letter, and its replay has
        another message id. Without a replay, the message id decides: of a record that was published
        twice, one message is followed up.
        """
        if stored.replayed:
            return stored.record_id == self.record_id
        return stored.message_id == self.opened_by

    def is_quiet(self, quiet_s: float) -> bool:
        """Whether its quiet time is over."""
        return age_s(self.changed) >= quiet_s

    def holds(self, stored: Stored) -> bool:
        """Whether the instance is certain to be in the count that made the study complete."""
        if self.counting_began is None:
            return False
        return stored.time <= self.counting_began - _CLOCKS


def needs_no_write(stored: Stored, changed: datetime, quiet_s: float) -> bool:
    """Whether an open marker stays as it is after this record.

    Args:
        changed: of the marker.
    """
    quarter = timedelta(seconds=quiet_s / 4)
    return stored.time <= changed + quarter


class Markers:
    """Reads and writes markers.

    Args:
        buckets: the client.
        bucket: the state bucket.
        quiet_s: seconds after which a study is complete.
        deadline: of the invocation.
    """

    def __init__(self, buckets: Buckets, bucket: str, quiet_s: float, deadline: Deadline) -> None:
        self._objects = JsonObjects(buckets, bucket, deadline, _LIMIT_BYTES)
        self._quiet_s = quiet_s

    def record(self, stored: Stored) -> Marker:
        """Open the study's marker with this record, or let its quiet time begin again; returns the
        marker.

        Raises:
            RetryableError: operation_pending, when another process changed it meanwhile.
        """
        marker = self.find(stored.study)
        if marker is None:
            return self._write(stored.study, Marker.opened(stored))
        if marker.is_open:
            return self._extend(stored, marker)
        if marker.holds(stored):
            return marker
        reopened = replace(
            Marker.opened(stored),
            reported=marker.reported,
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
        self._write(study, replace(marker, count=count, changed=now()))

    def close(
        self,
        study: Resource,
        marker: Marker,
        counting_began: datetime,
        *,
        reported: bool,
    ) -> None:
        """The study is complete, or it was deleted.

        Args:
            counting_began: when the last count began.
            reported: whether it was reported now.

        Raises:
            RetryableError: operation_pending, when a record changed the marker meanwhile: the study
                will be complete again. The state bucket does not answer.
        """
        closed = replace(
            marker,
            counting_began=counting_began,
            reported=reported or marker.reported,
        )
        try:
            self._write(study, closed)
        except RetryableError:
            if reported:
                self._keep_reported(study, marker)
            raise

    def _keep_reported(self, study: Resource, reported: Marker) -> None:
        """Keep that the study was reported, in a marker that was changed since."""
        marker = self.find(study)
        if marker is None or not marker.is_open or marker.reported:
            return
        # An unchanged one stays: its generation is the id of the report, which will be repeated.
        if marker.generation == reported.generation:
            return
        self._write(study, replace(marker, reported=True))

    def _extend(self, stored: Stored, marker: Marker) -> Marker:
        if needs_no_write(stored, marker.changed, self._quiet_s):
            return marker
        return self._write(stored.study, replace(marker, changed=stored.time))

    def _write(self, study: Resource, marker: Marker) -> Marker:
        name = _name(study)
        value = _value(marker)
        try:
            generation = self._objects.write(
                name,
                value,
                if_generation_match=marker.generation,
            )
        except PreconditionFailedError:
            raise RetryableError("operation_pending") from None
        return replace(marker, generation=generation)


def _name(study: Resource) -> str:
    return f"{_FOLDER}/{study.study}.json"


def _value(marker: Marker) -> dict[str, Any]:
    counting_began = ""
    if marker.counting_began:
        counting_began = rfc3339(marker.counting_began)
    return {
        "opened_by": marker.opened_by,
        "record_id": marker.record_id,
        "first": rfc3339(marker.first),
        "changed": rfc3339(marker.changed),
        "count": [marker.count.instances, marker.count.series],
        "counting_began": counting_began,
        "reported": marker.reported,
    }


def _marker(kept: Kept) -> Marker:
    """Read a marker; only this function writes to the folder."""
    value = kept.value
    try:
        return Marker(
            opened_by=value["opened_by"],
            record_id=value["record_id"],
            first=_time(value["first"]),
            changed=_time(value["changed"]),
            count=Count(*value["count"]),
            counting_began=parsed_rfc3339(value["counting_began"]),
            reported=value["reported"],
            generation=kept.generation,
        )
    except (TypeError, KeyError, ValueError):
        raise RetryableError("unavailable") from None


def _time(text: str) -> datetime:
    time = parsed_rfc3339(text)
    if time is None:
        raise ValueError
    return time
