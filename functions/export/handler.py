"""Retrieve studies, series or instances and write them to a bucket: as DICOM, images, metadata,
bulk data or a zip.

A command leads to a plan of slices; each slice is the work of one invocation and comes as a
follow-up message; the delivery that finds the last one done joins the parts, writes the manifest
and publishes the outcome. state.py draws the states.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from functions.api import commands
from functions.api.requests import EXPORT_KEYS, ExportRequest
from functions.common.deadline import Deadline
from functions.common.errors import DicomFunctionsError, PermanentError, RetryableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.events.runtime import Services, View, event_function
from functions.common.log import log
from functions.common.resources import Resource
from functions.common.settings import EXPORT
from functions.export.compose import completed_before
from functions.export.ending import Ending, finished_outcome, refused_outcome
from functions.export.job import Attempt, Job
from functions.export.ndjson import write_lines
from functions.export.object_slice import ObjectSlice
from functions.export.plan import Planner, not_found_error
from functions.export.slices import Slice, new_name
from functions.export.state import COMMAND, OtherExportError, Plan, State, unfinished
from functions.export.zip_slice import ZipSlice

# Of the budget, kept for writing results, the manifest and the outcome.
_RECORDING_S: Final = 30.0
_NAME: Final = commands.matching(r"[0-9a-f]{16}", "a follow-up message")


def _names(value: object) -> list[str]:
    if not isinstance(value, list):
        raise PermanentError("invalid_command", "malformed: a follow-up message")
    return [_NAME(name) for name in value]


def _resource(value: object) -> Resource:
    _, resource = commands.resource(value)
    return resource


# A follow-up message repeats the command, so that each step can be compared with it.
_FOLLOW_UP: Final[dict[str, commands.Parse]] = {
    **EXPORT_KEYS,
    "run": _NAME,
    # Either one slice,
    "slice": _NAME,
    # or more planning.
    "slices": _names,
    "after": _resource,
}


def entry_point() -> View:
    """Make the deployed function."""
    return event_function(EXPORT, handle)


def handle(
    message: Message,
    services: Services,
    outcomes: Outcomes,
    deadline: Deadline,
) -> None:
    """Export the command's target, or continue an export.

    Raises:
        PermanentError: invalid_event for a message that came by the wrong subscription;
            invalid_command, not_found, conflict or rejected.
        RetryableError: the DICOM store or the bucket is busy or does not answer.
    """
    is_follow_up = "run" in message.json_or_nothing()
    message.check_subscription(is_follow_up)
    keys = _FOLLOW_UP if is_follow_up else EXPORT_KEYS
    values = commands.read(message, keys)
    request = ExportRequest.of(message.request_id(), values)
    _check_allowed(request, values, services)
    job = _job(request, services, deadline, message.attempt)
    try:
        _continue(_Export(job, services, outcomes), values)
    except OtherExportError as error:
        # Nobody knows the id of a follow-up message.
        if is_follow_up:
            raise
        # The outcome of this request_id is that of the export under way.
        refused = Outcome(
            "rejected",
            error.reason,
            request_id=message.message_id,
            detail=error.detail,
        )
        outcomes.publish(refused)


def _continue(export: "_Export", values: Mapping[str, Any]) -> None:
    """Take the step that a command or a follow-up message asks for."""
    if "slice" in values:
        export.do_slice(values["run"], values["slice"])
    elif "run" in values:
        planning = _Planning(
            values["run"],
            values.get("slices", []),
            values.get("after"),
        )
        export.plan_more(planning)
    else:
        export.start()


def _check_allowed(
    request: ExportRequest,
    values: dict[str, Any],
    services: Services,
) -> None:
    settings = services.settings
    if not settings.may_export_to(request.destination):
        raise PermanentError("rejected", "this destination is not in EXPORT_DESTINATIONS")
    store, _ = values.get("path", (None, None))
    if store not in (None, settings.dicom_store):
        raise PermanentError("rejected", "the path names another DICOM store than DICOM_STORE")


@dataclass
class _Planning:
    """The progress of planning: the written slices, and the last of a query's matches that is in
    them; None before the first one, when there is nothing to continue."""

    run: str
    slices: list[str] = field(default_factory=list)
    after: Resource | None = None

    def to_json(self) -> dict[str, Any]:
        """For the follow-up message that continues it."""
        return {"run": self.run, "slices": self.slices, "after": str(self.after)}


def _job(
    request: ExportRequest,
    services: Services,
    deadline: Deadline,
    attempt: int,
) -> Job:
    return Job(
        request=request,
        store=services.dicom_store,
        buckets=services.buckets,
        attempt=Attempt(attempt, services.settings.export_give_up_attempt),
        work_deadline=deadline.reserving(_RECORDING_S),
        deadline=deadline,
    )


class _Export:
    """One export, within one invocation."""

    def __init__(self, job: Job, services: Services, outcomes: Outcomes) -> None:
        self._job = job
        self._services = services
        self._outcomes = outcomes
        self._state = State(job, services.settings.state_bucket)
        self._ending = Ending(job, self._state, outcomes)

    # Planning

    def start(self) -> None:
        """A command: plan, unless an earlier delivery has, and start the slices."""
        plan = self._state.plan()
        if plan:
            self._start_slices(plan)
            return
        totals = completed_before(self._job)
        if totals:
            self._outcomes.publish(finished_outcome(self._job.request, totals))
            return
        planning = _Planning(new_name())
        try:
            is_complete = self._plan_all(planning)
        except DicomFunctionsError:
            # Another delivery begins with another run.
            self._state.clear_run(planning.run)
            raise
        plan = self._after_planning(planning, is_complete)
        if plan:
            self._start_slices(plan)

    def plan_more(self, planning: _Planning) -> None:
        """A follow-up message: go on with the planning."""
        try:
            plan = self._plan_of(planning)
        except PermanentError as error:
            self._end_planning(planning.run, error)
            return
        if plan:
            self._start_slices(plan)

    def _end_planning(self, run: str, error: PermanentError) -> None:
        """The planning can never be done. Without its slices, another delivery of its message would
        come too late: the outcome is published first."""
        self._outcomes.publish(refused_outcome(self._job.request, error))
        if isinstance(error, OtherExportError) and error.run == run:
            # The plan names these slices.
            return
        self._state.clear_run(run)

    def _plan_of(self, planning: _Planning) -> Plan | None:
        """The plan, after more planning if there is none yet; None when another message continues
        the planning, or when this one has come too late."""
        plan = self._state.plan()
        if plan:
            if plan.run != planning.run:
                self._state.clear_run(planning.run)
            return plan
        if not self._has_slices(planning):
            self._drop_late_message(planning.run)
            return None
        is_complete = self._plan_all(planning)
        # Another delivery of this message may have been faster.
        if not self._has_slices(planning):
            self._drop_late_message(planning.run)
            return None
        return self._after_planning(planning, is_complete)

    def _has_slices(self, planning: _Planning) -> bool:
        """Whether the slices that this planning has written are still there. After the end of the
        export they are deleted, and there is no plan, as before; a new one would name slices that
        are gone."""
        return self._state.has_slices(planning.run, planning.slices)

    def _plan_all(self, planning: _Planning) -> bool:
        """Write the slices of the unplanned targets; False when the time is over before all of a
        query's matches are planned.

        Raises:
            RetryableError: as Planner; also when the time was not enough for a single match.
        """
        planner = Planner(self._job, self._services.settings.export_slice)
        begun_after = planning.after
        for target in planner.targets(planning.after):
            complete = len(planning.slices)
            try:
                self._keep(planning, planner.slices(target))
            except RetryableError:
                is_late = self._job.work_deadline.remaining_s() <= 0
                if not is_late or planning.after == begun_after:
                    raise
                # Slices with a part of this target are not in the plan; the end deletes them too.
                del planning.slices[complete:]
                planner.drop_target()
                self._keep(planning, planner.rest())
                # Without a slice, nothing would tell that the next message comes too late.
                if not planning.slices:
                    raise
                return False
            planning.after = target
        self._keep(planning, planner.rest())
        return True

    def _keep(self, planning: _Planning, slices: Iterable[Slice]) -> None:
        for task in slices:
            planning.slices.append(self._state.add_slice(planning.run, task))

    def _after_planning(self, planning: _Planning, is_complete: bool) -> Plan | None:
        """The plan; None when the planning is continued in another message."""
        if not is_complete:
            self._send(planning.to_json())
            return None
        if not planning.slices:
            raise not_found_error(self._job.request)
        return self._state.decide(planning.run, planning.slices)

    def _start_slices(self, plan: Plan) -> None:
        """Start those that are left: the only one here, several by messages."""
        if len(plan.slices) == 1:
            self._run_slice(plan, plan.slices[0], COMMAND)
            return
        left = unfinished(plan, self._state.done(plan.run))
        for name in left:
            self._send_slice(plan, name)
        if not left:
            # All are done, yet the export has not ended: whoever did the last one was killed, and
            # its message may be gone. Any slice leads to the end.
            self._run_slice(plan, plan.slices[0], COMMAND)

    # Doing slices

    def do_slice(self, run: str, name: str) -> None:
        """A follow-up message: do one slice."""
        try:
            plan = self._state.plan()
        except OtherExportError as error:
            if error.run == run:
                raise
            # That one began after the end of this slice's export.
            plan = None
        if plan and plan.run == run:
            self._run_slice(plan, name, name)
            return
        self._drop_late_message(run)

    def _drop_late_message(self, run: str) -> None:
        """This message has come too late."""
        # A delivery that was killed while cleaning up may have left some objects.
        self._state.clear_run(run)
        log("INFO", "superseded", function=EXPORT, request_id=self._job.request.request_id)

    def _run_slice(self, plan: Plan, name: str, claimant: str) -> None:
        """Do a slice unless it is done, and then what follows.

        Args:
            claimant: who ends the export if everything is done then: this slice's message, by its
                name, or COMMAND (State.claim_end).
        """
        refusal = self._state.refusal(plan, claimant)
        if refusal is None:
            refusal = self._do_unless_done(plan, name)
        if refusal:
            self._ending.refuse(plan, claimant, refusal)
            return
        self._go_on(plan, name, claimant)

    def _do_unless_done(self, plan: Plan, name: str) -> PermanentError | None:
        """Returns why neither this slice nor any other can be done, for example because the bucket
        does not exist; else None."""
        try:
            if not self._state.is_done(plan.run, name):
                self._do_one(plan, name)
        except PermanentError as error:
            return error
        return None

    def _do_one(self, plan: Plan, name: str) -> None:
        task = self._state.slice(plan.run, name)
        result = self._worker(plan).run(task)
        # The worker knows only its own failures, not those of the planning.
        result.failures += task.failures
        if self._job.request.format.joined == "ndjson":
            result.part = write_lines(self._job, self._state.parts(plan.run), result)
        self._state.finish_slice(plan.run, name, result)

    def _worker(self, plan: Plan) -> ObjectSlice | ZipSlice:
        known = partial(self._state.exported_piece, plan.run)
        if self._job.request.format.joined == "zip":
            return ZipSlice(self._job, self._state.parts(plan.run), known)
        return ObjectSlice(self._job, plan.run, known)

    def _go_on(self, plan: Plan, name: str, claimant: str) -> None:
        """After a slice: its first unfinished rest, or the end of the export when all are done."""
        done = self._state.done(plan.run)
        if not unfinished(plan, done):
            self._ending.finish(plan, claimant, done)
            return
        if self._state.has_ended(plan):
            self._drop_late_message(plan.run)
            return
        rest = done[name].rest
        while rest in done:
            rest = done[rest].rest
        if rest:
            self._send_slice(plan, rest)

    # Follow-up messages

    def _send_slice(self, plan: Plan, name: str) -> None:
        self._send({"run": plan.run, "slice": name})

    def _send(self, step: dict[str, Any]) -> None:
        content = {**self._job.request.as_command, **step}
        data = json.dumps(content, separators=(",", ":")).encode()
        topic = self._services.settings.exports_next_topic
        self._services.topics.publish(topic, data, {}, self._job.deadline)
