"""The only place that reads a clock or sleeps."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from functions.common.errors import RetryableError


@dataclass(frozen=True)
class Deadline:
    """Seconds from the creation of this object on: the time that one invocation may take, or
    the time for which something is remembered.

    Args:
        budget_s: total seconds; of an invocation less than the function's timeout, which is less
            than the ack deadline.
    """

    budget_s: float
    started_s: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    def remaining_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.budget_s - self.elapsed_s())

    def check(self) -> None:
        """Raise RetryableError("deadline_exceeded") when no time is left."""
        if time.monotonic() - self.started_s >= self.budget_s:
            raise RetryableError("deadline_exceeded")

    def sleep(self, seconds: float) -> bool:
        """Sleep, and return True; return False at once if less time is left."""
        if seconds >= self.remaining_s():
            return False
        time.sleep(seconds)
        return True

    def timeout_s(self, at_most_s: float) -> float:
        """A timeout in seconds for one call: the time left, but at most `at_most_s`.

        Raises:
            RetryableError: deadline_exceeded, when no time is left.
        """
        self.check()
        return min(at_most_s, self.remaining_s())

    def reserving(self, seconds: float) -> "Deadline":
        """A deadline that is `seconds` earlier, for work that leaves time to record its results.
        At most a quarter of the time is reserved, and the work has at least one second."""
        left_s = self.remaining_s()
        reserved_s = min(seconds, left_s / 4)
        return Deadline(max(1.0, left_s - reserved_s))


def now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def utc_now() -> str:
    """The time now, RFC 3339 in UTC with microseconds, which sorts as text."""
    return rfc3339(now())


def rfc3339(time: datetime) -> str:
    """The text of a time in UTC, in the form of `utc_now`."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parsed_rfc3339(text: str) -> datetime | None:
    """The time of an RFC 3339 text with its offset from UTC; None for any other text."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo and "T" in text else None


def age_s(time: datetime) -> float:
    """How many seconds ago a time was."""
    return (now() - time).total_seconds()


def epoch_s() -> float:
    """The time now in seconds since 1970, as in tokens."""
    return time.time()
