"""The state of an export: JSON objects in the state bucket, to which only the functions write.

    planned     the slices are written one by one            exports/<id>/<run>/slice-<name>.json
    sliced      the plan names them; the first delivery      exports/<id>/plan.json
                that writes it decides
    done        what became of a slice is written; the       exports/<id>/<run>/done-<name>.json
                first delivery that writes it decides. If
                the time was over, it names another slice
                with the rest
    finished    all slices are done: the delivery that       exports/<id>/<run>/finisher.json
                claims the end joins, writes the manifest
                and publishes the outcome. The command,
                sent again, takes the claim over
    refused     a slice finds that the export can never be   the same object, which keeps why
                done, and claims the end: each of its
                deliveries publishes that
    cleared     the plan is deleted first, then the slices, then the rest: a message that finds no
                plan, or no slices to plan more, has come too late and has nothing to do

<id> is a hash of the request's id. <run> and <name> are random, so that objects of an abandoned
attempt are never used by another one. Objects of a delivery that is killed while it plans expire by
the bucket's lifecycle rule.

All methods raise RetryableError as JsonObjects.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from functions.common.clients.json_objects import JsonObjects
from functions.common.clients.storage import PreconditionFailedError
from functions.common.errors import PermanentError, RetryableError
from functions.export.job import Job
from functions.export.parts import Parts
from functions.export.result import Result, totals_of
from functions.export.slices import Piece, Slice, new_name

_LIMIT_BYTES: Final = 256 * 1024 * 1024
_REST: Final = "rest"
_REFUSAL: Final = "refusal"
# The claimant of the end when the message is the command or continues its planning; no slice has
# this name.
COMMAND: Final = "command"


class OtherExportError(PermanentError):
    """invalid_command: another export has this request_id and is under way.

    Args:
        run: of its plan. That of a follow-up message, if the message has another request than its
            plan, or DICOM_STORE was changed.
    """

    def __init__(self, run: str) -> None:
        super().__init__("invalid_command", "another export with this request_id is under way")
        self.run = run


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
class Done:
    """A finished slice in the listing: its totals, and the name of the slice with its rest."""

    totals: dict[str, int]
    rest: str


class State:
    """The state objects of one export.

    Args:
        job: of this delivery; the state is compared with its request and its DICOM store.
        bucket: the state bucket.
    """

    def __init__(self, job: Job, bucket: str) -> None:
        self._job = job
        self._request = job.request
        self._store = job.store.name.name
        self._objects = JsonObjects(job.buckets, bucket, job.deadline, _LIMIT_BYTES)
        self._root = f"exports/{job.key}"
        self._plan_name = f"{self._root}/plan.json"

    def parts(self, run: str) -> Parts:
        """The parts of a plan's joined object, in the bucket of the destination."""
        return Parts(self._job, run)

    # Planned, sliced

    def add_slice(self, run: str, task: Slice) -> str:
        """Keep a slice; returns its name."""
        name = new_name()
        self._objects.write(self._slice_name(run, name), task.to_json(), if_generation_match=None)
        return name

    def has_slices(self, run: str, names: Collection[str]) -> bool:
        """Whether there are slices of these names, all of them."""
        start = self._slice_name(run, "").removesuffix(".json")
        found = {stored.ref.name for stored in self._objects.list(start)}
        return bool(names) and found >= {self._slice_name(run, name) for name in names}

    def decide(self, run: str, slices: Sequence[str]) -> Plan:
        """Make this the plan, unless there is one: then that one is returned, and the slices of
        this run are deleted.

        Raises:
            OtherExportError: as plan.
            RetryableError: operation_pending, when that one was just deleted.
        """
        value = {
            "run": run,
            "store": self._store,
            "request": self._request.as_command,
            "slices": list(slices),
        }
        with contextlib.suppress(PreconditionFailedError):
            self._objects.write(self._plan_name, value, if_generation_match=0)
        try:
            decided = self.plan()
        except OtherExportError as error:
            if error.run != run:
                self.clear_run(run)
            raise
        if decided is None:
            raise RetryableError("operation_pending")
        if decided.run != run:
            self.clear_run(run)
        return decided

    def plan(self) -> Plan | None:
        """The chosen plan, if any.

        Raises:
            OtherExportError: it belongs to another request or another DICOM store.
        """
        kept = self._objects.read(self._plan_name)
        if kept is None:
            return None
        value = kept.value
        is_same = value["request"] == self._request.as_command
        if not is_same or value["store"] != self._store:
            raise OtherExportError(value["run"])
        return Plan(value["run"], tuple(value["slices"]), kept.generation)

    def slice(self, run: str, name: str) -> Slice:
        """A slice of the plan.

        Raises:
            PermanentError: rejected, when it has something that was not requested.
            RetryableError: unavailable, when it is gone because another delivery is cleaning up.
        """
        task = Slice.parse(self._value(self._slice_name(run, name)))
        whole = self._request.resource
        if whole and not all(whole.contains(one) for one in task.resources()):
            raise PermanentError("rejected", "a part of the export was not requested")
        return task

    # Done

    def finish_slice(self, run: str, name: str, result: Result) -> None:
        """Keep the result of a slice, unless another delivery was first: then the part of this one
        is deleted."""
        value = result.to_json()
        metadata = {key: str(number) for key, number in result.totals().items()}
        if result.rest:
            metadata[_REST] = self.add_slice(run, result.rest)
        try:
            self._objects.write(
                self._done_name(run, name),
                value,
                if_generation_match=0,
                metadata=metadata,
            )
        except PreconditionFailedError:
            kept = self._objects.read(self._done_name(run, name))
            # It may be the same result, whose answer was lost, so that it was sent again.
            is_kept = kept is not None and kept.value["part"] == value["part"]
            if result.part and not is_kept:
                self.parts(run).delete(result.part)

    def is_done(self, run: str, name: str) -> bool:
        """Whether a slice is done."""
        return self._objects.read(self._done_name(run, name)) is not None

    def done(self, run: str) -> dict[str, Done]:
        """The finished slices, by name: one listing, without reading objects."""
        start = f"{self._root}/{run}/done-"
        found: dict[str, Done] = {}
        for stored in self._objects.list(start):
            name = stored.ref.name.removeprefix(start).removesuffix(".json")
            found[name] = Done(totals_of(stored), stored.metadata.get(_REST, ""))
        return found

    def result(self, run: str, name: str) -> Result:
        """What became of a slice.

        Raises:
            RetryableError: as slice.
        """
        return Result.parse(self._value(self._done_name(run, name)), self._job.bucket)

    def exported_piece(self, run: str) -> Piece | None:
        """Something that a finished slice has exported."""
        for name, done in self.done(run).items():
            if done.totals["objects"]:
                return Piece.parse(self.result(run, name).objects[0])
        return None

    # Finished, cleared

    def claim_end(
        self,
        plan: Plan,
        claimant: str,
        refusal: PermanentError | None = None,
    ) -> bool:
        """Whether this claimant ends the export. If several deliveries find all slices done, the
        first one that writes here does, and each of its redeliveries. The command takes the claim
        over from a slice, whose message may be gone.

        Args:
            claimant: the name of a slice, or COMMAND.
            refusal: why the export can never be done; None if all slices are done.
        """
        generation = None if claimant == COMMAND else 0
        value: dict[str, Any] = {"claimant": claimant}
        if refusal:
            value[_REFUSAL] = [refusal.reason, refusal.detail]
        with contextlib.suppress(PreconditionFailedError):
            self._objects.write(
                self._finisher_name(plan),
                value,
                if_generation_match=generation,
            )
        if self.has_ended(plan):
            # What this delivery has just written is deleted too.
            self.clear_run(plan.run)
            return False
        return self.has_claim(plan, claimant)

    def has_claim(self, plan: Plan, claimant: str) -> bool:
        """Whether the end is this claimant's."""
        kept = self._objects.read(self._finisher_name(plan))
        return kept is not None and kept.value["claimant"] == claimant

    def refusal(self, plan: Plan, claimant: str) -> PermanentError | None:
        """Why this claimant has refused the export; None if it has not."""
        kept = self._objects.read(self._finisher_name(plan))
        if kept is None or kept.value["claimant"] != claimant or _REFUSAL not in kept.value:
            return None
        reason, detail = kept.value[_REFUSAL]
        return PermanentError(reason, detail)

    def has_ended(self, plan: Plan) -> bool:
        """Whether another delivery has ended the export, and deleted the plan."""
        try:
            now = self.plan()
        except OtherExportError as error:
            return error.run != plan.run
        return now is None or now.run != plan.run

    def clear(self, plan: Plan) -> None:
        """Delete the plan, if it is still this one, and then everything that belongs to it."""
        self._objects.delete(self._plan_name, plan.generation)
        self.clear_run(plan.run)

    def clear_run(self, run: str) -> None:
        """Delete everything of a plan that has ended, or was never chosen."""
        # Slices first, because has_slices looks for them; their names are the last ones.
        for stored in reversed(list(self._objects.list(f"{self._root}/{run}/"))):
            self._objects.delete(stored.ref.name)
        # The export may have ended because the destination is missing or refuses.
        with contextlib.suppress(PermanentError):
            self.parts(run).clear()

    # One object

    def _slice_name(self, run: str, name: str) -> str:
        return f"{self._root}/{run}/slice-{name}.json"

    def _done_name(self, run: str, name: str) -> str:
        return f"{self._root}/{run}/done-{name}.json"

    def _finisher_name(self, plan: Plan) -> str:
        return f"{self._root}/{plan.run}/finisher.json"

    def _value(self, name: str) -> Mapping[str, Any]:
        kept = self._objects.read(name)
        if kept is None:
            raise RetryableError("unavailable")
        return kept.value


def every_slice(plan: Plan, done: Mapping[str, Done]) -> Iterator[str]:
    """The names of the plan's slices, each followed by those with its rest."""
    for name in plan.slices:
        while name:
            yield name
            name = done[name].rest if name in done else ""


def unfinished(plan: Plan, done: Mapping[str, Done]) -> list[str]:
    """The names of the slices that are not done."""
    return [name for name in every_slice(plan, done) if name not in done]
