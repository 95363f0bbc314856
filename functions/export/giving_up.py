"""What becomes of an instance, a frame or bulk data that cannot be retrieved or written. The export
continues without it, and the manifest lists it in `failures` with its UIDs and a reason:

    the DICOM store does not have it        `not_found`, at once (Fetcher)
    the DICOM store refuses it              `rejected`, at once (Fetcher)
    another object has its name             `conflict`, at once (ObjectWriter)
    anything that may pass: no answer, one  tried again by further deliveries; from delivery
        that breaks off, 401, 403, 429, 5xx EXPORT_GIVE_UP_ATTEMPT on it is given up, if the store
        (clients/statuses.py)               still returns another instance (`is_due`): the reason
                                            of the last attempt, such as `unavailable`
    it uses up the time of an invocation    the same, if it was retrieved for at least half of that
        in which nothing else succeeds      time (`was_tried`); otherwise the rest of the slice
                                            becomes another slice, in which it is tried again

From that delivery on, studies and series are not retrieved in one answer: an instance that uses up
the time of the whole answer would never be retrieved by itself.

What a search left out while planning is given up by plan.py, at the same delivery.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from functions.common.deadline import Deadline
from functions.export.fetch import Fetcher
from functions.export.job import Job
from functions.export.slices import Piece

DETAIL: Final = "given up after several deliveries"
# Of the time for recording, at most so much is used to ask for a known piece.
_ASKING_S: Final = 10.0
Known = Callable[[], Piece | None]


class GivingUp:
    """Decides for one slice whether it is time to give up.

    Args:
        known: finds a piece that a finished slice has exported, to ask the store for it once more;
            None if there is none yet.
    """

    def __init__(self, job: Job, known: Known) -> None:
        self._job = job
        self._known = known

    def is_due(self, done: Iterable[Piece]) -> bool:
        """Whether to give up what has just failed. It is given up when both are true:

        - this is delivery EXPORT_GIVE_UP_ATTEMPT, or a later one;
        - the store returns something that the export already has, so the store is not down.

        Until then another delivery tries again. A piece is only given up after it was tried
        (object_slice.py, zip_slice.py).

        Args:
            done: pieces that this slice has.
        """
        if not self._job.attempt.may_give_up:
            return False
        known = next(iter(done), None) or self._known()
        if known is None:
            return False
        return Fetcher(self._asking()).gives(known)

    def _asking(self) -> Job:
        """The job for asking. What failed may have used up the time for retrieving; then some of
        the time for recording is used."""
        if self._job.work_deadline.remaining_s() > 0:
            return self._job
        limit_s = min(_ASKING_S, self._job.deadline.remaining_s())
        return replace(self._job, work_deadline=Deadline(limit_s))


def was_tried(deadline: Deadline, began_with_s: float) -> bool:
    """Whether a failed attempt says something about its piece. One that was cut by the end of the
    time does only if it took at least half of that time.

    Args:
        deadline: for retrieving.
        began_with_s: seconds that were left when the attempt began.
    """
    if deadline.remaining_s() > 0:
        return True
    return began_with_s >= deadline.budget_s / 2
