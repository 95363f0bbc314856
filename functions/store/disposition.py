"""What becomes of an object once the DICOM store has what is in it: kept, deleted or moved
(SOURCE_DISPOSITION)."""

from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import GcsPrefix, ObjectRef
from functions.common.settings import Settings


def dispose(ref: ObjectRef, settings: Settings, buckets: Buckets, deadline: Deadline) -> None:
    """Do with a stored object as its prefix says. Doing it again changes nothing.

    Raises:
        RetryableError: as Transport.send; unavailable also where the place to move to is wrong,
            which heals.
    """
    disposition = settings.source_disposition.of(ref.name)
    if disposition == "keep":
        return
    place = settings.move_destination
    if disposition == "move" and place is not None:
        try:
            _copy(ref, place, buckets, deadline)
        except SupersededError:
            return  # an earlier delivery moved it
        except PermanentError as error:
            raise RetryableError("unavailable") from error
    buckets.delete(ref, deadline)


def _copy(ref: ObjectRef, place: GcsPrefix, buckets: Buckets, deadline: Deadline) -> None:
    """Copy; with its generation as an ending where an earlier upload, or an earlier delivery, took
    the name."""
    name = f"{place.prefix}/{ref.name}".lstrip("/")
    try:
        buckets.copy(ref, place.bucket, name, deadline, if_generation_match=0)
    except PreconditionFailedError:
        buckets.copy(ref, place.bucket, f"{name}~{ref.generation}", deadline)
