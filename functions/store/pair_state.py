"""What the store function keeps in the state bucket about pairs of metadata and JPEG.

    pairs/<id of an object>      its outcome: whoever finds it does no work any more
    pairs/<id of both>.claim     who works on the two: the other waits, and is delivered again

Each is an empty object whose metadata says the rest. It is created only where there is none yet, so
that of two invocations one wins, and expires by a rule of the bucket. A claim is void when the
invocation that made it cannot be alive any more.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast, get_args

from functions.common.clients.storage import Buckets, PreconditionFailedError, StoredObject
from functions.common.deadline import Deadline, age_s, timestamp
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.outcomes import Outcome, Word, outcome_id
from functions.common.resources import ObjectRef, Resource
from functions.common.settings import STORE
from functions.store.verdict import Verdict

_FOLDER: Final = "pairs"
_MARGIN_S: Final = 60.0  # an invocation may live so much longer than its budget


@dataclass(frozen=True)
class Finished:
    """What became of one object that is or was half of a pair.

    Args:
        verdict: on it.
        claim: under which claim that was decided; empty where the object was judged alone.
        other: id of the other half, of which the same is to be written down next.
    """

    verdict: Verdict
    claim: str = ""
    other: str = ""

    @property
    def stored(self) -> Resource | None:
        """The instance that the object is a part of, unless it is on its way to quarantine."""
        if self.verdict.is_bad:
            return None
        return self.verdict.outcome.resource


@dataclass(frozen=True)
class PairState:
    """The state bucket as the store function uses it.

    Args:
        buckets: the client.
        bucket: the state bucket.
        deadline: of the invocation.
    """

    buckets: Buckets
    bucket: str
    deadline: Deadline

    def finished(self, ref: ObjectRef) -> Finished | None:
        """What became of an object; None when that is still open.

        Raises:
            RetryableError: as Transport.send; unavailable also where what is written cannot be
                read.
        """
        return self._read(_id(ref))

    def finish(self, ref: ObjectRef, finished: Finished) -> Finished:
        """Write down what becomes of an object.

        Returns:
            What is written: this, or what was there before.

        Raises:
            RetryableError: as finished.
        """
        return self._write(_id(ref), finished)

    def finish_both(
        self, mine: ObjectRef, other: ObjectRef, verdict: Verdict, claim: str
    ) -> Finished:
        """Write down the same for both halves of a pair.

        Returns, Raises: as finish.
        """
        finished = self.finish(mine, Finished(verdict, claim, _id(other)))
        self.complete(finished)
        return finished

    def complete(self, finished: Finished) -> None:
        """Write down for the other half what is to be written down for it.

        A process may have been killed in between. Nothing may be done with the first object before
        this: the other half would not be found any more.
        """
        if finished.other:
            self._write(finished.other, replace(finished, other=""))

    def _read(self, name: str) -> Finished | None:
        marker = self._stat(name)
        if marker is None:
            return None
        return _load(marker.metadata)

    def _write(self, name: str, finished: Finished) -> Finished:
        if self._create(name, _dump(finished)) is not None:
            return finished
        there = self._read(name)
        if there is None:
            raise RetryableError("unavailable")  # expired this moment
        return there

    def claim(self, name: str, mine: ObjectRef, attempt: int, lifetime_s: float) -> ObjectRef:
        """Claim the work on two objects.

        Args:
            name: claim_name of the two.
            mine: the object whose event this is.
            attempt: the number of this delivery: a later one of the same event goes on with what an
                earlier one claimed.
            lifetime_s: seconds that one invocation may take at most.

        Returns:
            The claim, to be given back when the work cannot be done now.

        Raises:
            RetryableError: operation_pending, while another invocation works on the two; as
                Transport.send.
        """
        claimed = {"by": _id(mine), "attempt": str(attempt)}
        made = self._create(name, claimed)
        if made is not None:
            return made
        there = self._stat(name)
        if there is not None and _is_void(there, claimed, lifetime_s + _MARGIN_S):
            made = self._create(name, claimed, there.ref.generation)
        if made is None:
            raise RetryableError("operation_pending")
        return made

    def give_back(self, claim: ObjectRef) -> None:
        """Let another delivery do the work. A claim that cannot be deleted now becomes void
        later."""
        with contextlib.suppress(RetryableError, PermanentError):
            self.buckets.delete(claim, self.deadline)

    def _stat(self, name: str) -> StoredObject | None:
        try:
            return self.buckets.stat(self._object(name), self.deadline)
        except PermanentError as error:
            raise RetryableError("unavailable") from error

    def _create(
        self, name: str, metadata: Mapping[str, str], generation: int = 0
    ) -> ObjectRef | None:
        """Write a marker; None where there is not this generation of it."""
        marker = self._object(name)
        try:
            made = self.buckets.create(
                marker.bucket,
                marker.name,
                b"",
                self.deadline,
                metadata=metadata,
                if_generation_match=generation,
            )
        except PreconditionFailedError:
            return None
        except PermanentError as error:
            # The state bucket is missing: that is an operator's mistake and heals.
            raise RetryableError("unavailable") from error
        return made.ref

    def _object(self, name: str) -> ObjectRef:
        return ObjectRef(self.bucket, f"{_FOLDER}/{name}")


def _id(ref: ObjectRef) -> str:
    return outcome_id(STORE, ref)


def claim_name(one: ObjectRef, other: ObjectRef) -> str:
    """What the claim on two objects is called."""
    both = "".join(sorted((_id(one), _id(other))))
    return hashlib.sha256(both.encode()).hexdigest()[:32] + ".claim"


def _is_void(claim: StoredObject, mine: Mapping[str, str], lifetime_s: float) -> bool:
    """Whether the invocation that made a claim has certainly ended."""
    attempt = claim.metadata.get("attempt", "")
    is_own = claim.metadata.get("by") == mine["by"]
    if is_own and attempt.isdigit() and int(attempt) < int(mine["attempt"]):
        return True
    made = timestamp(claim.updated)
    return made is not None and age_s(made) > lifetime_s


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
    """Raises RetryableError: unavailable, where this is none of ours."""
    word = state.get("outcome", "")
    resource = None
    try:
        if state.get("resource"):
            resource = Resource.parse(state["resource"])
    except PermanentError:
        word = ""
    if word not in get_args(Word):
        raise RetryableError("unavailable")
    outcome = Outcome(
        cast("Word", word),
        reason=state.get("reason", ""),
        resource=resource,
        detail=state.get("detail", ""),
    )
    return Finished(
        Verdict(outcome, is_bad="bad" in state),
        claim=state.get("claim", ""),
        other=state.get("other", ""),
    )
