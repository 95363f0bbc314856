"""What one subscription still has to deliver: leases, deadlines, back-off, ordering keys.

The bodies of the messages stay in the journal.
"""

import asyncio
import collections
import contextlib
import dataclasses
import heapq
import itertools
import time
import uuid
from collections.abc import Callable, Iterable

from infra.local.pubsub import wire
from infra.local.pubsub.filters import Predicate, compile_filter
from infra.local.pubsub.journal import Journal

WINDOW = 5000  # messages known by number in memory; a longer backlog waits in the journal
DEFAULT_RETENTION_S = 7 * 86400
DEFAULT_ATTEMPTS = 5
DEFAULT_BACKOFF_S = (10.0, 600.0)  # least and most, if a retry policy has no value
PUSH_BACKOFF_S = (0.1, 60.0)  # of push without a retry policy
# Part of every acknowledgement id: ids of an earlier run must not end leases of this run.
_RUN = uuid.uuid4().hex[:8]


@dataclasses.dataclass(slots=True, eq=False)
class Lease:
    """One message that is being delivered, until its deadline."""

    number: int
    ack_id: str
    message: wire.Pb
    attempt: int
    size: int
    deadline: float
    released: Callable[["Lease"], None] | None


class Queue:
    """The state of one subscription; every method is called from the event loop's thread."""

    def __init__(
        self, number: int, config: wire.Pb, journal: Journal, bury: Callable[["Queue", Lease], bool]
    ) -> None:
        """bury(queue, lease) forwards a message to the dead letter topic; False: that topic is
        missing."""
        self.number = number
        self.config = config
        self.accepts: Predicate = compile_filter(config.filter)
        self._journal = journal
        self._bury = bury
        self._ready: collections.deque[int] = collections.deque()
        self._delayed: list[tuple[float, int]] = []
        self._attempts: dict[int, int] = {}
        self._leases: dict[str, Lease] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._key_owner: dict[str, int] = {}
        self._key_waiting: dict[str, collections.deque[int]] = {}
        self._ack_numbers = itertools.count()
        self._cursor = 0
        self._behind = True
        self._available = asyncio.Event()
        self._clock_changed = asyncio.Event()
        self._wake_at = float("inf")
        self._ended: wire.ApiError | None = None
        self._load()

    # What comes in

    def offer(self, number: int) -> None:
        """Add a published message."""
        if self._behind or len(self._ready) >= WINDOW:
            self._behind = True
        else:
            self._ready.append(number)
            self._cursor = number
        self._available.set()

    def _load(self) -> None:
        """Fetch more of the backlog when nothing is ready."""
        while self._behind and not self._ready:
            rows = self._journal.owed(self.number, self._cursor, WINDOW)
            self._behind = len(rows) == WINDOW
            for number, attempts, not_before in rows:
                self._cursor = number
                if attempts:
                    self._attempts[number] = attempts
                if not_before > time.time() and not self.config.enable_message_ordering:
                    self._delay(number, not_before)
                else:
                    self._ready.append(number)
        if self._ready:
            self._available.set()

    # What goes out

    async def wait(self) -> None:
        """Wait until there may be a message.

        Raises:
            ApiError: there will be none: the subscription was deleted or detached.
        """
        await self._available.wait()
        if self._ended:
            raise self._ended

    def end(self, error: wire.ApiError) -> None:
        """No more messages will come: waiting callers get the error."""
        self._ended = error
        self._available.set()

    def take(
        self,
        limit: int,
        max_bytes: float = float("inf"),
        lease_s: float | None = None,
        released: Callable[[Lease], None] | None = None,
    ) -> list[Lease]:
        """Lease up to limit messages; at least one, regardless of max_bytes.

        lease_s defaults to the subscription's ack deadline; released is called when a lease ends in
        any way.
        """
        taken: list[Lease] = []
        if lease_s is None:
            lease_s = float(self.config.ack_deadline_seconds)
        deadline = time.time() + lease_s
        while len(taken) < limit:
            self._load()
            if not self._ready:
                self._available.clear()
                break
            number = self._ready.popleft()
            stored = self._journal.body(self.number, number)
            if stored is None:
                self._forget(number)
                continue
            message = wire.PubsubMessage.FromString(stored)
            if not self._lock_key(message.ordering_key, number):
                continue
            if taken and len(stored) > max_bytes:
                self._ready.appendleft(number)
                break
            max_bytes -= len(stored)
            taken.append(self._lease(number, message, len(stored), deadline, released))
        return taken

    def _lease(
        self,
        number: int,
        message: wire.Pb,
        size: int,
        deadline: float,
        released: Callable[[Lease], None] | None,
    ) -> Lease:
        attempt = self._attempts.get(number, 0) + 1
        self._attempts[number] = attempt
        ack_id = f"{_RUN}-{self.number}-{next(self._ack_numbers)}"
        lease = Lease(
            number=number,
            ack_id=ack_id,
            message=message,
            attempt=attempt,
            size=size,
            deadline=deadline,
            released=released,
        )
        self._leases[ack_id] = lease
        self._expect(lease)
        return lease

    def received(self, lease: Lease) -> wire.Pb:
        """A lease as the API's ReceivedMessage."""
        received = wire.ReceivedMessage(ack_id=lease.ack_id, message=lease.message)
        # The service counts attempts only where dead letters are set up.
        if self.config.dead_letter_policy.dead_letter_topic:
            received.delivery_attempt = lease.attempt
        return received

    def take_received(self, limit: int, max_bytes: float) -> list[wire.Pb]:
        """Take messages for a unary pull."""
        return [self.received(lease) for lease in self.take(limit, max_bytes)]

    # What comes back

    def ack(self, ack_ids: Iterable[str]) -> None:
        """Mark messages as delivered; unknown and expired ids are ignored."""
        ended = [self._end(ack_id) for ack_id in ack_ids]
        leases = [lease for lease in ended if lease]
        self._journal.done(self.number, [lease.number for lease in leases])
        for lease in leases:
            self._forget(lease.number, lease.message.ordering_key)

    def nack(self, ack_ids: Iterable[str]) -> None:
        """Mark deliveries as failed: they are repeated after the back-off, or go to the dead
        letter topic when the attempts are used up."""
        for ack_id in ack_ids:
            lease = self._end(ack_id)
            if lease:
                self._fail(lease)

    def modify(self, ack_ids: Iterable[str], deadline_s: float) -> None:
        """Move the deadline of leases to deadline_s from now; 0 is a nack."""
        if deadline_s <= 0:
            self.nack(list(ack_ids))
            return
        for ack_id in ack_ids:
            lease = self._leases.get(ack_id)
            if lease:
                lease.deadline = time.time() + deadline_s
                self._expect(lease)

    def _end(self, ack_id: str) -> Lease | None:
        lease = self._leases.pop(ack_id, None)
        if lease and lease.released:
            lease.released(lease)
        return lease

    def _fail(self, lease: Lease) -> None:
        if self._is_exhausted(lease) and self._bury(self, lease):
            self._forget(lease.number, lease.message.ordering_key)
            return
        wait_s = self._backoff_s(lease.attempt)
        not_before = time.time() + wait_s
        self._journal.delay(self.number, lease.number, lease.attempt, not_before)
        if wait_s:
            self._delay(lease.number, not_before)
        else:
            self._ready.appendleft(lease.number)
            self._available.set()

    def _is_exhausted(self, lease: Lease) -> bool:
        """Whether a message has used all attempts that its subscription allows."""
        policy = self.config.dead_letter_policy
        if not policy.dead_letter_topic:
            return False
        return bool(lease.attempt >= (policy.max_delivery_attempts or DEFAULT_ATTEMPTS))

    def _backoff_s(self, attempt: int) -> float:
        """Seconds to wait after that many attempts.

        As in the cloud, push backs off without a policy too.
        """
        if self.config.HasField("retry_policy"):
            low, high = _policy_s(self.config.retry_policy)
        elif self.config.push_config.push_endpoint:
            low, high = PUSH_BACKOFF_S
        else:
            return 0.0
        return min(high, low * 2.0 ** min(attempt - 1, 30))

    # Ordering keys: one message of a key at a time

    def _lock_key(self, key: str, number: int) -> bool:
        if not key or not self.config.enable_message_ordering:
            return True
        if self._key_owner.setdefault(key, number) == number:
            return True
        self._key_waiting.setdefault(key, collections.deque()).append(number)
        return False

    def _forget(self, number: int, key: str = "") -> None:
        """A message is finished; the next one of its key can be delivered."""
        self._attempts.pop(number, None)
        if not self.config.enable_message_ordering:
            return
        key = key or next((k for k, owner in self._key_owner.items() if owner == number), "")
        if self._key_owner.get(key) != number:
            return
        del self._key_owner[key]
        waiting = self._key_waiting.get(key)
        if waiting:
            self._key_owner[key] = waiting.popleft()
            self._ready.appendleft(self._key_owner[key])
            self._available.set()
        else:
            self._key_waiting.pop(key, None)

    # Time

    def _delay(self, number: int, not_before: float) -> None:
        heapq.heappush(self._delayed, (not_before, number))
        self._wake_by(not_before)

    def _expect(self, lease: Lease) -> None:
        if len(self._deadlines) > 2 * len(self._leases) + 1000:
            self._deadlines = [(other.deadline, ack_id) for ack_id, other in self._leases.items()]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (lease.deadline, lease.ack_id))
        self._wake_by(lease.deadline)

    def _wake_by(self, moment: float) -> None:
        if moment < self._wake_at:
            self._clock_changed.set()

    async def clock(self) -> None:
        """End leases and back-offs when their time is over, forever."""
        while True:
            self._clock_changed.clear()
            self._tick(time.time())
            heads = [heap[0][0] for heap in (self._delayed, self._deadlines) if heap]
            self._wake_at = min([*heads, time.time() + 3600])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._wake_at - time.time())):
                    await self._clock_changed.wait()

    def _tick(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            lease = self._leases.get(heapq.heappop(self._deadlines)[1])
            if lease and lease.deadline <= now:
                self.nack([lease.ack_id])
        due = []
        while self._delayed and self._delayed[0][0] <= now:
            due.append(heapq.heappop(self._delayed)[1])
        if due:
            self._ready.extendleft(reversed(due))
            self._available.set()

    def expire(self, now: float) -> None:
        """Forget messages older than the subscription's retention."""
        retention = wire.seconds(self.config.message_retention_duration) or DEFAULT_RETENTION_S
        self._journal.expire(self.number, now - retention)

    def purge(self, before: float) -> None:
        """Seek to a time: messages published before it count as acknowledged."""
        self._journal.expire(self.number, before)


def _policy_s(policy: wire.Pb) -> tuple[float, float]:
    """The least and the most seconds of a retry policy."""
    low, high = DEFAULT_BACKOFF_S
    if policy.HasField("minimum_backoff"):
        low = wire.seconds(policy.minimum_backoff)
    if policy.HasField("maximum_backoff"):
        high = wire.seconds(policy.maximum_backoff)
    return low, high
