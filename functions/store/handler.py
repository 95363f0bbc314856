"""Store each object of the landing bucket in the DICOM store, and report its outcome.

The order is: do the work, copy what cannot be stored to quarantine, publish the outcome, move or
delete the source, acknowledge. If a process is killed in between, its message is delivered again,
and every step can be repeated: the DICOM store keeps identical bytes as one instance, outcomes have
the same id, and an object that is gone needs no more work.
"""

import contextlib
import functools
from dataclasses import replace

from functions.api import page_uploads
from functions.common.deadline import Deadline
from functions.common.errors import NothingToStoreError, PermanentError, SupersededError
from functions.common.events.messages import AGAIN, Message, is_finalize, written_object
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.events.runtime import Services, View, event_function
from functions.common.settings import STORE
from functions.store import archive_progress, archive_upload, filetype, multipart_file, verdicts
from functions.store.archive_progress import Progress
from functions.store.delivery import Delivery
from functions.store.disposition import dispose, quarantine
from functions.store.instances import DicomFile, Instance
from functions.store.memory import Memory
from functions.store.pair_names import may_be_half
from functions.store.pair_state import PairState
from functions.store.pairs import HalfUpload
from functions.store.stow import Stow
from functions.store.verdicts import Verdict


def entry_point() -> View:
    """Make the deployed function."""
    return event_function(STORE, functools.partial(handle, memory=Memory()))


def handle(
    message: Message, services: Services, outcomes: Outcomes, deadline: Deadline, memory: Memory
) -> None:
    """Store the event's object, or continue an archive.

    Raises:
        PermanentError: invalid_event.
        RetryableError: the DICOM store or the bucket is busy or does not answer; operation_pending
            while metadata or a JPEG waits for its other half, or another invocation works on the
            same object.
    """
    message.check_subscription(archive_progress.is_follow_up(message))
    progress = Progress()
    if message.follow_up:
        written, progress = archive_progress.load(message)
    elif is_finalize(message):
        written = written_object(message.json())
    else:
        raise PermanentError("invalid_event", "not a notification that an object was written")
    if written.ref.bucket != services.settings.landing_bucket:
        raise PermanentError("invalid_event", "not the landing bucket")
    with memory.working_on((written.ref, progress.mark)) as was_done:
        # This process has published the outcome or a follow-up message; an operator's replay
        # (AGAIN) is processed nevertheless.
        if was_done and AGAIN not in message.attributes:
            return
        delivery = Delivery(
            object=written,
            message=message,
            services=services,
            outcomes=outcomes,
            deadline=deadline,
            memory=memory,
        )
        _process(delivery, progress)


def _process(delivery: Delivery, progress: Progress) -> None:
    """Process an object until its outcome, and then keep, move or delete it.

    Args:
        delivery: of its event.
        progress: of an archive; is changed in place, so that it holds what was done when an error
            comes.
    """
    try:
        verdict = _verdict(delivery, progress)
        if verdict is not None and verdict.is_bad:
            quarantine(delivery, verdict.outcome, progress.failed)
    except SupersededError:
        verdict = _superseded(delivery, progress)
    if verdict is None:
        # A follow-up message continues the archive.
        return
    outcome = replace(
        verdict.outcome,
        source=delivery.ref,
        request_id=page_uploads.request_id(delivery.ref.name),
        size_bytes=delivery.object.size,
    )
    delivery.outcomes.publish(outcome)
    if verdict.is_bad:
        # It is in quarantine.
        delivery.buckets.delete(delivery.ref, delivery.deadline)
    elif verdict.is_safe:
        dispose(delivery)


def _verdict(delivery: Delivery, progress: Progress) -> Verdict | None:
    """The verdict on it; None if that is known only later."""
    try:
        return _store(delivery, progress)
    except PermanentError as error:
        return verdicts.of_error(error)


def _store(delivery: Delivery, progress: Progress) -> Verdict | None:
    if delivery.ref.name.endswith("/") and not delivery.object.size:
        return Verdict(Outcome("skipped", "unsupported_input", detail="a folder's placeholder"))
    with contextlib.closing(delivery.source_of(delivery.object)) as source:
        kind = filetype.sniff(source.head)
        if kind == "dicom":
            return _store_instance(delivery, DicomFile(source))
        if kind == "multipart":
            return _store_instance(delivery, multipart_file.instance_of(source))
        if kind in ("json", "jpeg"):
            return HalfUpload(delivery, kind, source).run()
    if kind in filetype.ARCHIVES:
        return archive_upload.store_archive(delivery, kind, progress)
    raise NothingToStoreError("neither DICOM, nor metadata with a JPEG, nor an archive")


def _store_instance(delivery: Delivery, instance: Instance) -> Verdict:
    word = Stow(delivery, instance, [delivery.object]).run()
    return verdicts.of_word(word, instance.resource)


def _superseded(delivery: Delivery, progress: Progress) -> Verdict:
    """The object is gone. If an earlier delivery of half a pair deleted or moved it, its outcome is
    repeated."""
    if may_be_half(delivery.ref.name):
        finished = PairState(delivery).resume()
        if finished is not None:
            return finished
    return Verdict(Outcome("superseded", counts=progress.counts))
