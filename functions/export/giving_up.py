"""When an export continues without something that it cannot retrieve."""

from collections.abc import Callable, Iterable
from typing import Final

from functions.export.fetch import Fetcher
from functions.export.job import Job
from functions.export.slices import Piece

DETAIL: Final = "given up after several deliveries"
Known = Callable[[], Piece | None]


class GivingUp:
    """Decides when, for one slice.

    Args:
        known: finds a piece that a finished slice has exported: the store is asked for it.
    """

    def __init__(self, job: Job, fetcher: Fetcher, known: Known) -> None:
        self._attempt = job.attempt
        self._fetcher = fetcher
        self._known = known

    def is_due(self, done: Iterable[Piece]) -> bool:
        """Whether to give up what has just failed. It is given up when both are true:

        - this is delivery EXPORT_GIVE_UP_ATTEMPT, or a later one;
        - the store returns something that the export already has, so the store is not down.

        Until then another delivery tries again. A piece is only given up after it was tried
        (object_slice, zip_slice). What a search of the store left out while planning is given up
        by the number of the delivery alone (plan.py).

        Args:
            done: pieces that this slice has.
        """
        if not self._attempt.may_give_up:
            return False
        known = next(iter(done), None) or self._known()
        return known is not None and self._fetcher.gives(known)
