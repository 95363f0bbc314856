"""Where objects go that can never be stored: `gs://QUARANTINE/<reason>/<name>`, each with a sidecar
that says why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.clients.transport import read_all
from functions.common.deadline import Deadline, utc_now
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef, is_bucket

SIDECAR_ENDING: Final = ".reason.json"
SIDECAR_LIMIT_BYTES: Final = 16 * 1024 * 1024
_GENERATION_BYTES: Final = 20  # with the mark in front
_NAME_BYTES: Final = 1024 - len(SIDECAR_ENDING) - len("unsupported_input/") - _GENERATION_BYTES


@dataclass(frozen=True)
class Sidecar:
    """Why an object is in quarantine.

    Args:
        reason: one of the reasons in errors.py.
        detail: one line of our own words.
        source: the object it was.
        outcome_id: of its outcome record.
        members: of an archive, those that could not be stored, with their reasons (the first
            thousand).
    """

    reason: str
    detail: str
    source: ObjectRef
    outcome_id: str = ""
    members: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What the object is called in quarantine: as before, below its reason; a name too long for
        that is cut, and one that could be a sidecar's gets its generation as an ending."""
        name = self.source.name
        if len(name.encode()) > _NAME_BYTES or name.endswith(SIDECAR_ENDING):
            tail = f"~{self.source.generation}"
            name = name.encode()[: _NAME_BYTES - len(tail)].decode(errors="ignore") + tail
        return f"{self.reason}/{name}"

    def dump(self) -> bytes:
        """As JSON."""
        sidecar: dict[str, Any] = {
            "reason": self.reason,
            "detail": self.detail,
            "bucket": self.source.bucket,
            "name": self.source.name,
            "generation": str(self.source.generation),
            "outcome_id": self.outcome_id,
            "time": utc_now(),
            "members": [{"member": name, "reason": reason} for name, reason in self.members],
        }
        return json.dumps(
            {key: value for key, value in sidecar.items() if value}, indent=1
        ).encode()

    @classmethod
    def load(cls, text: bytes) -> "Sidecar":
        """Read a sidecar again, members left out.

        Raises:
            ValueError: it is none.
        """
        try:
            sidecar: Mapping[str, Any] = json.loads(text)
            source = ObjectRef(sidecar["bucket"], sidecar["name"], int(sidecar["generation"]))
            return cls(str(sidecar["reason"]), str(sidecar.get("detail", "")), source)
        except (KeyError, TypeError, AttributeError, PermanentError) as error:
            raise ValueError("not a quarantine sidecar") from error


def put(bucket: str, sidecar: Sidecar, buckets: Buckets, deadline: Deadline) -> None:
    """Write the sidecar and copy the object beside it; the source stays. Doing it again changes
    nothing.

    An earlier upload of the same name that waits there is not touched: the later one gets its
    generation as an ending.

    Raises:
        SupersededError: the object is gone or was overwritten.
        RetryableError: as Transport.send; unavailable also where the quarantine itself is at fault,
            such as a bucket that does not exist: that heals, and the object must not be lost to it.
    """
    assert is_bucket(bucket)
    try:
        for name in (sidecar.name, f"{sidecar.name}~{sidecar.source.generation}"):
            written = _write_sidecar(bucket, name + SIDECAR_ENDING, sidecar, buckets, deadline)
            if written is not None or _is_of(
                bucket, name + SIDECAR_ENDING, sidecar.source, buckets, deadline
            ):
                break
        try:
            buckets.copy(sidecar.source, bucket, name, deadline)
        except SupersededError:
            if written is not None:
                buckets.delete(written, deadline)
            raise
    except PermanentError as error:
        raise RetryableError("unavailable") from error


def _write_sidecar(
    bucket: str, name: str, sidecar: Sidecar, buckets: Buckets, deadline: Deadline
) -> ObjectRef | None:
    """The sidecar's object; None when there is one of this name already."""
    try:
        return buckets.create(
            bucket, name, sidecar.dump(), deadline, content_type="application/json"
        ).ref
    except PreconditionFailedError:
        return None


def _is_of(bucket: str, name: str, source: ObjectRef, buckets: Buckets, deadline: Deadline) -> bool:
    """Whether the sidecar there is of this very object, from an earlier delivery of its event."""
    try:
        with buckets.open(ObjectRef(bucket, name), deadline) as response:
            return Sidecar.load(read_all(response, deadline, SIDECAR_LIMIT_BYTES)).source == source
    except (SupersededError, ValueError):
        return False
