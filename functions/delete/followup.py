"""The rest of a delete, in follow-up messages; no other state is kept."""

from dataclasses import dataclass, field
from typing import Any, Final

from functions.api import commands
from functions.api.requests import STUDIES_MAX
from functions.common.errors import PermanentError
from functions.common.events.messages import Message
from functions.common.resources import Resource

_COUNTS: Final = ("deleted", "not_found", "failed", "instances", "bytes")
_NUMBER: Final = commands.whole(0, 10**15)


def _no_counts() -> dict[str, int]:
    return dict.fromkeys(_COUNTS, 0)


@dataclass
class Target:
    """One resource to delete.

    Args:
        instances: their number before the first DELETE; 0 if none was sent.
        size_bytes: their size then, according to the store's metrics, which lag.
        tries: how many DELETEs the store has answered.
        operation: the name of the running operation; empty without one.
    """

    resource: Resource
    instances: int = 0
    size_bytes: int = 0
    tries: int = 0
    operation: str = ""

    @property
    def was_tried(self) -> bool:
        """Whether a DELETE was sent, even if its answer was lost. One that was answered 409 counts
        too: the operation at work may be its own, started by an attempt whose answer was lost."""
        return self.instances > 0

    def to_json(self) -> list[Any]:
        """In a follow-up message."""
        return [
            str(self.resource),
            self.instances,
            self.size_bytes,
            self.tries,
            self.operation,
        ]

    @classmethod
    def parse(cls, value: object) -> "Target":
        """From a follow-up message.

        Raises:
            PermanentError: invalid_command, for anything that `to_json` does not write.
        """
        if not isinstance(value, list) or len(value) != 5:
            raise _malformed()
        path, instances, size_bytes, tries, operation = value
        if not isinstance(operation, str):
            raise _malformed()
        return cls(
            resource=Resource.parse(commands.text(path)),
            instances=_NUMBER(instances),
            size_bytes=_NUMBER(size_bytes),
            tries=_NUMBER(tries),
            operation=operation,
        )


@dataclass
class Work:
    """A whole request: one target by path, or the studies that a query matched.

    Args:
        published: when the command was published, RFC 3339; empty if unknown.
        store: the full name of the DICOM store.
        by_query: whether the command was a query.
        targets: those that have not ended.
        stored_before: of the command, RFC 3339 or empty.
        late: whether the command or one of its follow-ups was delivered before.
        counts: of the targets that have ended.
    """

    published: str
    store: str
    by_query: bool
    targets: list[Target]
    stored_before: str = ""
    late: bool = False
    counts: dict[str, int] = field(default_factory=_no_counts)

    def to_json(self) -> dict[str, Any]:
        """The content of a follow-up message."""
        return {
            "published": self.published,
            "store": self.store,
            "by_query": self.by_query,
            "targets": [target.to_json() for target in self.targets],
            "stored_before": self.stored_before,
            "late": self.late,
            "counts": self.counts,
        }

    @classmethod
    def parse(cls, value: object) -> "Work":
        """Read a follow-up message.

        Raises:
            PermanentError: invalid_command, for anything that `to_json` does not write.
        """
        if not isinstance(value, dict) or value.keys() != _KEYS:
            raise _malformed()
        targets, counts = value["targets"], value["counts"]
        if not isinstance(targets, list) or not 0 < len(targets) <= STUDIES_MAX:
            raise _malformed()
        if not isinstance(counts, dict) or counts.keys() != set(_COUNTS):
            raise _malformed()
        return cls(
            published=_time(value["published"]),
            store=commands.text(value["store"]),
            by_query=commands.flag(value["by_query"]),
            targets=[Target.parse(item) for item in targets],
            stored_before=_time(value["stored_before"]),
            late=commands.flag(value["late"]),
            counts={name: _NUMBER(count) for name, count in counts.items()},
        )


_KEYS: Final = {
    "published",
    "store",
    "by_query",
    "targets",
    "stored_before",
    "late",
    "counts",
}
KEYS: Final[dict[str, commands.Parse]] = {
    "continue": Work.parse,
    "request_id": commands.text,
}


def is_follow_up(message: Message) -> bool:
    """Whether a message has the content of a follow-up message."""
    return "continue" in message.json_or_nothing()


def _time(value: object) -> str:
    if value == "":
        return ""
    return commands.time(value)


def _malformed() -> PermanentError:
    # A new one each time: an exception keeps the frames in which it was raised, and these keep the
    # message.
    return PermanentError("invalid_command", "a malformed follow-up message")
