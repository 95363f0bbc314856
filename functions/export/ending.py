"""The end of an export, with exactly one outcome.

Several deliveries may see that all slices are done, or that the export can never be done. Each
tries to claim the end (State.claim_end), and one gets it: that one joins the parts, writes the
manifest, publishes the outcome and deletes the plan. If it is killed on the way, its message is
delivered again, and the claim is still its own. The others have nothing to do; nor has a message
that comes when there is no plan any more.

A refusal is decided by its claim, which keeps the reason: if the outcome could not be published,
the next delivery publishes it (handler._run_slice), even if the slice could be done by then.

If the message of the slice with the claim has become a dead letter, somebody sends the command
again: its delivery takes the claim over. The slice may still be at work, so each reads the claim
again before it publishes.

Without a plan there is nothing to claim. A command that is refused, that finds nothing, or whose
zip is complete already (handler.start) ends in its own delivery; so does a message that goes on
with a planning that can never be done (handler.plan_more). If delivered twice, it publishes the
same record twice, under one id.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from functions.api.requests import ExportRequest
from functions.common.errors import PermanentError
from functions.common.events.outcomes import Outcome, Outcomes, Word
from functions.common.log import log
from functions.common.settings import EXPORT
from functions.export.compose import join_parts
from functions.export.job import Job
from functions.export.manifest import Manifest
from functions.export.result import TOTALS
from functions.export.state import Done, Plan, State, every_slice


class Ending:
    """Ends one export.

    Everywhere `claimant` is the name of the slice whose message this is, or COMMAND.
    """

    def __init__(self, job: Job, state: State, outcomes: Outcomes) -> None:
        self._job = job
        self._state = state
        self._outcomes = outcomes

    def finish(self, plan: Plan, claimant: str, done: Mapping[str, Done]) -> None:
        """All slices are done."""
        self._end(plan, claimant, lambda: self._join_and_describe(plan, done))

    def refuse(self, plan: Plan, claimant: str, error: PermanentError) -> None:
        """The export can never be done."""
        self._end(plan, claimant, lambda: refused_outcome(self._job.request, error), error)

    def _end(
        self,
        plan: Plan,
        claimant: str,
        make_outcome: Callable[[], Outcome],
        refusal: PermanentError | None = None,
    ) -> None:
        if not self._state.claim_end(plan, claimant, refusal):
            self._log_superseded()
            return
        outcome = make_outcome()
        # Meanwhile the command may have taken the claim over.
        if not self._state.has_claim(plan, claimant):
            self._log_superseded()
            return
        self._outcomes.publish(outcome)
        self._state.clear(plan)

    def _log_superseded(self) -> None:
        log("INFO", "superseded", function=EXPORT, request_id=self._job.request.request_id)

    def _join_and_describe(self, plan: Plan, done: Mapping[str, Done]) -> Outcome:
        """Join parts, if there are any, and write the manifest."""
        whole = replace(plan, slices=tuple(every_slice(plan, done)))
        totals = dict.fromkeys(TOTALS, 0)
        for name in whole.slices:
            for key, number in done[name].totals.items():
                totals[key] += number
        try:
            joined = join_parts(self._job, self._state, whole, totals)
            manifest = Manifest(self._job, self._state, whole, totals)
            manifest.write(joined)
        except PermanentError as error:
            return refused_outcome(self._job.request, error)
        return finished_outcome(self._job.request, totals, manifest.main_reason)


def finished_outcome(
    request: ExportRequest,
    totals: Mapping[str, int],
    reason: str = "",
) -> Outcome:
    """The outcome of a finished export.

    Args:
        totals: the numbers of all slices.
        reason: of most failures; empty when there are none.
    """
    counts = dict(totals)
    size_bytes = counts.pop("bytes")
    detail = ""
    if totals["failures"]:
        detail = "manifest.json has each failure with its reason"
    return Outcome(
        _word(totals),
        reason,
        request_id=request.request_id,
        resource=request.resource,
        size_bytes=size_bytes,
        counts=counts,
        detail=detail,
    )


def _word(totals: Mapping[str, int]) -> Word:
    if not totals["failures"]:
        return "exported"
    if totals["objects"]:
        return "partial"
    return "rejected"


def refused_outcome(request: ExportRequest, error: PermanentError) -> Outcome:
    """The outcome of an export that can never be done."""
    return Outcome(
        "rejected",
        error.reason,
        request_id=request.request_id,
        resource=request.resource,
        detail=error.detail,
    )
