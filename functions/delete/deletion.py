"""A delete on its way: what is left to do travels in messages, so that no state is kept anywhere
else.

A study or a series is deleted by a long-running operation. The message that starts operations
publishes their names in a follow-up message and is acknowledged; only follow-up messages wait. So a
redelivery of either never starts what the follow-up knows of. One gap is left: the process is
killed between the service's answer to DELETE and the publishing. Then DELETE is sent again, which
is harmless: nothing can be stored below the target while the first operation runs (fact sheet
section 6), so the second finds less or nothing; and a command that was delivered again or is old
deletes only what was stored before it was given (`stored_since`), in all its follow-up messages
too.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final

from functions.common.clients.dicomweb import CANCELLED, NOT_FOUND, DicomStore, Operation, uid
from functions.common.deadline import Deadline, timestamp
from functions.common.errors import PermanentError, RetryableError
from functions.common.events import commands
from functions.common.events.outcomes import Word
from functions.common.resources import Resource

RUNNING_MAX: Final = 5  # operations at once (fact sheet section 7)
_TRIES: Final = 3
# google.rpc: the operation may do better next time. Cancelled is not among them: somebody wanted
# that.
_WORTH_ANOTHER_TRY: Final = frozenset({4, NOT_FOUND, 8, 10, 13, 14})
_POLL_S: Final = 0.25
_POLL_MAX_S: Final = 10.0
_LAG_S: Final = 30.0  # how long a search may still find what was deleted
_INFO_THREADS: Final = 8
_TARGETS_MAX: Final = 5000
_COUNTS: Final = ("deleted", "not_found", "failed", "instances", "bytes")
_WHOLE: Final = commands.whole(0, 10**15)


@dataclass
class Target:
    """One resource to delete. `operation` is empty until it was started; `series` does not
    travel."""

    resource: Resource
    instances: int = 0
    size_bytes: int = 0
    tries: int = 0
    operation: str = ""
    series: int = 0


@dataclass(frozen=True)
class Settled:
    """How the delete of one target ended."""

    target: Target
    word: Word
    reason: str = ""
    detail: str = ""


@dataclass
class Work:
    """A whole request: one target by path, or the studies that a query matched.

    `asked` is when the command was published; `late`: it, or a follow-up of it, was delivered
    before; the counts are of targets that have been settled.
    """

    asked: str
    store: str
    by_query: bool
    targets: list[Target]
    late: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))

    def to_json(self) -> dict[str, Any]:
        """What a follow-up message carries."""
        return {
            "asked": self.asked,
            "store": self.store,
            "by_query": self.by_query,
            "late": self.late,
            "targets": [
                [str(t.resource), t.instances, t.size_bytes, t.tries, t.operation]
                for t in self.targets
            ],
            "counts": self.counts,
        }

    @classmethod
    def parse(cls, value: object) -> "Work":
        """From a follow-up message.

        Raises:
            PermanentError: invalid_command, for anything that `to_json` does not write.
        """
        fields = value if isinstance(value, dict) else {}
        if fields.keys() != {"asked", "store", "by_query", "late", "targets", "counts"}:
            raise _MALFORMED
        targets, counts = fields["targets"], fields["counts"]
        if not isinstance(targets, list) or not 0 < len(targets) <= _TARGETS_MAX:
            raise _MALFORMED
        if not isinstance(counts, dict) or counts.keys() != set(_COUNTS):
            raise _MALFORMED
        asked = fields["asked"]
        return cls(
            commands.time(asked) if asked else "",
            commands.text(fields["store"]),
            commands.flag(fields["by_query"]),
            [_target(item) for item in targets],
            commands.flag(fields["late"]),
            {name: _WHOLE(count) for name, count in counts.items()},
        )


_MALFORMED: Final = PermanentError("invalid_command", "a malformed follow-up message")


def _target(item: object) -> Target:
    if not isinstance(item, list) or len(item) != 5 or not isinstance(item[4], str):
        raise _MALFORMED
    path, instances, size_bytes, tries = item[:4]
    return Target(
        Resource.parse(commands.text(path)),
        _WHOLE(instances),
        _WHOLE(size_bytes),
        _WHOLE(tries),
        operation=item[4],
    )


class Deletion:
    """Moves a request on within one invocation.

    Args:
        store: to delete from.
        late: whether the command was delivered before, or was given long ago.
        max_instances: a target that has more is refused: what is there now counts, not what a
            message says.
        deadline: of the work; some time for publishing is left after it.
    """

    def __init__(
        self, store: DicomStore, work: Work, late: bool, max_instances: int, deadline: Deadline
    ) -> None:
        self._store, self._work, self._late, self._deadline = store, work, late, deadline
        self._max_instances = max_instances
        self._started = False

    def advance(self) -> Iterator[Settled]:
        """Poll what runs and start what waits; yields what ended. When it returns, either no target
        is left, or the work has to go on in a follow-up message.

        Raises:
            RetryableError: before anything was started, so that the same message can be delivered
                again.
        """
        wait_s = _POLL_S
        while self._work.targets:
            yield from self._poll()
            yield from self._start()
            if self._started or not self._work.targets or not self._deadline.sleep(wait_s):
                return
            wait_s = min(_POLL_MAX_S, wait_s * 1.5)

    def _poll(self) -> Iterator[Settled]:
        for target in [t for t in self._work.targets if t.operation]:
            if settled := self._judged(target, self._followed):
                self._work.targets.remove(target)
                yield settled

    def _followed(self, target: Target) -> Settled | None:
        operation = self._store.operation(target.operation, self._deadline)
        return self._ended(target, operation) if operation.done else None

    def _judged(self, target: Target, step: Callable[[Target], Settled | None]) -> Settled | None:
        """A step with one target; where the store refuses it, that ends this target and not the
        whole request."""
        try:
            return step(target)
        except PermanentError as error:
            return Settled(target, "rejected", error.reason, error.detail)

    def _start(self) -> Iterator[Settled]:
        free = RUNNING_MAX - sum(1 for t in self._work.targets if t.operation)
        for target in [t for t in self._work.targets if not t.operation]:
            if free <= 0:
                return
            try:
                settled = self._judged(target, self._begin)
            except RetryableError:
                if self._started or any(t.operation for t in self._work.targets):
                    return  # the names of what runs must get into a message first
                raise
            if settled:
                self._work.targets.remove(target)
                yield settled
            else:
                self._started, free = True, free - 1

    def _begin(self, target: Target) -> Settled | None:
        if not self._store.is_there(target.resource, self._deadline):
            return Settled(target, "deleted", "not_found")
        size = self._store.size(target.resource, self._deadline)
        if size and size.instances > self._max_instances:
            detail = f"{size.instances} instances are more than DELETE_MAX_INSTANCES"
            return Settled(target, "rejected", "rejected", detail)
        if self._late and stored_since(
            self._store, target.resource, self._work.asked, self._deadline
        ):
            return Settled(
                target, "rejected", "rejected", "stored again after the command was given"
            )
        target.tries += 1
        operation = self._store.delete(target.resource, self._deadline)
        if operation and not operation.done:
            target.operation = operation.name
            return None
        return self._ended(target, operation or Operation("", done=True))

    def _ended(self, target: Target, operation: Operation) -> Settled | None:
        """An operation that ended well may still have failed for some instances, and one that
        failed may have found that nothing was left: what decides is what is left."""
        well = not operation.error_code and not operation.failures
        if self._gone(target.resource, _LAG_S if well else 0):
            return Settled(target, "deleted")
        if target.tries < _TRIES and (
            operation.failures or operation.error_code in _WORTH_ANOTHER_TRY
        ):
            target.operation = ""
            return None
        if operation.error_code == CANCELLED:
            detail = "the operation was cancelled"
        elif well:
            detail = "the operation ended well, but instances are left"
        else:
            detail = f"the operation ended with code {operation.error_code} and {operation.failures} failures"
        left = self._store.size(target.resource, self._deadline)
        some = left is not None and left.instances < target.instances
        return Settled(target, "partial" if some else "rejected", "operation_failed", detail)

    def _gone(self, resource: Resource, lag_s: float) -> bool:
        lag, wait_s = Deadline(lag_s), _POLL_S
        while self._store.is_there(resource, self._deadline):
            if not lag.sleep(wait_s):
                return False
            wait_s *= 1.5
        return True


def stored_since(
    store: DicomStore,
    resource: Resource,
    moment: str,
    deadline: Deadline,
    *,
    when_unknown: bool = False,
) -> bool:
    """Whether any instance below `resource` was stored at that time or later; one request for each
    instance.

    Args:
        moment: RFC 3339; empty: unknown.
        when_unknown: the answer where the time of an instance, or the moment, is not known.

    Raises:
        PermanentError, RetryableError: as DicomStore.search.
    """
    limit = timestamp(moment)
    if limit is None:
        return when_unknown

    def is_late(instance: Resource) -> bool:
        stored: datetime | None = timestamp(store.stored_at(instance, deadline))
        return when_unknown if stored is None else stored >= limit

    instances = iter([resource]) if resource.instance else _instances(store, resource, deadline)
    with ThreadPoolExecutor(_INFO_THREADS) as pool:
        while batch := list(islice(instances, 500)):
            if any(pool.map(is_late, batch)):
                return True
    return False


def _instances(store: DicomStore, resource: Resource, deadline: Deadline) -> Iterator[Resource]:
    params = [("includefield", "0020000D"), ("includefield", "0020000E")]
    for item in store.search_all(resource, "instances", params, deadline):
        yield Resource(
            resource.study, resource.series or uid(item, "0020000E"), uid(item, "00080018")
        )
