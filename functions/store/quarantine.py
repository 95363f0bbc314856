"""Where objects go that can never be stored: `gs://QUARANTINE/<reason>/<name>`, each with a sidecar
that says why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.deadline import Deadline, utc_now
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef, is_bucket

SIDECAR_ENDING: Final = ".reason.json"
SIDECAR_LIMIT_BYTES: Final = 16 * 1024 * 1024

_OUTCOME_KEY: Final = "dicom-outcome"  # of a sidecar's metadata
_NAME_BYTES: Final = 1024  # of an object, at most
_GENERATION_BYTES: Final = 20  # with the mark in front
_ADDED_BYTES: Final = len("unsupported_input/") + len(SIDECAR_ENDING) + _GENERATION_BYTES


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
        """What the object is called in quarantine: as before, below its reason.

        A name too long for that is cut, and one that could be a sidecar's gets its generation as an
        ending.
        """
        name = self.source.name
        most = _NAME_BYTES - _ADDED_BYTES
        if len(name.encode()) > most or name.endswith(SIDECAR_ENDING):
            ending = f"~{self.source.generation}"
            kept = name.encode()[: most - len(ending)]
            name = kept.decode(errors="ignore") + ending
        return f"{self.reason}/{name}"

    def dump(self) -> bytes:
        """As JSON."""
        members = [{"member": name, "reason": reason} for name, reason in self.members]
        document: dict[str, Any] = {
            "reason": self.reason,
            "detail": self.detail,
            "bucket": self.source.bucket,
            "name": self.source.name,
            "generation": str(self.source.generation),
            "outcome_id": self.outcome_id,
            "time": utc_now(),
            "members": members,
        }
        given = {key: value for key, value in document.items() if value}
        return json.dumps(given, indent=1).encode()

    @classmethod
    def load(cls, text: bytes) -> "Sidecar":
        """Read a sidecar again, members left out.

        Raises:
            ValueError: it is none.
        """
        try:
            document: Mapping[str, Any] = json.loads(text)
            generation = int(document["generation"])
            source = ObjectRef(document["bucket"], document["name"], generation)
            return cls(str(document["reason"]), str(document.get("detail", "")), source)
        except (KeyError, TypeError, AttributeError, RecursionError, PermanentError) as error:
            raise ValueError("not a sidecar of the quarantine") from error


def put(bucket: str, sidecar: Sidecar, buckets: Buckets, deadline: Deadline) -> None:
    """Write the sidecar and copy the object beside it; the source stays. Doing it again changes
    nothing.

    Another upload of the same name that waits there is not replaced: the later one gets its
    generation as an ending.

    Raises:
        SupersededError: the object is gone or was overwritten.
        RetryableError: as Transport.send; unavailable also where the quarantine itself is wrong,
            such as a bucket that does not exist: that heals, and the object must not be lost to it.
    """
    assert is_bucket(bucket)
    place = _Place(bucket, sidecar, buckets, deadline)
    name = sidecar.name
    try:
        while not place.put(name):
            name = f"{name}~{sidecar.source.generation}"
    except PermanentError as error:
        raise RetryableError("unavailable") from error


@dataclass(frozen=True)
class _Place:
    """The quarantine bucket, for one object and its sidecar."""

    bucket: str
    sidecar: Sidecar
    buckets: Buckets
    deadline: Deadline

    def put(self, name: str) -> bool:
        """Put both under this name; False where another object has it."""
        beside = name + SIDECAR_ENDING
        written = self._write(beside)
        if written is None and not self._is_ours(beside):
            return False
        try:
            self.buckets.copy(self.sidecar.source, self.bucket, name, self.deadline)
        except SupersededError:
            if written is not None:
                self.buckets.delete(written, self.deadline)
            raise
        return True

    def _write(self, name: str) -> ObjectRef | None:
        """The sidecar's object; None where there is one of this name already."""
        try:
            made = self.buckets.create(
                self.bucket,
                name,
                self.sidecar.dump(),
                self.deadline,
                content_type="application/json",
                metadata={_OUTCOME_KEY: self.sidecar.outcome_id},
            )
        except PreconditionFailedError:
            return None
        return made.ref

    def _is_ours(self, name: str) -> bool:
        """Whether the sidecar there is of this very object, from an earlier delivery."""
        there = self.buckets.stat(ObjectRef(self.bucket, name), self.deadline)
        return there is not None and there.metadata.get(_OUTCOME_KEY) == self.sidecar.outcome_id
