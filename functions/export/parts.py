"""The parts of a joined object: each slice writes its part of a zip, or of metadata.ndjson.

Parts are large, and can only be joined in the bucket of the result: they are below
<destination>/.export-parts/<id>/<run>/. Others may write there, so the state has the generation of
each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

from functions.common.clients.storage import CHUNK_BYTES, StoredObject
from functions.common.resources import ObjectRef
from functions.export.job import Job
from functions.export.slices import new_name
from functions.export.zip_format import Member

_FOLDER: Final = ".export-parts"
# By which a lifecycle rule finds leftovers.
PART_SUFFIX: Final = ".export-part"
# Of parts without images.
SMALL_CHUNK_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class Part:
    """A part that was written.

    Args:
        members: of a zip.
    """

    ref: ObjectRef
    size: int
    members: Sequence[Member] = ()

    def to_json(self) -> dict[str, Any]:
        """For a state object."""
        return {
            "name": self.ref.name,
            "generation": self.ref.generation,
            "bytes": self.size,
            "members": [list(astuple(member)) for member in self.members],
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any], bucket: str) -> "Part":
        """From a state object."""
        return cls(
            ref=ObjectRef(bucket, value["name"], value["generation"]),
            size=value["bytes"],
            members=[Member(*member) for member in value["members"]],
        )


class Parts:
    """The parts of one plan.

    Args:
        run: of the plan.
    """

    def __init__(self, job: Job, run: str) -> None:
        self._buckets = job.buckets
        self._bucket = job.bucket
        self._deadline = job.deadline
        self._folder = job.request.below(f"{_FOLDER}/{job.key}/{run}/")

    def name_of_new_part(self) -> str:
        """A name that no other part has."""
        return f"{self._folder}{new_name()}{PART_SUFFIX}"

    def write(self, data: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES) -> StoredObject:
        """Write a part.

        Raises:
            PermanentError, RetryableError: as Buckets.write.
        """
        return self._buckets.write(
            self._bucket,
            self.name_of_new_part(),
            data,
            self._deadline,
            if_generation_match=None,
            chunk_bytes=chunk_bytes,
        )

    def generations(self) -> dict[str, int]:
        """The generations of the existing parts, by name."""
        found = self._buckets.list(self._bucket, self._folder, self._deadline)
        return {stored.ref.name: stored.ref.generation for stored in found}

    def delete(self, part: Part) -> None:
        """Delete one part."""
        self._buckets.delete(part.ref, self._deadline)

    def clear(self) -> None:
        """Delete all parts."""
        for name in self.generations():
            self._buckets.delete(ObjectRef(self._bucket, name), self._deadline)
