"""The state of pairs of metadata and JPEG, in the state bucket.

    pairs/<id of an object>      its verdict: once it exists, nothing is left to do
    pairs/<id of both>.claim     which of the two is at work: the other waits for redelivery

Each is an empty object whose metadata holds the values. It is created only if it does not exist
yet, so that one of two invocations wins, and a rule of the bucket deletes it later. A claim no
longer counts when the invocation that made it can no longer be running.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, cast, get_args

from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.deadline import age_s, parsed_rfc3339
from functions.common.errors import (
    PermanentError,
    RetryableError,
    SupersededError,
    correctable,
)
from functions.common.events.outcomes import Outcome, Word, outcome_id
from functions.common.resources import ObjectRef, Resource
from functions.common.settings import STORE
from functions.store.delivery import Delivery
from functions.store.verdicts import Verdict

_FOLDER: Final = "pairs"
# An invocation may run this much longer than its budget.
_MARGIN_S: Final = 60.0


@dataclass(frozen=True)
class Finished:
    """The verdict on one object that is or was half of a pair.

    Args:
        verdict: on this object.
        claim: the claim of the decision; empty if the object was judged alone.
        other: id of the other half, for which the same must be written next.
    """

    verdict: Verdict
    claim: str = ""
    other: str = ""


class PairState:
    """The state bucket, for a delivery of half a pair.

    Its methods raise RetryableError as Transport.send does, and unavailable if the bucket is
    missing or its objects cannot be read: an operator can correct that.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._bucket = delivery.settings.state_bucket
        self._buckets = delivery.buckets
        self._deadline = delivery.deadline
        self._mine = id_of(delivery.ref)
        self._attempt = delivery.message.attempt
        self._lifetime_s = delivery.settings.budget_s + _MARGIN_S

    def resume(self) -> Verdict | None:
        """The verdict on the object of this delivery; None while it is open. If a process was
        killed after writing it, the other half's is written now."""
        finished = self.finished(self._mine)
        if finished is None:
            return None
        self._write_other_half(finished)
        return finished.verdict

    def finished(self, name: str) -> Finished | None:
        """The verdict on the object with this id; None while it is open."""
        marker = self._stat(name)
        if marker is None:
            return None
        return _load(marker.metadata)

    def finish(self, verdict: Verdict, claim: str = "", other: str = "") -> Verdict:
        """Write the verdict on the object of this delivery.

        Args:
            verdict: on that object.
            claim: the claim of the decision.
            other: id_of the other half, if it gets the same verdict.

        Returns:
            The valid verdict: this one, or the one written before.
        """
        finished = self._write(self._mine, Finished(verdict, claim, other))
        self._write_other_half(finished)
        return finished.verdict

    def _write_other_half(self, finished: Finished) -> None:
        """Write the verdict for the other half.

        A process may have been killed in between. The first object must not be moved or deleted
        before this: the other half would no longer be found.
        """
        if finished.other:
            self._write(finished.other, replace(finished, other=""))

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Claim the work on two objects within the `with` block. If it fails for now, the claim
        is released for another delivery. Otherwise it stays: the verdicts are written only
        after the block, and until then the other event must wait.

        Args:
            name: claim_name of the two.

        Raises:
            RetryableError: operation_pending, while another invocation works on the two.
        """
        claim = self._claim(name)
        try:
            yield
        except (RetryableError, SupersededError):
            # If it cannot be deleted now, it becomes void later.
            with contextlib.suppress(RetryableError, PermanentError):
                self._buckets.delete(claim, self._deadline)
            raise

    def _claim(self, name: str) -> ObjectRef:
        """A new claim, or a void one taken over."""
        claimed = {"by": self._mine, "attempt": str(self._attempt)}
        made = self._create(name, claimed)
        if made is None:
            there = self._stat(name)
            if there is not None and self._is_void(there):
                made = self._create(name, claimed, there.ref.generation)
        if made is None:
            raise RetryableError("operation_pending")
        return made

    def _is_void(self, claim: StoredObject) -> bool:
        """Whether the invocation that made a claim has certainly ended: the same event was
        delivered again since, or its time is over."""
        attempt = claim.metadata.get("attempt", "")
        is_own = claim.metadata.get("by") == self._mine
        if is_own and attempt.isdigit() and int(attempt) < self._attempt:
            return True
        made = parsed_rfc3339(claim.created)
        return made is not None and age_s(made) > self._lifetime_s

    def _write(self, name: str, finished: Finished) -> Finished:
        """Write a verdict; returns the valid one: this, or an earlier one."""
        if self._create(name, _dump(finished)) is not None:
            return finished
        there = self.finished(name)
        if there is None:
            # It has just expired.
            raise RetryableError("unavailable")
        return there

    def _stat(self, name: str) -> StoredObject | None:
        marker = ObjectRef(self._bucket, f"{_FOLDER}/{name}")
        with correctable():
            return self._buckets.stat(marker, self._deadline)

    def _create(
        self, name: str, metadata: Mapping[str, str], generation: int = 0
    ) -> ObjectRef | None:
        """Write a marker; None if its generation is another one."""
        try:
            with correctable():
                made = self._buckets.write_small(
                    self._bucket,
                    f"{_FOLDER}/{name}",
                    b"",
                    self._deadline,
                    metadata=metadata,
                    if_generation_match=generation,
                )
        except PreconditionFailedError:
            return None
        return made.ref


def id_of(ref: ObjectRef) -> str:
    """What an object is called here."""
    return outcome_id(STORE, ref)


def claim_name(one: ObjectRef, other: ObjectRef) -> str:
    """The name of the claim on two objects."""
    both = "".join(sorted((id_of(one), id_of(other))))
    return hashlib.sha256(both.encode()).hexdigest()[:32] + ".claim"


def _dump(finished: Finished) -> dict[str, str]:
    outcome = finished.verdict.outcome
    state = {
        "outcome": outcome.outcome,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "resource": str(outcome.resource or ""),
        "claim": finished.claim,
        "other": finished.other,
    }
    if finished.verdict.is_bad:
        state["bad"] = "yes"
    return {key: value for key, value in state.items() if value}


def _load(state: Mapping[str, str]) -> Finished:
    resource = None
    if state.get("resource"):
        with correctable():
            resource = Resource.parse(state["resource"])
    if state.get("outcome") not in get_args(Word):
        raise RetryableError("unavailable")
    outcome = Outcome(
        cast("Word", state["outcome"]),
        reason=state.get("reason", ""),
        resource=resource,
        detail=state.get("detail", ""),
    )
    return Finished(
        Verdict(outcome, is_bad="bad" in state),
        claim=state.get("claim", ""),
        other=state.get("other", ""),
    )
