"""The progress of an archive, and the follow-up message that passes it to the next invocation.

The next walk continues at the place of the mark. Waiting halves of pairs before it are read again
first.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from functions.common.clients.storage import StoredObject
from functions.common.errors import PermanentError
from functions.common.events.messages import ANEW, Message
from functions.store.archive import Place
from functions.store.delivery import Delivery, object_of
from functions.store.verdict import Verdict, of_archive

ATTRIBUTES: Final = {"follow-up": "archive"}  # of a follow-up message

_FAILED_MAX: Final = 1000  # of those that are listed in the sidecar in quarantine


@dataclass(frozen=True)
class Mark:
    """A place in an archive; everything before it is done, except waiting halves.

    Args:
        place: where to go on.
        members: files before it.
        total_bytes: of these, unpacked.
        waiting: the places of halves that wait for their other half.
    """

    place: Place = ()
    members: int = 0
    total_bytes: int = 0
    waiting: tuple[Place, ...] = ()


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
    event = delivery.message.json()
    if delivery.message.follow_up:
        event = event["event"]
    attributes = dict(ATTRIBUTES)
    if ANEW in delivery.message.attributes:
        attributes[ANEW] = "yes"
    delivery.services.topics.publish(
        delivery.settings.uploads_next_topic,
        dump(event, progress),
        attributes,
        delivery.deadline,
    )


def dump(event: Mapping[str, Any], progress: Progress) -> bytes:
    """The data of a follow-up message; `event` is the notification of the archive."""
    state = {"event": event, **vars(progress), "mark": vars(progress.mark)}
    return json.dumps(state).encode()


def is_follow_up(message: Message) -> bool:
    """Whether the message is the next step of an archive."""
    return message.attributes.items() >= ATTRIBUTES.items()


def load(message: Message) -> tuple[StoredObject, Progress]:
    """Read a follow-up message, as strictly as any event.

    Raises:
        PermanentError: invalid_event.
    """
    state = message.json()
    try:
        archive = object_of(Message(json.dumps(state.pop("event")).encode()))
        progress = _progress(**state)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, PermanentError):
        raise PermanentError("invalid_event", "a malformed follow-up message") from None
    return archive, progress


def _progress(*, mark: Any, counts: Any, failed: Any) -> Progress:
    return Progress(
        mark=_mark(**mark),
        counts=Counter({word: _whole(count) for word, count in counts.items()}),
        failed=[(_text(name), _text(why)) for name, why in failed],
    )


def _mark(*, place: Any, members: Any, total_bytes: Any, waiting: Any) -> Mark:
    return Mark(
        place=_place(place),
        members=_whole(members),
        total_bytes=_whole(total_bytes),
        waiting=tuple(_place(one) for one in waiting),
    )


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
