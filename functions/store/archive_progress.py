"""The progress of an archive, and the follow-up message that passes it to the next invocation.

The next walk continues at the mark. A place has a number for each archive around it: (3, 512) is
byte 512 of the tar that has the number 3 in the zip (archive.Place). Halves of pairs that wait
before the mark are read again first, into the memory of that process.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from functions.common.clients.storage import StoredObject
from functions.common.errors import PermanentError
from functions.common.events.messages import AGAIN, Message, written_object
from functions.store.archive import BEGINNING, Place
from functions.store.delivery import Delivery
from functions.store.verdicts import Verdict, of_archive

# The attribute of a follow-up message, and its value.
_FOLLOW_UP: Final = "follow-up"
_OF_ARCHIVE: Final = "archive"
_KEYS: Final = {"event", "mark", "counts", "failed"}
# So many failed members are listed in the sidecar in quarantine.
_FAILED_MAX: Final = 1000


@dataclass(frozen=True)
class Mark:
    """A place in an archive; everything before it is done, except waiting halves.

    Args:
        place: where to go on.
        members: files before it.
        total_bytes: of these, unpacked.
        waiting: the places of halves before it that wait for their other half.
    """

    place: Place = BEGINNING
    members: int = 0
    total_bytes: int = 0
    waiting: tuple[Place, ...] = ()

    @property
    def begin(self) -> Place:
        """Where the next walk begins: halves that wait are read once more."""
        return min([self.place, *self.waiting])


class Done(NamedTuple):
    """A member whose outcome was published."""

    verdict: Verdict
    name: str


@dataclass
class Progress:
    """The mark that was reached, and the outcomes of the members before it.

    Args:
        mark: where to go on.
        counts: the number of members by outcome.
        failed: name and reason of those that failed, the first thousand.
    """

    mark: Mark = Mark()
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def reach(self, mark: Mark, done: Iterable[Done]) -> None:
        """Continue after members that have their outcomes."""
        self.mark = mark
        for verdict, name in done:
            outcome = verdict.outcome
            self.counts[outcome.outcome] += 1
            if verdict.is_bad:
                self.failed.append((name, outcome.reason))
        del self.failed[_FAILED_MAX:]

    def verdict(self, error: PermanentError | None = None) -> Verdict:
        """The archive's own verdict, after those of its members.

        Args:
            error: why it could not be read to its end.
        """
        counts = {**self.counts, "members": self.mark.members}
        return of_archive(counts, self.failed, error)


def publish(delivery: Delivery, progress: Progress) -> None:
    """Publish the follow-up message for the next invocation."""
    message = delivery.message
    notification = message.json()
    if message.follow_up:
        notification = notification["event"]
    attributes = {_FOLLOW_UP: _OF_ARCHIVE}
    if AGAIN in message.attributes:
        attributes[AGAIN] = "yes"
    delivery.services.topics.publish(
        delivery.settings.uploads_next_topic,
        dump(notification, progress),
        attributes,
        delivery.deadline,
    )


def dump(notification: Mapping[str, Any], progress: Progress) -> bytes:
    """The data of a follow-up message."""
    state = {
        "event": notification,
        "mark": vars(progress.mark),
        "counts": progress.counts,
        "failed": progress.failed,
    }
    return json.dumps(state).encode()


def is_follow_up(message: Message) -> bool:
    """Whether the message is the next step of an archive."""
    return message.attributes.get(_FOLLOW_UP) == _OF_ARCHIVE


def load(message: Message) -> tuple[StoredObject, Progress]:
    """Read a follow-up message, as strictly as any event.

    Returns:
        The archive, and what was reached in it.

    Raises:
        PermanentError: invalid_event.
    """
    try:
        return _load(message.json())
    except (KeyError, TypeError, ValueError, AttributeError, PermanentError):
        raise PermanentError("invalid_event", "a malformed follow-up message") from None


def _load(state: Mapping[str, Any]) -> tuple[StoredObject, Progress]:
    if state.keys() != _KEYS:
        raise ValueError
    progress = Progress(
        mark=_mark(state["mark"]),
        counts=Counter({word: _whole(count) for word, count in state["counts"].items()}),
        failed=[(_text(name), _text(reason)) for name, reason in state["failed"]],
    )
    return written_object(state["event"]), progress


def _mark(state: Mapping[str, Any]) -> Mark:
    return Mark(
        place=_place(state["place"]),
        members=_whole(state["members"]),
        total_bytes=_whole(state["total_bytes"]),
        waiting=tuple(_place(place) for place in state["waiting"]),
    )


def _place(value: Any) -> Place:
    if not value:
        raise ValueError
    return tuple(_whole(number) for number in value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
