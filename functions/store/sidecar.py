"""The sidecar of an object in quarantine, `gs://QUARANTINE/<reason>/<name>.reason.json`, which says
why it is there. The command dicom-functions reads it too."""

import json
from dataclasses import dataclass
from typing import Any, Final

from functions.common import jsonvalues
from functions.common.deadline import utc_now
from functions.common.errors import PermanentError
from functions.common.resources import ObjectRef

SIDECAR_ENDING: Final = ".reason.json"
SIDECAR_LIMIT_BYTES: Final = 16 * 1024 * 1024

# Cloud Storage allows 1024 bytes. A generation with the mark in front has 20.
NAME_BYTES: Final = 1024 - 20
_ADDED_BYTES: Final = len("unsupported_input/") + len(SIDECAR_ENDING)


@dataclass(frozen=True)
class Sidecar:
    """Why an object is in quarantine.

    Args:
        reason: one of the reasons in errors.py.
        detail: one line for a person.
        source: the uploaded object.
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
        """The object's name in quarantine: its old name, below the reason.

        A name that is too long is cut, and the generation is added to one that could be a
        sidecar's.
        """
        name = self.source.name
        most_bytes = NAME_BYTES - _ADDED_BYTES
        if len(name.encode()) > most_bytes or name.endswith(SIDECAR_ENDING):
            name = cut_name(name, self.source.generation, most_bytes)
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
        """Read a sidecar, without its members.

        Raises:
            ValueError: it is not a sidecar.
        """
        document = jsonvalues.parsed(text)
        try:
            generation = int(document["generation"])
            source = ObjectRef(document["bucket"], document["name"], generation)
            return cls(str(document["reason"]), str(document.get("detail", "")), source)
        except (KeyError, TypeError, AttributeError, PermanentError) as error:
            raise ValueError("not a sidecar of the quarantine") from error


def cut_name(name: str, generation: int, most_bytes: int) -> str:
    """A name for a copy: the beginning of this one, and the generation.

    Args:
        name: of an object.
        generation: of the object.
        most_bytes: of both; NAME_BYTES leaves room for a generation behind it.
    """
    ending = f"~{generation}"
    kept = name.encode()[: most_bytes - len(ending)]
    return kept.decode(errors="ignore") + ending
