"""The marker of a study: one small object in the state bucket, `studies/<study>.json`.

    (none) ──first record──▶ open ──two equal counts──▶ complete ──later record──▶ open again

An open marker names the record that opened it: that record's delivery publishes the follow-up
message which waits until the study is complete. Every change is made at the generation that was
read, so of two processes one wins and the other is delivered again.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.clients.transport import read_all
from functions.common.deadline import Deadline, age_s, timestamp, utc_now
from functions.common.errors import RetryableError, SupersededError
from functions.common.resources import ObjectRef, Resource
from functions.watch.stored import Stored

_FOLDER: Final = "studies"
_LIMIT_BYTES: Final = 4096
_CLOCKS_S: Final = 1.0  # how much the clocks of two machines may differ


@dataclass(frozen=True)
class Count:
    """What a study has in the DICOM store; -1: not counted yet."""

    instances: int = -1
    series: int = -1


@dataclass(frozen=True)
class Marker:
    """Where a study stands. Times are RFC 3339 in UTC.

    Args:
        opened_by: the message id of the record that opened it.
        first: when the first record of this period was made.
        count: what the DICOM store had at the last count.
        moved: when that count was first seen.
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
        """Whether the count was first seen so many seconds ago."""
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
        self._buckets, self._bucket, self._deadline = buckets, bucket, deadline

    def of(self, stored: Stored) -> Marker:
        """The study's marker after this record: opened by it where there is none that counts it.

        Raises:
            RetryableError: operation_pending, when another process changed it meanwhile.
        """
        marker = self.find(stored.study)
        if marker is None:
            return self._write(stored.study, Marker(stored.message_id, _text(stored.before)))
        if marker.is_open or marker.holds(stored):
            return marker
        reopened = Marker(
            opened_by=stored.message_id,
            first=_text(stored.before),
            again=True,
            generation=marker.generation,
        )
        return self._write(stored.study, reopened)

    def find(self, study: Resource) -> Marker | None:
        """The study's marker, if it has one.

        Raises:
            RetryableError: the state bucket is away.
        """
        try:
            response = self._buckets.open(self._ref(study), self._deadline)
        except SupersededError:
            return None
        with response:
            data = read_all(response, self._deadline, _LIMIT_BYTES)
            generation = response.headers.get("x-goog-generation", "")
        return _parse(data, generation)

    def keep_count(self, study: Resource, marker: Marker, count: Count) -> None:
        """Keep a count that differs from the last one."""
        self._write(study, replace(marker, count=count, moved=utc_now()))

    def close(self, study: Resource, marker: Marker, counted: str) -> None:
        """The study is complete; `counted` is when the last count began."""
        self._write(study, replace(marker, counted=counted))

    def _write(self, study: Resource, marker: Marker) -> Marker:
        ref = self._ref(study)
        try:
            written = self._buckets.create(
                ref.bucket,
                ref.name,
                _dump(marker),
                self._deadline,
                content_type="application/json",
                if_generation_match=marker.generation,
            )
        except PreconditionFailedError:
            raise RetryableError("operation_pending") from None
        return replace(marker, generation=written.ref.generation)

    def _ref(self, study: Resource) -> ObjectRef:
        return ObjectRef(self._bucket, f"{_FOLDER}/{study.study}.json")


def _parse(data: bytes, generation: str) -> Marker:
    """A marker as it was written; only this function writes the folder."""
    try:
        value: dict[str, Any] = json.loads(data)
        count = Count(*value.pop("count"))
        return Marker(**value, count=count, generation=int(generation))
    except (TypeError, ValueError):
        raise RetryableError("unavailable") from None


def _dump(marker: Marker) -> bytes:
    return json.dumps(
        {
            "opened_by": marker.opened_by,
            "first": marker.first,
            "count": [marker.count.instances, marker.count.series],
            "moved": marker.moved,
            "counted": marker.counted,
            "again": marker.again,
        }
    ).encode()


def _text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
