"""What became of a slice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.clients.storage import StoredObject
from functions.export.parts import Part
from functions.export.slices import Slice

TOTALS: Final = ("objects", "written", "bytes", "failures", "skipped")


@dataclass
class Result:
    """The result of a slice.

    Args:
        objects: each with name, bytes, crc32c and UIDs.
        failures: each with UIDs, reason and detail.
        skipped: instances that have nothing of the wanted kind.
        part: this slice's part of a joined object.
        written: how many of the objects this export wrote; the others existed before.
        rest: what there was no time for: another slice.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    part: Part | None = None
    written: int = 0
    rest: Slice | None = None

    def totals(self) -> dict[str, int]:
        """The numbers by TOTALS."""
        return {
            "objects": len(self.objects),
            "written": self.written,
            "bytes": sum(int(entry["bytes"]) for entry in self.objects),
            "failures": len(self.failures),
            "skipped": len(self.skipped),
        }

    def to_json(self) -> dict[str, Any]:
        """For a state object, whose metadata has the totals and the rest."""
        return {
            "objects": self.objects,
            "failures": self.failures,
            "skipped": self.skipped,
            "part": self.part.to_json() if self.part else None,
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any], bucket: str) -> "Result":
        """From a state object: without `written` and `rest`, which are in its metadata.

        Args:
            bucket: of the destination.
        """
        part = value["part"]
        return cls(
            objects=value["objects"],
            failures=value["failures"],
            skipped=value["skipped"],
            part=Part.parse(part, bucket) if part else None,
        )


def totals_of(stored: StoredObject) -> dict[str, int]:
    """The totals in an object's metadata."""
    return {key: int(stored.metadata.get(key, 0)) for key in TOTALS}
