"""Outcomes: new ones from a subscription made for one command, earlier ones from the ledger.

A subscription is deleted when its watch ends. If the process was killed, Pub/Sub deletes it after a
day without use; the local system deletes such subscriptions when it starts.
"""

import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cli.clients import CALL_S, Clients
from cli.text import counted
from functions.common import jsonvalues

Outcome = dict[str, Any]

PREFIX: Final = "watch-"  # of the names of such subscriptions; infra.local knows it too
_BATCH: Final = 100
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_RETENTION_S: Final = 86400  # an upload may take hours, and is watched when it has ended
_EXPIRY_S: Final = 86400
_LEDGER_OBJECT_BYTES: Final = 64 * 1024 * 1024
_BAD: Final = frozenset({"rejected", "conflict", "partial", "superseded"})


class Watch:
    """The outcomes published from now on; a context manager.

    Args:
        clients: of the system.
        filter: of Pub/Sub, by the attributes outcome, function, reason and study; empty: all.
    """

    def __init__(self, clients: Clients, filter: str = "") -> None:  # noqa: A002 (Pub/Sub's word)
        self._clients = clients
        self._filter = filter
        self._name = clients.system.subscription(f"{PREFIX}{uuid.uuid4().hex[:12]}")

    def __enter__(self) -> "Watch":
        """Subscribe.

        Raises:
            GoogleAPICallError: you may not (roles/pubsub.editor), or Pub/Sub does not answer.
        """
        subscription = {
            "name": self._name,
            "topic": self._clients.system.topic("outcomes"),
            "filter": self._filter,
            "message_retention_duration": {"seconds": _RETENTION_S},
            "expiration_policy": {"ttl": {"seconds": _EXPIRY_S}},
        }
        self._clients.subscriber.create_subscription(request=subscription, timeout=CALL_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.subscriber.delete_subscription(subscription=self._name, timeout=CALL_S)

    def take(self, wait_s: float = 30.0) -> list[Outcome]:
        """The outcomes since the last call; waits up to wait_s seconds for the first."""
        end = time.monotonic() + wait_s
        pause_s = _FIRST_PAUSE_S
        while True:
            found = self._pull()
            left_s = end - time.monotonic()
            if found or left_s <= 0:
                return found
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def until(self, timeout_s: float) -> Iterator[Outcome]:
        """Outcomes as they come, for timeout_s seconds from now."""
        end = time.monotonic() + timeout_s
        while (left_s := end - time.monotonic()) > 0:
            yield from self.take(wait_s=left_s)

    def forever(self) -> Iterator[Outcome]:
        """Outcomes as they come."""
        while True:
            yield from self.take()

    def _pull(self) -> list[Outcome]:
        request = {
            "subscription": self._name,
            "max_messages": _BATCH,
            "return_immediately": True,
        }
        answer = self._clients.subscriber.pull(request=request, timeout=CALL_S)
        received = list(answer.received_messages)
        if received:
            self._clients.subscriber.acknowledge(
                subscription=self._name,
                ack_ids=[one.ack_id for one in received],
                timeout=CALL_S,
            )
        return list(_records(one.message.data for one in received))


def ledger(clients: Clients, limit: int) -> list[Outcome]:
    """The latest outcomes in the ledger bucket, oldest first; those of the last minute may be
    missing."""
    system = clients.system
    prefix = system.topology["ledger_subscription"]["filename_prefix"]
    bucket = clients.storage.bucket(system.buckets["ledger"])
    names = [blob.name for blob in bucket.list_blobs(prefix=prefix, timeout=CALL_S)]
    # Their names begin with the time.
    names.sort(reverse=True)
    found: list[Outcome] = []
    for name in names:
        if len(found) >= limit:
            break
        blob = bucket.blob(name)
        data = blob.download_as_bytes(end=_LEDGER_OBJECT_BYTES, timeout=CALL_S)
        found += _records(data.splitlines())
    found.sort(key=lambda record: str(record.get("time")))
    return found[-limit:]


def _records(lines: Iterable[bytes]) -> Iterator[Outcome]:
    """Those of the lines that are records."""
    for line in lines:
        record = jsonvalues.parsed(line)
        if isinstance(record, dict) and isinstance(record.get("outcome"), str):
            yield record


def is_good(outcome: Outcome) -> bool:
    """Whether it needs no action."""
    return outcome["outcome"] not in _BAD


def subject(outcome: Outcome) -> str:
    """What an outcome is about: the object, with the member of an archive, or the request."""
    name = str(outcome.get("name") or outcome.get("request_id") or "")
    member = outcome.get("member")
    return f"{name} : {member}" if member else name


def details(outcome: Outcome) -> str:
    """Counts, reason and detail in a few words."""
    counts = outcome.get("counts")
    parts = []
    if isinstance(counts, dict):
        numbers = {what: count for what, count in counts.items() if isinstance(count, int)}
        parts.append(counted(numbers))
    parts += [str(outcome[key]) for key in ("reason", "detail") if outcome.get(key)]
    return ": ".join(filter(None, parts))
