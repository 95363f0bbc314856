"""Retrieve studies, series or instances and write them to a bucket: as DICOM, images, metadata,
bulk data or a zip."""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.events import commands
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes, Word, outcome_id
from functions.common.events.runtime import Services, View, event_function, request_id
from functions.common.log import log
from functions.common.resources import GcsPrefix, Resource
from functions.common.settings import EXPORT
from functions.export.join import complete_zip, join_parts, write_lines
from functions.export.manifest import write_manifest
from functions.export.plan import Planner, nothing_there
from functions.export.request import KEYS, ExportRequest, Piece, Slice
from functions.export.state import TOTALS, Done, Plan, Result, State, every_slice, new_name
from functions.export.work import SliceWork
from functions.export.zip import ZipWork

_RECORDING_S: Final = 30.0  # kept of the budget for writing results, the manifest and the outcome
_NAME: Final = commands.matching(r"[0-9a-f]{16}", "a follow-up message")
_PLANNING: Final[dict[str, commands.Parse]] = {
    **KEYS,
    "run": _NAME,
    "slices": lambda value: (
        [_NAME(name) for name in value] if isinstance(value, list) else _NAME(value)
    ),
    "matched": commands.whole(0, 10**9),
}
_SLICE: Final[dict[str, commands.Parse]] = {
    "request_id": commands.text,
    "destination": commands.text,
    "run": _NAME,
    "slice": _NAME,
}


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(EXPORT, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Export what the command names, or go on with an export.

    Raises:
        PermanentError: invalid_command, not_found or rejected.
        RetryableError: the DICOM store or the bucket is busy or away.
    """
    given = message.json() if message.data.strip() else {}
    message.check_way("run" in given or "slice" in given)
    keys = _SLICE if "slice" in given else _PLANNING if "run" in given else KEYS
    values = commands.read(message, keys)
    name = request_id(message)
    export = _Export.of(name, values, services, outcomes, deadline, message.attempt)
    if keys is _SLICE:
        export.go_on(values["run"], values["slice"])
    else:
        export.start(ExportRequest.of(name, values), values)


@dataclass(frozen=True)
class _Export:
    """One export, within one invocation."""

    name: str
    destination: GcsPrefix
    services: Services
    outcomes: Outcomes
    state: State
    attempt: int
    deadline: Deadline
    working: Deadline

    @classmethod
    def of(
        cls,
        name: str,
        values: dict[str, Any],
        services: Services,
        outcomes: Outcomes,
        deadline: Deadline,
        attempt: int,
    ) -> "_Export":
        destination = GcsPrefix.parse(values.get("destination", ""))
        if not any(
            allowed.contains(destination) for allowed in services.settings.export_destinations
        ):
            raise PermanentError("rejected", "EXPORT_DESTINATIONS does not have this destination")
        store, _ = values.get("path", (None, None))
        if store not in (None, services.settings.dicom_store):
            raise PermanentError("rejected", "the path names another DICOM store than DICOM_STORE")
        state = State(services.buckets, destination, outcome_id(EXPORT, name), deadline)
        left_s = deadline.remaining_s()
        working = Deadline(max(1.0, left_s - min(_RECORDING_S, left_s / 4)))
        return cls(name, destination, services, outcomes, state, attempt, deadline, working)

    @property
    def _last_chance(self) -> bool:
        return self.attempt >= self.services.settings.export_give_up_attempt

    def start(self, request: ExportRequest, values: dict[str, Any]) -> None:
        """Plan, unless an earlier delivery has, and get the slices done: one here, more by
        messages."""
        plan = self.state.plan()
        store, buckets = self.services.dicom_store, self.services.buckets
        if plan is None and (
            totals := complete_zip(self.state, request, store, buckets, self.deadline)
        ):
            self.outcomes.publish(_outcome(request, totals))
            return
        plan = plan or self._plan(request, values)
        if plan is None:
            return  # the planning goes on in another message
        if plan.request != request:
            raise PermanentError(
                "invalid_command", "another export with this request_id is under way"
            )
        if len(plan.slices) == 1:
            self._work(plan, plan.slices[0])
            return
        done = self.state.finished(plan.run)
        left = [name for name in every_slice(plan, done) if name not in done]
        for name in left:
            self._send_slice(plan, name)
        if not left:
            self._finish(plan, done)

    def go_on(self, run: str, name: str) -> None:
        """Do one slice."""
        plan = self.state.plan()
        if plan is None or plan.run != run or self.state.slice(run, name) is None:
            self.state.clear_run(
                run
            )  # a delivery that was killed while it cleaned up may have left some of it
            log("INFO", "superseded", function=EXPORT, request_id=self.name)
            return
        self._work(plan, name)

    def _plan(self, request: ExportRequest, values: dict[str, Any]) -> Plan | None:
        run, slices = values.get("run") or new_name(), list(values.get("slices", ()))
        matched = values.get("matched", 0)
        size = self.services.settings.export_slice
        store = self.services.dicom_store
        planner = Planner(store, request, size, self.deadline, last_chance=self._last_chance)
        try:
            for target in planner.targets(matched):
                slices += [self.state.add_slice(run, part) for part in planner.slices(target)]
                matched += 1
                if request.query and self.working.remaining_s() <= 0:
                    slices += [self.state.add_slice(run, part) for part in planner.rest()]
                    self._send({**request.asked, "run": run, "slices": slices, "matched": matched})
                    return None
        except RetryableError:
            if "run" not in values:  # the next delivery begins with another
                self.state.clear_run(run)
            raise
        slices += [self.state.add_slice(run, part) for part in planner.rest()]
        if not slices:
            raise nothing_there(request)
        return self.state.decide(Plan(run, request, tuple(slices)))

    def _work(self, plan: Plan, name: str) -> None:
        """One slice, and the end of the export if it was the last."""
        if not self.state.is_finished(plan.run, name):
            part = self.state.slice(plan.run, name)
            if part is None:
                raise RetryableError("unavailable")
            work = self._worker(plan)
            try:
                result = self._do(work, part, plan)
            except RetryableError as error:
                if error.reason != "deadline_exceeded" or not work.progress:
                    raise
                self._send_slice(
                    plan, name
                )  # there is more than before: a new message, with all its attempts
                return
            if not self.state.finish_slice(plan.run, name, result):
                self.state.drop(result.part)
        done = self.state.finished(plan.run)
        if done.keys() >= set(every_slice(plan, done)):
            self._finish(plan, done)
        elif (now := self.state.plan()) is None or now.run != plan.run:
            self.state.clear_run(
                plan.run
            )  # another delivery finished it all meanwhile, and cleaned up
        elif (rest := done[name].rest) and rest not in done:
            self._send_slice(plan, rest)

    def _worker(self, plan: Plan) -> SliceWork | ZipWork:
        store, buckets, request = self.services.dicom_store, self.services.buckets, plan.request
        known = self._known(plan) if self._last_chance else None
        if request.format == "zip":
            return ZipWork(
                store, buckets, request, self._last_chance, self.working, self.deadline, known
            )
        give_up_attempt = self.services.settings.export_give_up_attempt
        return SliceWork(
            store, buckets, request, plan.run, self.attempt, give_up_attempt, self.working, known
        )

    def _known(self, plan: Plan) -> Piece | None:
        """Something that a finished slice has."""
        for name, done in self.state.finished(plan.run).items():
            if done.totals["objects"]:
                entry = self.state.result(plan.run, name).objects[0]
                return Piece(
                    Resource(entry["study"], entry["series"], entry["instance"]),
                    entry.get("frame", 0),
                )
        return None

    def _do(self, work: SliceWork | ZipWork, part: Slice, plan: Plan) -> Result:
        result = (
            work.run(part, self.state.part_name(plan.run))
            if isinstance(work, ZipWork)
            else work.run(part)
        )
        result.failures += part.failures
        if plan.request.format == "metadata":
            write_lines(
                result,
                self.state.part_name(plan.run),
                plan.request,
                self.services.buckets,
                self.working,
            )
        return result

    def _finish(self, plan: Plan, done: dict[str, Done]) -> None:
        """Join what is to be joined, write the manifest, say so, and clean up. Two deliveries may
        do it at once: both write the same."""
        plan = replace(plan, slices=tuple(every_slice(plan, done)))
        totals = {key: sum(done[name].totals[key] for name in plan.slices) for key in TOTALS}
        joined = join_parts(self.state, plan, totals, self.services.buckets, self.deadline)
        reason = write_manifest(
            self.state, plan, totals, joined, self.services.buckets, self.deadline
        )
        self.outcomes.publish(_outcome(plan.request, totals, reason))
        self.state.clear(plan)

    def _send_slice(self, plan: Plan, name: str) -> None:
        self._send(
            {
                "request_id": self.name,
                "destination": str(self.destination),
                "run": plan.run,
                "slice": name,
            }
        )

    def _send(self, command: dict[str, Any]) -> None:
        data = json.dumps(command, separators=(",", ":")).encode()
        self.services.topics.publish(
            self.services.settings.exports_next_topic, data, {}, self.deadline
        )


def _outcome(request: ExportRequest, totals: dict[str, int], reason: str = "") -> Outcome:
    word: Word = (
        "exported" if not totals["failures"] else "partial" if totals["objects"] else "rejected"
    )
    return Outcome(
        word,
        reason,
        request_id=request.name,
        resource=request.resource,
        size_bytes=totals["bytes"],
        counts={key: number for key, number in totals.items() if key != "bytes"},
        detail="manifest.json has each failure with its reason" if totals["failures"] else "",
    )
