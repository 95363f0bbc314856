"""Continues a delete: starts operations, polls them, and decides how each target ended.

A study or a series is deleted by a long-running operation. The message that starts operations
publishes their names in a follow-up message and is acknowledged; only follow-up messages wait. So a
redelivery of that follow-up message never starts these operations again.

One gap is left, between the service's answer to DELETE and the acknowledgement: the process is
killed, or the follow-up message cannot be published. Then the message that started the operation, a
command or an earlier follow-up message, is delivered again and sends DELETE for the same target, or
finds nothing there. If its own follow-up message had been published, two of them now wait. Nothing
else is deleted: nothing can be stored below the target while the first operation runs (fact sheet
section 6), and a message that was delivered again deletes only what was stored before the command
was sent, also in its follow-up messages. But of the two records, both with the same id, the first
may be the one of the redelivery, which says `not_found`, and in `detail` why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from functions.common.clients.dicomweb import CANCELLED, NOT_FOUND, DicomStore, Operation
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.outcomes import Word
from functions.common.resources import Resource
from functions.delete.followup import Target, Work
from functions.delete.guards import GuardRails

RUNNING_MAX: Final = 5  # operations at once (fact sheet section 9)
_TRIES: Final = 3
# google.rpc codes after which the operation may succeed next time. Cancelled is not one of them,
# because it was intended.
_WORTH_ANOTHER_TRY: Final = frozenset({4, NOT_FOUND, 8, 10, 13, 14})
_POLL_S: Final = 0.25
_POLL_MAX_S: Final = 10.0
# Targets in one pass that cannot be started now. With more, it is not the target but the store.
_ERRORS_MAX: Final = 20
# These errors are not about one target either.
_OF_THE_STORE: Final = ("rate_limited", "unauthorized", "deadline_exceeded")
_LAG_S: Final = 30.0  # how long a search may still find deleted instances


@dataclass(frozen=True)
class Settled:
    """How the delete of one target ended.

    Args:
        instances: how many were deleted.
    """

    target: Target
    word: Word
    reason: str = ""
    detail: str = ""
    instances: int = 0

    @property
    def was_deleted(self) -> bool:
        """Whether it existed and is gone."""
        return self.word == "deleted" and not self.reason


@dataclass
class Deletion:
    """Continues a request within one invocation.

    Args:
        store: to delete from.
        work: the rest of the request; targets that end are removed from it.
        guards: checked before each target.
        deadline: of the work; some time for publishing is left after it.
        started: whether an operation was started.
        changed: whether the message that is being handled no longer describes the work: a target
            has ended, or a DELETE was sent.
        errors: of the targets that could not be polled or started in this pass.
    """

    store: DicomStore
    work: Work
    guards: GuardRails
    deadline: Deadline
    started: bool = False
    changed: bool = False
    errors: list[RetryableError] = field(default_factory=list)

    def advance(self) -> Iterator[Settled]:
        """Poll running operations and start waiting ones; yields the targets that ended.
        Afterwards, either no target is left, or the work must continue in a follow-up message.

        Raises:
            RetryableError: only before anything has changed, so that the same message can be
                delivered again.
        """
        wait_s = _POLL_S
        while True:
            self.errors.clear()
            yield from self._poll()
            is_worth_waiting = self._is_one_polled()
            yield from self._start()
            if self.started:
                return
            if not is_worth_waiting:
                # What has changed must be published first.
                if self.errors and not self.changed:
                    raise self.errors[0]
                return
            if not self.deadline.sleep(wait_s):
                return
            wait_s = min(_POLL_MAX_S, wait_s * 1.5)

    def _poll(self) -> Iterator[Settled]:
        for target in self._running():
            if self._is_store_failing():
                return
            yield from self._try(target, self._follow)

    def _is_one_polled(self) -> bool:
        """Whether at least one operation was polled and still runs. To be asked after `_poll`, when
        all errors are of polls."""
        return not self._is_store_failing() and len(self._running()) > len(self.errors)

    def _start(self) -> Iterator[Settled]:
        """Start as many operations as may run. A target that cannot be started now, because of its
        search or another operation, does not hold up the others."""
        waiting = [target for target in self.work.targets if not target.operation]
        for target in waiting:
            if len(self._running()) >= RUNNING_MAX or self._is_store_failing():
                return
            yield from self._try(target, self._begin)

    def _is_store_failing(self) -> bool:
        """Whether the errors are not about single targets, so that no other one is tried."""
        if len(self.errors) >= _ERRORS_MAX:
            return True
        return any(error.reason in _OF_THE_STORE for error in self.errors)

    def _running(self) -> list[Target]:
        return [target for target in self.work.targets if target.operation]

    def _try(
        self,
        target: Target,
        step: Callable[[Target], Settled | None],
    ) -> Iterator[Settled]:
        """One step of one target. If it cannot be done now, the others are first next time."""
        try:
            yield from self._step(target, step)
        except RetryableError as error:
            self.errors.append(error)
            self.work.targets.remove(target)
            self.work.targets.append(target)

    def _step(
        self,
        target: Target,
        step: Callable[[Target], Settled | None],
    ) -> Iterator[Settled]:
        """One step of one target, which is removed from the work when it has ended. A refusal by
        the store or a guard rail ends only this target, not the whole request."""
        try:
            settled = step(target)
        except PermanentError as error:
            settled = Settled(target, "rejected", error.reason, error.detail)
        if settled:
            self.changed = True
            self.work.targets.remove(target)
            yield settled

    def _follow(self, target: Target) -> Settled | None:
        operation = self.store.operation(target.operation, self.deadline)
        if not operation.done:
            return None
        return self._judge(target, operation)

    def _begin(self, target: Target) -> Settled | None:
        in_progress = sum(one.instances for one in self._running())
        finished = self.work.counts["instances"]
        try:
            found = self.guards.count(target.resource, others=finished + in_progress)
        except PermanentError as error:
            # An earlier try may have deleted a part of it.
            return self._not_deleted(target, error.reason, error.detail)
        if not found:
            return _nothing_found(target)
        refusal = self.guards.age_refusal(target.resource, target.was_tried)
        if refusal:
            return self._not_deleted(target, "rejected", refusal)
        if not target.instances:
            target.size_bytes = self.store.size_bytes(target.resource, self.deadline)
            target.instances = found
        operation = self.store.delete(target.resource, self.deadline)
        # A DELETE that the store was too busy for is not a try.
        target.tries += 1
        self.changed = True
        if operation is None:  # an instance is deleted at once
            return self._judge(target, Operation("", done=True))
        if operation.done:
            return self._judge(target, operation)
        target.operation = operation.name
        self.started = True
        return None

    def _judge(self, target: Target, operation: Operation) -> Settled | None:
        """How a target ended; None when it must be started again. A successful operation may have
        failed for some instances, and a failed one may have left nothing: what decides is whether
        anything is left."""
        if _has_failed(operation):
            is_gone = not self.store.is_there(target.resource, self.deadline)
        else:
            is_gone = self._is_gone(target.resource)
        if is_gone:
            return _deleted(target)
        if target.tries < _TRIES and _is_worth_another_try(operation):
            target.operation = ""
            return None
        return self._not_deleted(target, "operation_failed", _what_is_wrong(operation))

    def _not_deleted(self, target: Target, reason: str, detail: str) -> Settled:
        """How a target ended of which something is left: `partial` if an operation has deleted a
        part of it. Instances that were stored since count as left."""
        left = self.store.count(target.resource, target.instances, self.deadline)
        word: Word = "rejected"
        if left < target.instances:
            word = "partial"
        return Settled(
            target=target,
            word=word,
            reason=reason,
            detail=detail,
            instances=target.instances - left,
        )

    def _is_gone(self, resource: Resource) -> bool:
        """Whether a search finds nothing of it any more, or only what was stored after the command
        was sent: the operation has ended well, so that was stored after the operation."""
        lag = Deadline(_LAG_S)
        wait_s = _POLL_S
        while self.store.is_there(resource, self.deadline):
            if self.guards.holds_only_new(resource):
                return True
            if not lag.sleep(wait_s):
                return False
            wait_s *= 1.5
        return True


def _nothing_found(target: Target) -> Settled:
    if target.instances:
        # It was there before. An earlier DELETE removed it, perhaps one whose answer was lost.
        return _deleted(target)
    return Settled(target, "deleted", "not_found")


def _deleted(target: Target) -> Settled:
    return Settled(target, "deleted", instances=target.instances)


def _has_failed(operation: Operation) -> bool:
    return operation.error_code != 0 or operation.failures > 0


def _is_worth_another_try(operation: Operation) -> bool:
    if operation.failures:
        return True
    return operation.error_code in _WORTH_ANOTHER_TRY


def _what_is_wrong(operation: Operation) -> str:
    if operation.error_code == CANCELLED:
        return "the operation was cancelled"
    if _has_failed(operation):
        ended = f"code {operation.error_code} and {operation.failures} failures"
        return f"the operation ended with {ended}"
    return "the operation ended well, but instances are left"
