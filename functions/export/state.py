"""The state of an export: small objects in the state bucket, to which only the functions write.

    planned     the slices are written one by one            exports/<id>/<run>/slice-<n>.json
    sliced      the plan names them; the first delivery      exports/<id>/plan.json
                that writes it decides
    done        what became of a slice is written; the       exports/<id>/<run>/done-<n>.json
                first delivery that writes it decides
    finished    all slices are done: the delivery that       exports/<id>/<run>/finisher.json
                claims the end joins, writes the manifest
                and publishes the outcome. The command,
                sent again, takes the claim over
    cleared     the plan is deleted first, then the rest: a message that finds no plan has come too
                late and has nothing to do

<id> is a hash of the request's id. <run> and <n> are random, so that objects of an abandoned
attempt are never used by another one. Objects of a delivery that is killed while it plans expire by
the bucket's lifecycle rule.

The parts of a zip or of the NDJSON file are large, and can only be joined in the bucket of the
result: they are below <destination>/.export-parts/<id>/<run>/. Others may write there, so the state
has the generation and checksum of each.
"""

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final

from functions.common.clients import transport
from functions.common.clients.storage import CHUNK_BYTES, PreconditionFailedError, StoredObject
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.job import Job
from functions.export.slices import Slice
from functions.export.zip_format import Member

_FOLDER: Final = "exports"
_PARTS_FOLDER: Final = ".export-parts"
# By which a lifecycle rule finds leftovers.
PART_ENDING: Final = ".export-part"
_REST: Final = "rest"
# Of parts without images.
SMALL_CHUNK_BYTES: Final = 8 * 1024 * 1024
_LIMIT_BYTES: Final = 256 * 1024 * 1024
# Claims the end of an export by the command's delivery; no slice has this name.
COMMAND: Final = "command"
TOTALS: Final = ("objects", "written", "bytes", "failures", "skipped")


@dataclass(frozen=True)
class Plan:
    """The slices of an export, by name.

    Args:
        generation: of its state object.
    """

    run: str
    slices: tuple[str, ...]
    generation: int = 0


@dataclass(frozen=True)
class Part:
    """A slice's part of a joined object: a separate object in the destination's bucket.

    Args:
        members: of a zip.
    """

    ref: ObjectRef
    size: int
    crc32c: str
    members: Sequence[Member] = ()

    @classmethod
    def of(cls, stored: StoredObject, members: Sequence[Member] = ()) -> "Part":
        """The object that was just written."""
        return cls(stored.ref, stored.size, stored.crc32c, members)

    def to_json(self) -> dict[str, Any]:
        """For a state object."""
        return {
            "name": self.ref.name,
            "generation": self.ref.generation,
            "bytes": self.size,
            "crc32c": self.crc32c,
            "members": [list(astuple(member)) for member in self.members],
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any], bucket: str) -> "Part":
        """From a state object."""
        return cls(
            ref=ObjectRef(bucket, value["name"], value["generation"]),
            size=value["bytes"],
            crc32c=value["crc32c"],
            members=[Member(*member) for member in value["members"]],
        )


@dataclass
class Result:
    """What became of a slice.

    Args:
        objects: each with name, bytes, crc32c and UIDs.
        failures: each with UIDs, reason and detail.
        skipped: instances that have nothing of the wanted kind.
        part: this slice's part of a joined object.
        written: how many of the objects this export wrote; the others existed before.
        rest: the rest for which there was no time: another slice.
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


@dataclass(frozen=True)
class Done:
    """A finished slice in the listing: its totals, and the name of the slice with its rest."""

    totals: dict[str, int]
    rest: str


class State:
    """The state objects of one export.

    Args:
        bucket: the state bucket.
        key: the export's id: a hash of the request's id, so that each delivery finds the same.
        job: of this delivery; the state is compared with its request and its DICOM store.
    """

    def __init__(self, job: Job, bucket: str, key: str) -> None:
        self._buckets = job.buckets
        self._bucket = bucket
        self._destination = job.bucket
        self._deadline = job.deadline
        self._request = job.request
        self._store = job.store.name.name
        self._root = f"{_FOLDER}/{key}"
        self.key = key

    def plan(self) -> Plan | None:
        """The chosen plan, if any.

        Raises:
            PermanentError: invalid_command, when it belongs to another request or another DICOM
                store.
        """
        kept = self._read("plan.json")
        if kept is None:
            return None
        generation, value = kept
        is_same = value["request"] == self._request.asked
        if not is_same or value["store"] != self._store:
            raise PermanentError(
                "invalid_command", "another export with this request_id is under way"
            )
        return Plan(value["run"], tuple(value["slices"]), generation)

    def decide(self, run: str, slices: Sequence[str]) -> Plan:
        """Make this the plan, unless there is one: then that one is returned.

        Raises:
            PermanentError: as plan.
            RetryableError: operation_pending, when that one was just deleted.
        """
        value = {
            "run": run,
            "store": self._store,
            "request": self._request.asked,
            "slices": list(slices),
        }
        with contextlib.suppress(PreconditionFailedError):
            self._write("plan.json", value)
        decided = self.plan()
        if decided is None:
            raise RetryableError("operation_pending")
        if decided.run != run:
            self.clear_run(run)
        return decided

    def add_slice(self, run: str, part: Slice) -> str:
        """Keep a slice; returns its name."""
        name = new_name()
        place = f"{run}/slice-{name}.json"
        self._write(place, part.to_json(), if_generation_match=None)
        return name

    def slice(self, run: str, name: str) -> Slice | None:
        """A slice of the plan.

        Raises:
            PermanentError: rejected, when it has something that was not requested.
        """
        kept = self._read(f"{run}/slice-{name}.json")
        if kept is None:
            return None
        part = Slice.parse(kept[1])
        asked = self._request.resource
        if asked and not all(asked.contains(one) for one in part.resources()):
            raise PermanentError("rejected", "a part of the export was not requested")
        return part

    def finish_slice(self, run: str, name: str, result: Result) -> bool:
        """Keep the result of a slice; False when another delivery was first."""
        part = result.part.to_json() if result.part else None
        value = {
            "objects": result.objects,
            "failures": result.failures,
            "skipped": result.skipped,
            "part": part,
        }
        totals = result.totals()
        metadata = {key: str(number) for key, number in totals.items()}
        if result.rest:
            metadata[_REST] = self.add_slice(run, result.rest)
        try:
            self._write(f"{run}/done-{name}.json", value, metadata)
        except PreconditionFailedError:
            # It may be the same result, whose answer was lost, so that it was sent again.
            kept = self._read(f"{run}/done-{name}.json")
            return kept is not None and kept[1]["part"] == part
        return True

    def is_done(self, run: str, name: str) -> bool:
        """Whether a slice is done."""
        place = ObjectRef(self._bucket, f"{self._root}/{run}/done-{name}.json")
        return self._buckets.stat(place, self._deadline) is not None

    def done(self, run: str) -> dict[str, Done]:
        """The finished slices, by name: one listing, without reading objects."""
        start = f"{self._root}/{run}/done-"
        found: dict[str, Done] = {}
        for stored in self._list(self._bucket, start):
            name = stored.ref.name.removeprefix(start).removesuffix(".json")
            found[name] = Done(totals_of(stored), stored.metadata.get(_REST, ""))
        return found

    def result(self, run: str, name: str) -> Result:
        """What became of a slice.

        Raises:
            RetryableError: unavailable, when it is gone because another delivery is cleaning up.
        """
        kept = self._read(f"{run}/done-{name}.json")
        if kept is None:
            raise RetryableError("unavailable")
        value = kept[1]
        result = Result(
            objects=value["objects"],
            failures=value["failures"],
            skipped=value["skipped"],
        )
        if value["part"]:
            result.part = Part.parse(value["part"], self._destination)
        return result

    def claim_end(self, run: str, claimant: str) -> bool:
        """Whether this claimant ends the export. If several slices find the end, the first one that
        writes here does, and each of its redeliveries. The command takes the claim over from a
        slice, whose message may be gone.

        Args:
            claimant: the name of a slice, or COMMAND.
        """
        place = f"{run}/finisher.json"
        value = {"claimant": claimant}
        with contextlib.suppress(PreconditionFailedError):
            self._write(place, value)
        kept = self._read(place)
        if kept and claimant == COMMAND:
            with contextlib.suppress(PreconditionFailedError):
                self._write(place, value, if_generation_match=kept[0])
        return self.has_claim(run, claimant)

    def has_claim(self, run: str, claimant: str) -> bool:
        """Whether the end is this claimant's."""
        kept = self._read(f"{run}/finisher.json")
        return kept is not None and kept[1]["claimant"] == claimant

    # Parts, in the destination's bucket

    def part_name(self, run: str) -> str:
        """A new name for a part of a joined object."""
        return f"{self._parts_folder(run)}{new_name()}{PART_ENDING}"

    def write_part(
        self, run: str, data: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES
    ) -> StoredObject:
        """Write a part of a joined object.

        Raises:
            PermanentError, RetryableError: as Buckets.write.
        """
        return self._buckets.write(
            self._destination,
            self.part_name(run),
            data,
            self._deadline,
            if_generation_match=None,
            chunk_bytes=chunk_bytes,
        )

    def parts(self, run: str) -> dict[ObjectRef, StoredObject]:
        """The parts in the destination."""
        found = self._list(self._destination, self._parts_folder(run))
        return {one.ref: one for one in found}

    def drop_part(self, part: Part | None) -> None:
        """Delete the part of a slice that another delivery finished first."""
        if part:
            self._delete(replace(part.ref, generation=0))

    def _parts_folder(self, run: str) -> str:
        return self._request.below(f"{_PARTS_FOLDER}/{self.key}/{run}/")

    # The end

    def clear(self, plan: Plan) -> None:
        """Delete the plan, if it is still this one, and then everything that belongs to it."""
        name = f"{self._root}/plan.json"
        self._delete(ObjectRef(self._bucket, name, plan.generation))
        self.clear_run(plan.run)

    def clear_run(self, run: str) -> None:
        """Delete everything of a plan that has ended, or was never chosen."""
        self._clear_folder(self._bucket, f"{self._root}/{run}/")
        # The export ended because the destination is missing or refuses.
        with contextlib.suppress(PermanentError):
            self._clear_folder(self._destination, self._parts_folder(run))

    def _clear_folder(self, bucket: str, folder: str) -> None:
        for stored in list(self._list(bucket, folder)):
            self._delete(ObjectRef(bucket, stored.ref.name))

    def _list(self, bucket: str, start: str) -> Iterator[StoredObject]:
        return self._buckets.list(bucket, start, self._deadline)

    def _delete(self, place: ObjectRef) -> None:
        self._buckets.delete(place, self._deadline)

    # One object

    def _write(
        self,
        name: str,
        value: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
        if_generation_match: int | None = 0,
    ) -> None:
        self._buckets.write(
            self._bucket,
            f"{self._root}/{name}",
            [json.dumps(value, separators=(",", ":")).encode()],
            self._deadline,
            content_type="application/json",
            metadata=metadata,
            if_generation_match=if_generation_match,
        )

    def _read(self, name: str) -> tuple[int, dict[str, Any]] | None:
        """The generation and the value of a state object; None when there is none."""
        place = ObjectRef(self._bucket, f"{self._root}/{name}")
        try:
            response = self._buckets.open(place, self._deadline)
        except SupersededError:
            return None
        with response:
            data = transport.read_all(response, self._deadline, _LIMIT_BYTES)
        value = json.loads(data)
        if not isinstance(value, dict):
            raise RetryableError("unavailable")
        generation = response.headers.get("x-goog-generation", "")
        return int(generation) if generation.isdigit() else 0, value


def totals_of(stored: StoredObject) -> dict[str, int]:
    """The totals in an object's metadata."""
    return {key: int(stored.metadata.get(key, 0)) for key in TOTALS}


def every_slice(plan: Plan, done: Mapping[str, Done]) -> Iterator[str]:
    """The names of the plan's slices, each followed by those with its rest."""
    for name in plan.slices:
        while name:
            yield name
            name = done[name].rest if name in done else ""


def new_name() -> str:
    """A name that no other attempt has."""
    return secrets.token_hex(8)
