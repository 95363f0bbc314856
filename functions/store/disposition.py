"""Carries out the decision of verdict about the object: it goes to quarantine, with a sidecar that
says why, or is kept, deleted or moved (SOURCE_DISPOSITION)."""

from collections.abc import Sequence
from typing import Final

from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.events.outcomes import Outcome, outcome_id
from functions.common.resources import GcsPrefix, ObjectRef
from functions.common.settings import STORE
from functions.store.delivery import Delivery
from functions.store.sidecar import SIDECAR_ENDING, Sidecar

_OUTCOME_KEY: Final = "dicom-outcome"  # of a sidecar's metadata


def quarantine(delivery: Delivery, outcome: Outcome, members: Sequence[tuple[str, str]]) -> None:
    """Copy an object that cannot be stored to quarantine, and write its sidecar; the source stays.
    Repeating this changes nothing.

    An earlier upload of the same name there is not replaced: the generation is added to the later
    one's name.

    Args:
        delivery: of its event.
        outcome: why.
        members: as in Sidecar.

    Raises:
        SupersededError: the object is gone or was overwritten.
        RetryableError: as Transport.send; unavailable also if the quarantine itself is wrong, such
            as a missing bucket: an operator can fix it, and the object must not be lost until then.
    """
    sidecar = Sidecar(
        reason=outcome.reason,
        detail=outcome.detail,
        source=delivery.ref,
        outcome_id=outcome_id(STORE, delivery.ref),
        members=tuple(members),
    )
    name = sidecar.name
    try:
        while not _put_as(name, sidecar, delivery):
            name = f"{name}~{delivery.ref.generation}"
    except PermanentError as error:
        raise RetryableError("unavailable") from error


def _put_as(name: str, sidecar: Sidecar, delivery: Delivery) -> bool:
    """Write both under this name; False if another object has it."""
    bucket = delivery.settings.quarantine_bucket
    buckets = delivery.buckets
    deadline = delivery.deadline
    beside = name + SIDECAR_ENDING
    written = None
    try:
        written = buckets.write_small(
            bucket,
            beside,
            sidecar.dump(),
            deadline,
            content_type="application/json",
            metadata={_OUTCOME_KEY: sidecar.outcome_id},
        )
    except PreconditionFailedError:
        there = buckets.stat(ObjectRef(bucket, beside), deadline)
        if there is None or there.metadata.get(_OUTCOME_KEY) != sidecar.outcome_id:
            return False
        # An earlier delivery has written it.
    try:
        buckets.copy(delivery.ref, bucket, name, deadline)
    except SupersededError:
        if written is not None:
            buckets.delete(written.ref, deadline)
        raise
    return True


def dispose(delivery: Delivery) -> None:
    """Keep, delete or move a stored object, by its prefix. Repeating this changes nothing.

    Raises:
        RetryableError: as Transport.send; unavailable also if the destination of a move is wrong:
            an operator can fix it.
    """
    disposition = delivery.settings.source_disposition.of(delivery.ref.name)
    if disposition == "keep":
        return
    place = delivery.settings.move_destination
    if disposition == "move" and place is not None:
        try:
            _copy(delivery, place)
        except SupersededError:
            return  # an earlier delivery moved it
        except PermanentError as error:
            raise RetryableError("unavailable") from error
    delivery.buckets.delete(delivery.ref, delivery.deadline)


def _copy(delivery: Delivery, place: GcsPrefix) -> None:
    """Copy, unless the same bytes are already there: another attempt may have copied them. If the
    name has other bytes, the generation is added to the copy's name."""
    ref = delivery.ref
    buckets = delivery.buckets
    deadline = delivery.deadline
    name = f"{place.prefix}/{ref.name}".lstrip("/")
    try:
        buckets.copy(ref, place.bucket, name, deadline, if_generation_match=0)
    except PreconditionFailedError:
        there = buckets.stat(ObjectRef(place.bucket, name), deadline)
        if there is None or not _is_same(there, delivery.object):
            buckets.copy(ref, place.bucket, f"{name}~{ref.generation}", deadline)


def _is_same(one: StoredObject, other: StoredObject) -> bool:
    return (one.size, one.crc32c) == (other.size, other.crc32c)
