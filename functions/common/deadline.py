"""The only place that reads a clock or sleeps."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from functions.common.errors import RetryableError


@dataclass(frozen=True)
class Deadline:
    """The time one invocation may take, counted from when this was made.

    Args:
        budget_s: seconds in all; less than the function's timeout, which is less than the ack
            deadline.
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
        """Raise RetryableError("deadline_exceeded") when nothing is left."""
        if time.monotonic() - self.started_s >= self.budget_s:
            raise RetryableError("deadline_exceeded")

    def sleep(self, seconds: float) -> bool:
        """Sleep, and say whether it was done; return at once with False when the time left is no
        longer than that."""
        if seconds >= self.remaining_s():
            return False
        time.sleep(seconds)
        return True

    def timeout_s(self, at_most_s: float) -> float:
        """A timeout in seconds for one call: the time left, but no more than `at_most_s`.

        Raises:
            RetryableError: deadline_exceeded, when nothing is left.
        """
        self.check()
        return min(at_most_s, self.remaining_s())


def utc_now() -> str:
    """The time now, RFC 3339 in UTC with microseconds, which sorts as text."""
    return written(datetime.now(UTC))


def written(time: datetime) -> str:
    """A time in UTC as `utc_now` gives it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def timestamp(text: str) -> datetime | None:
    """An RFC 3339 time with its offset from UTC; None for any other text."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo and "T" in text else None


def age_s(time: datetime) -> float:
    """How many seconds ago a time was."""
    return (datetime.now(UTC) - time).total_seconds()


def epoch_s() -> float:
    """The time now in seconds since 1970, as tokens give it."""
    return time.time()
