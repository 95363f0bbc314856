"""Store each object of the landing bucket in the DICOM store, and report what became of it.

The order is: do the work, publish the outcome, move or delete the source, acknowledge. A process
that is killed anywhere in between leaves a message that is delivered again, and every step may be
done twice: the DICOM store takes identical bytes as one instance, outcomes have the same id, and an
object that is gone needs nothing more.
"""

import functools
from dataclasses import replace

from functions.common.deadline import Deadline
from functions.common.errors import NothingToStoreError, PermanentError, SupersededError
from functions.common.events.messages import ANEW, Message, ObjectFinalized, is_finalize
from functions.common.events.outcomes import Outcome, Outcomes, outcome_id
from functions.common.events.runtime import Services, View, event_function
from functions.common.settings import STORE
from functions.store import (
    archive_progress,
    archive_upload,
    filetype,
    multipart_file,
    quarantine,
    stow,
    verdict,
)
from functions.store.archive_progress import Progress
from functions.store.delivery import Delivery
from functions.store.disposition import dispose
from functions.store.instances import DicomFile, Instance
from functions.store.memory import Memory
from functions.store.pair_names import may_be_half
from functions.store.pair_state import PairState
from functions.store.pairs import HalfUpload
from functions.store.quarantine import Sidecar
from functions.store.source import header_of
from functions.store.verdict import Verdict


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(STORE, functools.partial(handle, memory=Memory()))


def handle(
    message: Message, services: Services, outcomes: Outcomes, deadline: Deadline, memory: Memory
) -> None:
    """Store the object that the event is about, or go on with an archive.

    Raises:
        PermanentError: invalid_event.
        RetryableError: the DICOM store or the bucket is busy or away; operation_pending while
            metadata or a JPEG waits for its other half, or another invocation works on the same
            object.
    """
    message.check_way(archive_progress.is_follow_up(message))
    progress = Progress()
    if message.follow_up:
        event, progress = archive_progress.load(message)
    elif is_finalize(message):
        event = ObjectFinalized.of(message)
    else:
        raise PermanentError("invalid_event", "not a notification that an object was written")
    if event.ref.bucket != services.settings.landing_bucket:
        raise PermanentError("invalid_event", "not the landing bucket")
    with memory.working_on((event.ref, progress.mark)) as was_done:
        if was_done and ANEW not in message.attributes:
            return  # by this very process, which has published the outcome or a follow-up message
        delivery = Delivery(
            event=event,
            message=message,
            services=services,
            outcomes=outcomes,
            deadline=deadline,
            memory=memory,
        )
        _Upload(delivery, progress).run()


class _Upload:
    """One object on its way.

    Args:
        delivery: of its event.
        progress: of an archive.
    """

    def __init__(self, delivery: Delivery, progress: Progress) -> None:
        self._delivery = delivery
        self._progress = progress
        self._ref = delivery.event.ref
        self._services = delivery.services

    def run(self) -> None:
        """Bring it to its outcome."""
        try:
            found = self._verdict()
            if found is not None and found.is_bad:
                self._quarantine(found.outcome)
        except SupersededError:
            found = self._superseded()
        if found is None:
            return  # an archive, with which a follow-up message goes on
        delivery = self._delivery
        outcome = replace(found.outcome, source=self._ref, size_bytes=delivery.event.size)
        delivery.outcomes.publish(outcome)
        if found.is_bad:
            self._services.buckets.delete(self._ref, delivery.deadline)
        elif found.is_safe:
            dispose(self._ref, self._services.settings, self._services.buckets, delivery.deadline)

    def _verdict(self) -> Verdict | None:
        """What becomes of it; None when that is known only later."""
        try:
            return self._store()
        except PermanentError as error:
            return verdict.of_error(error)

    def _store(self) -> Verdict | None:
        event = self._delivery.event
        if event.ref.name.endswith("/") and not event.size:
            detail = "a folder's placeholder"
            return Verdict(Outcome("skipped", "unsupported_input", detail=detail))
        source = self._delivery.source_of(self._delivery.input)
        kind = filetype.sniff(source.head)
        if kind == "dicom":
            return self._store_instance(DicomFile(header_of(source).resource, source))
        if kind == "multipart":
            return self._store_instance(multipart_file.instance_of(source))
        if kind in ("json", "jpeg"):
            return HalfUpload(self._delivery, kind, source).run()
        source.close()
        if kind in filetype.ARCHIVES:
            return archive_upload.go_through(self._delivery, kind, self._progress)
        raise NothingToStoreError("neither DICOM, nor metadata with a JPEG, nor an archive")

    def _store_instance(self, instance: Instance) -> Verdict:
        word = stow.store(self._delivery, instance, [self._delivery.input])
        return verdict.of_word(word, instance.resource)

    def _superseded(self) -> Verdict:
        """The object is gone. Where an earlier delivery of half a pair deleted it or moved it, its
        outcome is repeated."""
        if may_be_half(self._ref.name):
            finished = PairState(self._delivery).verdict()
            if finished is not None:
                return finished
        return Verdict(Outcome("superseded", counts=self._progress.counts))

    def _quarantine(self, outcome: Outcome) -> None:
        """Copy what is bad; it is deleted once its outcome is published."""
        sidecar = Sidecar(
            reason=outcome.reason,
            detail=outcome.detail,
            source=self._ref,
            outcome_id=outcome_id(STORE, self._ref),
            members=tuple(self._progress.failed),
        )
        quarantine.put(
            self._services.settings.quarantine_bucket,
            sidecar,
            self._services.buckets,
            self._delivery.deadline,
        )
