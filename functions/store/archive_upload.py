"""An archive in the landing bucket: as much of it as one invocation has time for, and a follow-up
message for the rest."""

from dataclasses import replace
from typing import Final

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError
from functions.common.events.messages import ANEW
from functions.common.events.outcomes import Word
from functions.common.settings import Settings
from functions.store import archive_progress
from functions.store.archive_limits import Limits
from functions.store.archive_members import ArchiveSlice
from functions.store.archive_progress import Progress
from functions.store.delivery import Delivery
from functions.store.filetype import Kind
from functions.store.instances import Instance
from functions.store.ranged import open_ranged
from functions.store.verdict import Verdict

# Of an invocation's time, for the follow-up message and what comes after.
_RESERVE_S: Final = 30.0
_RESERVE_PART: Final = 0.1  # but no more than this part of it
# With less than this part of the time left, no further member is begun.
_MEMBER_PART: Final = 0.2


def go_through(delivery: Delivery, kind: Kind, progress: Progress) -> Verdict | None:
    """Bring members to their outcomes until all are done or the time is up.

    Returns:
        The verdict on the archive; None when a follow-up message goes on with it.

    Raises:
        SupersededError: the archive is gone.
        RetryableError: not even the first member could be done.
    """
    budget_s = delivery.deadline.budget_s
    reserve_s = min(_RESERVE_S, _RESERVE_PART * budget_s)
    deadline = Deadline(budget_s - reserve_s, delivery.deadline.started_s)
    within = replace(delivery, deadline=deadline)
    event = delivery.event

    def store(instance: Instance, place: str) -> Word:
        return within.store(instance, [within.input], place)

    def publish(found: Verdict, name: str, place: str, size: int) -> None:
        outcome = replace(
            found.outcome, source=event.ref, member=name, place=place, size_bytes=size
        )
        delivery.outcomes.publish(outcome)

    one = ArchiveSlice(
        open_file=lambda: open_ranged(event.ref, event.size, delivery.services.buckets, deadline),
        kind=kind,
        size=event.size,
        limits=_limits(delivery.services.settings),
        store=store,
        publish=publish,
        time_left=lambda: deadline.remaining_s() > _MEMBER_PART * budget_s,
        progress=progress,
    )
    try:
        if one.run():
            return progress.verdict()
    except PermanentError as error:
        return progress.verdict(error)
    _publish_follow_up(delivery, progress)
    return None


def _publish_follow_up(delivery: Delivery, progress: Progress) -> None:
    attributes = dict(archive_progress.ATTRIBUTES)
    if ANEW in delivery.message.attributes:
        attributes[ANEW] = "yes"
    delivery.services.topics.publish(
        delivery.services.settings.uploads_next_topic,
        archive_progress.dump(delivery.event, progress),
        attributes,
        delivery.deadline,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        members=settings.archive_max_members,
        total_bytes=settings.archive_max_bytes,
        member_bytes=settings.archive_max_member_bytes,
        ratio=settings.archive_max_ratio,
        nesting=settings.archive_max_nesting,
        name_bytes=settings.archive_max_name_bytes,
    )
