"""Carries out the decision of verdict about the object: it goes to quarantine, with a sidecar that
says why, or is kept, deleted or moved (SOURCE_DISPOSITION)."""

from collections.abc import Sequence
from typing import Final

from functions.common.clients.storage import PreconditionFailedError
from functions.common.errors import SupersededError, correctable
from functions.common.events.outcomes import Outcome, outcome_id
from functions.common.resources import GcsPrefix, ObjectRef
from functions.common.settings import STORE
from functions.store.delivery import Delivery
from functions.store.sidecar import NAME_BYTES, SIDECAR_ENDING, Sidecar, cut_name

# In a sidecar's metadata: the id of the outcome that it belongs to.
_OUTCOME_KEY: Final = "dicom-outcome"


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
    with correctable():
        while not _put_as(name, sidecar, delivery):
            name = f"{name}~{delivery.ref.generation}"


def _put_as(name: str, sidecar: Sidecar, delivery: Delivery) -> bool:
    """Copy the object under this name, and then write its sidecar; False if the name is another
    object's.

    In this order no sidecar is left alone if the source is deleted before the next delivery.
    """
    bucket = delivery.settings.quarantine_bucket
    beside = ObjectRef(bucket, name + SIDECAR_ENDING)
    there = delivery.buckets.stat(beside, delivery.deadline)
    if there is not None:
        # If it is this sidecar, an earlier delivery has written both.
        return there.metadata.get(_OUTCOME_KEY) == sidecar.outcome_id
    if not _copy_as(name, bucket, delivery):
        return False
    try:
        delivery.buckets.write_small(
            bucket,
            beside.name,
            sidecar.dump(),
            delivery.deadline,
            content_type="application/json",
            metadata={_OUTCOME_KEY: sidecar.outcome_id},
        )
    except PreconditionFailedError:
        # Another delivery has just written a sidecar.
        return _put_as(name, sidecar, delivery)
    return True


def dispose(delivery: Delivery) -> None:
    """Keep, delete or move a stored object, by its prefix. Repeating this changes nothing.

    Raises:
        RetryableError: as Transport.send; unavailable also if the destination of a move is wrong:
            an operator can fix it.
    """
    disposition = delivery.settings.source_disposition.of(delivery.ref.name)
    if disposition == "move":
        _move(delivery)
    elif disposition == "delete":
        delivery.buckets.delete(delivery.ref, delivery.deadline)


def _move(delivery: Delivery) -> None:
    place = delivery.settings.move_destination
    assert place is not None, "settings.py requires it for `move`"
    try:
        with correctable():
            _copy_to(delivery, place)
    except SupersededError:
        # An earlier delivery moved it.
        return
    delivery.buckets.delete(delivery.ref, delivery.deadline)


def _copy_to(delivery: Delivery, place: GcsPrefix) -> None:
    """Copy. If the name is too long, it is cut; then, and if the name has other bytes, the
    generation is added to the copy's name."""
    name = f"{place.prefix}/{delivery.ref.name}".lstrip("/")
    if len(name.encode()) > NAME_BYTES:
        name = cut_name(name, delivery.ref.generation, NAME_BYTES)
    if not _copy_as(name, place.bucket, delivery):
        name = f"{name}~{delivery.ref.generation}"
        delivery.buckets.copy(delivery.ref, place.bucket, name, delivery.deadline)


def _copy_as(name: str, bucket: str, delivery: Delivery) -> bool:
    """Copy under this name, unless the same bytes are already there: an earlier delivery may have
    copied them. False if there are other bytes."""
    try:
        delivery.buckets.copy(delivery.ref, bucket, name, delivery.deadline, if_generation_match=0)
    except PreconditionFailedError:
        there = delivery.buckets.stat(ObjectRef(bucket, name), delivery.deadline)
        source = delivery.object
        return there is not None and (there.size, there.crc32c) == (source.size, source.crc32c)
    return True
