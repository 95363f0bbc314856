"""How far an archive has come: what a follow-up message carries, and what the archive's own outcome
is in the end."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.errors import PermanentError
from functions.common.events.messages import Message, ObjectFinalized
from functions.store.archive import Place
from functions.store.verdict import Verdict, of_archive

ATTRIBUTES: Final = {"follow-up": "archive"}  # of a follow-up message

_FAILED_MAX: Final = 1000  # of those that are named in the quarantine's sidecar
_KEYS: Final = frozenset(
    {"event", "place", "members", "total_bytes", "counts", "failed", "reason", "waiting"}
)


@dataclass
class Progress:
    """Everything in front of `place` is done and counted, but for the halves that wait.

    Args:
        place: where to go on.
        members: files so far.
        total_bytes: of these, unpacked.
        counts: how many ended in which word.
        failed: name and reason of those that failed, the first thousand.
        reason: of the first that failed.
        waiting: where halves of pairs lie that wait for their other half.
    """

    place: Place = ()
    members: int = 0
    total_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""
    waiting: list[Place] = field(default_factory=list)

    @property
    def reached(self) -> Place:
        """Another one whenever anything was done; empty at the beginning."""
        if not self.place:
            return ()
        return (*self.place, len(self.waiting))

    def count(self, verdict: Verdict, name: str) -> None:
        """One more member has its outcome."""
        outcome = verdict.outcome
        self.counts[outcome.outcome] += 1
        if not verdict.is_bad:
            return
        self.reason = self.reason or outcome.reason
        if len(self.failed) < _FAILED_MAX:
            self.failed.append((name, outcome.reason))

    def verdict(self, error: PermanentError | None = None) -> Verdict:
        """The archive's own verdict once its members have theirs.

        Args:
            error: what ended the walk too early.
        """
        return of_archive({**self.counts, "members": self.members}, self.reason, error)


def is_follow_up(message: Message) -> bool:
    """Whether the message is the next step of an archive."""
    return message.attributes.items() >= ATTRIBUTES.items()


def dump(event: ObjectFinalized, progress: Progress) -> bytes:
    """The data of a follow-up message."""
    state = {
        "event": {
            "bucket": event.ref.bucket,
            "name": event.ref.name,
            "generation": str(event.ref.generation),
            "size": str(event.size),
            "metadata": dict(event.metadata),
            "timeCreated": event.created,
        },
        "place": progress.place,
        "members": progress.members,
        "total_bytes": progress.total_bytes,
        "counts": progress.counts,
        "failed": progress.failed,
        "reason": progress.reason,
        "waiting": progress.waiting,
    }
    return json.dumps(state).encode()


def load(message: Message) -> tuple[ObjectFinalized, Progress]:
    """Read a follow-up message, as strictly as any event.

    Raises:
        PermanentError: invalid_event.
    """
    data = message.json()
    if data.keys() != _KEYS:
        raise PermanentError("invalid_event", "a follow-up message with other keys")
    try:
        event = ObjectFinalized.of(Message(json.dumps(data["event"]).encode()))
        progress = Progress(
            place=_place(data["place"]),
            members=_whole(data["members"]),
            total_bytes=_whole(data["total_bytes"]),
            counts=Counter({word: _whole(count) for word, count in data["counts"].items()}),
            failed=[(_text(name), _text(reason)) for name, reason in data["failed"]],
            reason=_text(data["reason"]),
            waiting=[_place(place) for place in data["waiting"]],
        )
    except (TypeError, ValueError, AttributeError, RecursionError, PermanentError):
        raise PermanentError("invalid_event", "a follow-up message with other values") from None
    return event, progress


def _place(value: Any) -> Place:
    return tuple(_whole(number) for number in value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
