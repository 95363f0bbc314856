"""How far an archive has come: what a follow-up message carries, and what in the end becomes of the
archive."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, cast

from functions.common.errors import PermanentError
from functions.common.events.messages import Message, ObjectFinalized
from functions.common.events.outcomes import Outcome
from functions.store.archive import Cursor
from functions.store.content import Kind
from functions.store.halves import Half, Halves

ATTRIBUTES: Final = {"continuation": "archive"}  # the attributes of a follow-up message
KEPT: Final = "the DICOM store keeps other bytes under the same UIDs"
GOOD: Final = ("stored", "duplicate")
_KEYS: Final = frozenset(
    {"event", "cursor", "members", "total_bytes", "counts", "failed", "reason", "waiting"}
)


@dataclass
class Progress:
    """How far an archive has come: everything before `cursor` is done, and counted."""

    cursor: Cursor = ()
    members: int = 0
    total_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(
        default_factory=list
    )  # name and reason, the first thousand
    reason: str = ""  # of the first that failed
    waiting: Halves = field(default_factory=Halves)

    @property
    def reached(self) -> Cursor:
        """Another one whenever anything was done; empty at the beginning."""
        return (*self.cursor, len(self.waiting)) if self.cursor else ()


def verdict(progress: Progress, error: PermanentError | None = None) -> Outcome:
    """The archive's own outcome, once its members have theirs; a conflict that is kept is no
    failure."""
    counts = {**progress.counts, "members": progress.members}
    reason = error.reason if error else progress.reason
    good = any(progress.counts[word] for word in GOOD)
    if reason:
        detail = error.detail if error else "some members could not be stored"
        return Outcome("partial" if good else "rejected", reason, counts=counts, detail=detail)
    if progress.counts["stored"]:
        return Outcome("stored", counts=counts)
    if progress.counts["conflict"]:
        return Outcome("conflict", "conflict", counts=counts, detail=KEPT)
    if good:
        return Outcome("duplicate", counts=counts)
    return Outcome("rejected", "unsupported_input", counts=counts, detail="nothing in it to store")


def is_continuation(message: Message) -> bool:
    """Whether the message says that an archive is to be gone on with."""
    return message.attributes.get("continuation") == ATTRIBUTES["continuation"]


def dump(event: ObjectFinalized, progress: Progress) -> bytes:
    """The data of the follow-up message."""
    return json.dumps(
        {
            "event": {
                "bucket": event.ref.bucket,
                "name": event.ref.name,
                "generation": str(event.ref.generation),
                "size": str(event.size),
                "metadata": dict(event.metadata),
                "timeCreated": event.created,
            },
            "cursor": progress.cursor,
            "members": progress.members,
            "total_bytes": progress.total_bytes,
            "counts": progress.counts,
            "failed": progress.failed,
            "reason": progress.reason,
            "waiting": {
                n: [half.kind, half.name, half.before, half.size]
                for n, half in enumerate(progress.waiting)
            },
        }
    ).encode()


def load(message: Message) -> tuple[ObjectFinalized, Progress]:
    """Read a follow-up message, as strictly as any event: whoever may publish can send one.

    Raises:
        PermanentError: invalid_event.
    """
    data = message.json()
    if data.keys() != _KEYS:
        raise PermanentError("invalid_event", "a continuation has other keys")
    try:
        event = ObjectFinalized.of(Message(json.dumps(data["event"]).encode()))
        progress = Progress(
            _cursor(data["cursor"]),
            _whole(data["members"]),
            _whole(data["total_bytes"]),
            Counter({_text(word): _whole(count) for word, count in data["counts"].items()}),
            [(_text(name), _text(reason)) for name, reason in data["failed"]],
            _text(data["reason"]),
        )
        for half in data["waiting"].values():
            progress.waiting.add(_half(half))
    except (TypeError, ValueError, AttributeError, PermanentError):
        raise PermanentError("invalid_event", "a continuation has other values") from None
    return event, progress


def _half(value: Any) -> Half:
    kind, name, before, size = value
    if kind not in ("json", "jpeg"):
        raise ValueError
    half = Half.of(cast("Kind", kind), _text(name), _cursor(before), _whole(size))
    if not half.stem:
        raise ValueError
    return half


def _cursor(value: Any) -> Cursor:
    return tuple(map(_whole, value))


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
