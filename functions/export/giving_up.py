"""What becomes of an instance, a frame or bulk data that cannot be retrieved or written. The export
continues without it, and the manifest lists it in `failures` with its UIDs and a reason:

    the DICOM store does not have it        `not_found`, at once (Fetcher)
    the DICOM store refuses it              `rejected`, at once (Fetcher)
    another object has its name             `conflict`, at once (ObjectWriter)
    anything that may pass: no answer, one  tried again by further deliveries; from delivery
        that breaks off, 401, 403, 429, 5xx EXPORT_GIVE_UP_ATTEMPT on it is given up, if the store
        (clients/statuses.py)               still returns another instance (`is_due`): the reason
                                            of the last attempt, such as `unavailable`

What a search left out while planning is given up by plan.py, at the same delivery.
"""

from collections.abc import Callable, Iterable
from typing import Final

from functions.export.fetch import Fetcher
from functions.export.job import Job
from functions.export.slices import Piece

DETAIL: Final = "given up after several deliveries"
Known = Callable[[], Piece | None]


class GivingUp:
    """Decides for one slice whether it is time to give up.

    Args:
        known: finds a piece that a finished slice has exported, to ask the store for it once more;
            None if there is none yet.
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
        (object_slice.py, zip_slice.py).

        Args:
            done: pieces that this slice has.
        """
        if not self._attempt.may_give_up:
            return False
        known = next(iter(done), None) or self._known()
        return known is not None and self._fetcher.gives(known)
