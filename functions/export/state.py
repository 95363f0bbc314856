"""Where an export stands: small objects below `<destination>/.export-state/<id>/`, each written
once.

    plan.json                what was asked for, and the slices; the first delivery that writes it
    decides <run>/slice-<n>.json     what a slice consists of
    <run>/done-<n>.json      what became of it; the first delivery that writes it decides
    <run>/part-<n>           bytes of a zip or of the NDJSON file, joined at the end

<run> and <n> are random, so that what an abandoned attempt wrote is never taken for another's. All
of it is deleted once the outcome is out, the plan first: a message that finds no plan has come too
late and has nothing to do.
"""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.clients import transport
from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError, SupersededError
from functions.common.resources import GcsPrefix, ObjectRef
from functions.export.request import KEYS, ExportRequest, Slice

_FOLDER: Final = ".export-state"
_GENERATION: Final = "generation"
_REST: Final = "rest"
_LIMIT_BYTES: Final = 256 * 1024 * 1024
TOTALS: Final = ("objects", "written", "bytes", "failures", "skipped")


@dataclass(frozen=True)
class Plan:
    """A request and its slices, by name. `generation` is that of the object it is kept in."""

    run: str
    request: ExportRequest
    slices: tuple[str, ...]
    generation: int = 0


@dataclass
class Result:
    """What became of a slice.

    Args:
        objects: each with name, bytes, crc32c and UIDs.
        failures: each with UIDs, reason and detail.
        skipped: instances that have nothing of the wanted kind.
        part: the object that holds this slice's share of a joined object, its size, and its
            entries.
        written: how many of the objects this export wrote; the others were there.
        rest: what there was no time for: a slice of its own.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    part: dict[str, Any] = field(default_factory=dict)
    written: int = 0
    rest: Slice | None = None

    def totals(self) -> dict[str, int]:
        """The numbers by TOTALS."""
        size_bytes = sum(int(entry["bytes"]) for entry in self.objects)
        numbers = (
            len(self.objects),
            self.written,
            size_bytes,
            len(self.failures),
            len(self.skipped),
        )
        return dict(zip(TOTALS, numbers, strict=True))


@dataclass(frozen=True)
class Done:
    """What the listing says of a slice that is done: its totals, and the name of the slice that has
    the rest of it."""

    totals: dict[str, int]
    rest: str


class State:
    """The state objects of one export.

    Args:
        key: its id: a hash of the request's, so that each delivery of it finds the same.
    """

    def __init__(
        self, buckets: Buckets, destination: GcsPrefix, key: str, deadline: Deadline
    ) -> None:
        self._buckets, self._bucket, self._deadline = buckets, destination.bucket, deadline
        self._root = f"{destination.prefix}/{_FOLDER}/{key}/".lstrip("/")
        self.key = key

    def plan(self) -> Plan | None:
        """The plan that was decided on, if any."""
        value = self._read("plan.json")
        if value is None:
            return None
        asked = value["request"]
        values = {key: item for key, item in asked.items() if key != "request_id"}
        request = ExportRequest.of(
            asked["request_id"], {key: KEYS[key](item) for key, item in values.items()}
        )
        return Plan(value["run"], request, tuple(value["slices"]), value[_GENERATION])

    def decide(self, plan: Plan) -> Plan:
        """Make this the plan, unless there is one already: then that is returned."""
        value = {"run": plan.run, "request": plan.request.asked, "slices": plan.slices}
        with contextlib.suppress(PreconditionFailedError):
            self._write("plan.json", value, {})
        decided = self.plan()
        if decided is None:  # finished and cleaned away in between
            raise RetryableError("operation_pending")
        if decided.run != plan.run:
            self.clear_run(plan.run)
        return decided

    def add_slice(self, run: str, part: Slice) -> str:
        """Keep a slice; returns its name."""
        name = new_name()
        self._write(f"{run}/slice-{name}.json", part.to_json(), {}, once=False)
        return name

    def slice(self, run: str, name: str) -> Slice | None:
        """A slice of the plan."""
        value = self._read(f"{run}/slice-{name}.json")
        return None if value is None else Slice.parse(value)

    def finish_slice(self, run: str, name: str, result: Result) -> bool:
        """Keep what became of a slice; False when another delivery was first."""
        value = {
            "objects": result.objects,
            "failures": result.failures,
            "skipped": result.skipped,
            "part": result.part,
        }
        metadata = {key: str(number) for key, number in result.totals().items()}
        if result.rest:
            metadata[_REST] = self.add_slice(run, result.rest)
        try:
            self._write(f"{run}/done-{name}.json", value, metadata)
        except PreconditionFailedError:
            # It may be this very result: its answer was lost, and it was sent again.
            kept = self._read(f"{run}/done-{name}.json")
            return kept is not None and kept["part"] == result.part
        return True

    def is_finished(self, run: str, name: str) -> bool:
        """Whether a slice is done."""
        done = ObjectRef(self._bucket, f"{self._root}{run}/done-{name}.json")
        return self._buckets.stat(done, self._deadline) is not None

    def finished(self, run: str) -> dict[str, Done]:
        """The slices that are done, by name: one listing, nothing is read."""
        start = f"{self._root}{run}/done-"
        done: dict[str, Done] = {}
        for stored in self._buckets.list(self._bucket, start, self._deadline):
            name = stored.ref.name.removeprefix(start).removesuffix(".json")
            totals = {key: int(stored.metadata.get(key, 0)) for key in TOTALS}
            done[name] = Done(totals, stored.metadata.get(_REST, ""))
        return done

    def result(self, run: str, name: str) -> Result:
        """What became of a slice.

        Raises:
            RetryableError: unavailable, when it is gone: another delivery is just cleaning up.
        """
        value = self._read(f"{run}/done-{name}.json")
        if value is None:
            raise RetryableError("unavailable")
        return Result(value["objects"], value["failures"], value["skipped"], value["part"])

    def part_name(self, run: str) -> str:
        """A new name for a part of a joined object."""
        return f"{self._root}{run}/part-{new_name()}"

    def clear(self, plan: Plan) -> None:
        """Delete the plan, if it is still this one, and then all that belongs to it."""
        self._buckets.delete(
            ObjectRef(self._bucket, f"{self._root}plan.json", plan.generation), self._deadline
        )
        self.clear_run(plan.run)

    def clear_run(self, run: str) -> None:
        """Delete what belongs to a plan that has ended, or that was never decided on."""
        for stored in list(self._buckets.list(self._bucket, f"{self._root}{run}/", self._deadline)):
            self._buckets.delete(ObjectRef(self._bucket, stored.ref.name), self._deadline)

    def drop(self, part: dict[str, Any]) -> None:
        """Delete the part of a slice that another delivery finished first."""
        if part:
            self._buckets.delete(ObjectRef(self._bucket, part["name"]), self._deadline)

    def _write(
        self, name: str, value: dict[str, Any], metadata: dict[str, str], *, once: bool = True
    ) -> None:
        data = json.dumps(value, separators=(",", ":")).encode()
        self._buckets.create(
            self._bucket,
            f"{self._root}{name}",
            data,
            self._deadline,
            content_type="application/json",
            metadata=metadata,
            if_generation_match=0 if once else None,
        )

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            response = self._buckets.open(
                ObjectRef(self._bucket, f"{self._root}{name}"), self._deadline
            )
        except SupersededError:
            return None
        with response:
            value = json.loads(transport.read_all(response, self._deadline, _LIMIT_BYTES))
        if not isinstance(value, dict):
            raise RetryableError("unavailable")
        generation = response.headers.get("x-goog-generation", "0")
        return {**value, _GENERATION: int(generation) if generation.isdigit() else 0}


def every_slice(plan: Plan, done: Mapping[str, Done]) -> Iterator[str]:
    """The names of the plan's slices, each followed by those that have the rest of it."""
    for name in plan.slices:
        while name:
            yield name
            name = done[name].rest if name in done else ""


def new_name() -> str:
    """A name that no other attempt has."""
    return secrets.token_hex(8)
