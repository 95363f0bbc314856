"""Store each object of the landing bucket in the DICOM store, and say what became of it.

The order is: do the work, publish the outcome, move or delete the source, acknowledge. A process
that is killed anywhere in between leaves a message that is delivered again, and every step may be
done twice: the DICOM store takes identical bytes as one instance, outcomes have the same id, and an
object that is gone needs nothing more.
"""

import functools
from dataclasses import dataclass, field, replace
from typing import Final

from functions.common.clients.storage import PreconditionFailedError, StoredObject
from functions.common.deadline import Deadline, age_s, timestamp
from functions.common.errors import (
    NothingToStoreError,
    PermanentError,
    RetryableError,
    SupersededError,
)
from functions.common.events.messages import ANEW, Message, ObjectFinalized, is_finalize
from functions.common.events.outcomes import Outcome, Outcomes, Word, outcome_id
from functions.common.events.runtime import Services, View, event_function
from functions.common.resources import GcsPrefix, ObjectRef, Resource
from functions.common.settings import STORAGE_CLASSES, STORE
from functions.store import content, continuation, pair, quarantine, sources
from functions.store.archive import Limits
from functions.store.content import Kind
from functions.store.continuation import Progress
from functions.store.members import Members
from functions.store.memory import Memory
from functions.store.ranged import open_ranged
from functions.store.sources import Source, object_source
from functions.store.storing import File, Instance, Storing

_PASSED_ON: Final = "passed on"  # marks an archive that a follow-up message goes on with
_CLASS_KEY: Final = "dicom-storage-class"  # of an object's metadata
_RESERVE_S: Final = 30.0  # of an archive's slice, for the follow-up message and what comes after
_SLICE_PART: Final = 0.2  # of the budget: with less left, no further member is begun


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(STORE, functools.partial(handle, memory=Memory()))


def handle(
    message: Message, services: Services, outcomes: Outcomes, deadline: Deadline, memory: Memory
) -> None:
    """Store the object that the event speaks of, or go on with an archive.

    Raises:
        PermanentError: invalid_event.
        RetryableError: the DICOM store or the bucket is busy or away; operation_pending while
            metadata or a JPEG waits for its other half, or another thread works on the same object.
    """
    progress = Progress()
    message.check_way(continuation.is_continuation(message))
    if message.follow_up:
        event, progress = continuation.load(message)
    elif is_finalize(message):
        event = ObjectFinalized.of(message)
    else:
        raise PermanentError("invalid_event", "not a notification that an object was written")
    if event.ref.bucket != services.settings.landing_bucket:
        raise PermanentError("invalid_event", "not the landing bucket")
    with memory.working_on((event.ref, progress.reached)) as done:
        if not done or ANEW in message.attributes:
            _Upload(event, progress, message, services, outcomes, deadline, memory).run()
        elif not memory.is_done(
            (_PASSED_ON, event.ref)
        ):  # an archive's own outcome comes from its last message
            told = "this event was handled before"
            outcomes.publish(
                Outcome("duplicate", source=event.ref, size_bytes=event.size, detail=told)
            )


@dataclass
class _Upload:
    """One object on its way; a pair's other half joins `inputs`."""

    event: ObjectFinalized
    progress: Progress
    message: Message
    services: Services
    outcomes: Outcomes
    deadline: Deadline
    memory: Memory
    inputs: list[StoredObject] = field(default_factory=list)
    bad: bool = False  # goes to quarantine

    def run(self) -> None:
        """Bring it to its outcome."""
        event = self.event
        self.inputs = [
            StoredObject(
                event.ref, event.size, event.crc32c, event.created, metadata=event.metadata
            )
        ]
        try:
            verdict = self._verdict()
            if self.bad and verdict is not None:
                self._quarantine(verdict)
        except SupersededError:
            verdict, self.bad = Outcome("superseded", counts=self.progress.counts), False
        if verdict is None:
            self.memory.done((_PASSED_ON, self.event.ref))
            return  # an archive goes on in a follow-up message
        for one in self.inputs:
            self.outcomes.publish(replace(verdict, source=one.ref, size_bytes=one.size))
        for one in self.inputs:
            if self.bad:
                self.services.buckets.delete(one.ref, self.deadline)
            elif verdict.outcome in ("stored", "duplicate") and not verdict.counts.get("conflict"):
                self._dispose(one.ref)
        for other in self.inputs[1:]:
            self.memory.done((other.ref, ()))

    def _verdict(self) -> Outcome | None:
        """What becomes of it; None when that shows only later."""
        try:
            return self._store()
        except PermanentError as error:
            self.bad = True
            word: Word = "conflict" if error.reason == "conflict" else "rejected"
            return Outcome(word, error.reason, detail=error.detail)

    def _store(self) -> Outcome | None:
        event = self.event
        if event.ref.name.endswith("/") and not event.size:
            return Outcome("skipped", "unsupported_input", detail="a folder's placeholder")
        source = self._source(self.inputs[0])
        kind = content.sniff(source.head)
        if kind == "dicom":
            header = sources.header_of(source)
            return _done(self._send(File(header.resource, source)), header.resource)
        if kind in ("json", "jpeg"):
            return self._store_pair(kind, source)
        source.close()
        if kind in content.ARCHIVES:
            return self._store_archive(kind)
        raise NothingToStoreError("neither DICOM, nor metadata with a JPEG, nor an archive")

    def _send(self, instance: Instance, place: str = "") -> Word:
        """Store one instance, of the object or of a place in it."""
        name, settings = self.event.ref.name, self.services.settings
        asked = next(
            (one.metadata[_CLASS_KEY] for one in self.inputs if _CLASS_KEY in one.metadata), ""
        )
        storage_class = asked.upper() or settings.storage_class.of(name)
        if storage_class not in STORAGE_CLASSES:
            raise PermanentError("rejected", f"{_CLASS_KEY} is no storage class")
        by = (self.event.ref, place)
        return Storing(
            self.services.dicom_store,
            storage_class,
            settings.conflict_policy.of(name),
            max(filter(None, (timestamp(one.updated) for one in self.inputs)), default=None),
            self.message.attempt > 1,
            lambda resource, crc32c: self.memory.stored(resource, crc32c, by),
            self.deadline,
        ).run(instance)

    def _store_pair(self, kind: Kind, source: Source) -> Outcome:
        """Store metadata and JPEG, if both are there; the one that comes second brings both to
        their outcome."""
        endings = {"json": pair.JSON_ENDINGS, "jpeg": pair.JPEG_ENDINGS}
        mine, theirs = endings.pop(kind), endings.popitem()[1]
        stem = pair.stem_of(self.event.ref.name, mine)
        if not stem:
            raise NothingToStoreError("metadata or a JPEG whose name does not say so")
        text = sources.whole(source, pair.METADATA_LIMIT_BYTES) if kind == "json" else b""
        metadata = pair.parse_metadata(text) if kind == "json" else None
        source.close()
        other = self._other_half(stem, theirs)
        self.inputs.append(other)
        try:
            if metadata is None:
                metadata = pair.parse_metadata(
                    sources.whole(self._source(other), pair.METADATA_LIMIT_BYTES)
                )
            jpeg = self._source(other) if kind == "json" else source
            return _done(self._send(pair.Pair(metadata, jpeg)), metadata.resource)
        except SupersededError:
            raise RetryableError("unavailable") from None  # one of the two changed: look again

    def _other_half(self, stem: str, endings: tuple[str, ...]) -> StoredObject:
        found = self.services.buckets.list(self.event.ref.bucket, f"{stem}.", self.deadline)
        other = next((one for one in found if pair.stem_of(one.ref.name, endings) == stem), None)
        if other is not None:
            return other
        written = timestamp(self.event.created)
        if written is not None and age_s(written) < self.services.settings.pair_wait_s:
            raise RetryableError("operation_pending")
        raise PermanentError("unsupported_input", "its other half, metadata or JPEG, did not come")

    def _store_archive(self, kind: Kind) -> Outcome | None:
        settings, event = self.services.settings, self.event
        reserve_s = min(_RESERVE_S, self.deadline.budget_s / 10)
        members_deadline = Deadline(self.deadline.budget_s - reserve_s, self.deadline.started_s)
        limits = Limits(
            settings.archive_max_members,
            settings.archive_max_bytes,
            settings.archive_max_member_bytes,
            settings.archive_max_ratio,
            settings.archive_max_nesting,
            settings.archive_max_name_bytes,
        )
        slice_ = replace(self, deadline=members_deadline)
        error: PermanentError | None = None
        work = Members(
            lambda: open_ranged(event.ref, event.size, self.services.buckets, members_deadline),
            kind,
            event.ref,
            event.size,
            limits,
            slice_._send,
            self.outcomes.publish,
            lambda: members_deadline.remaining_s() > _SLICE_PART * self.deadline.budget_s,
            self.progress,
        )
        try:
            finished = work.run()
        except PermanentError as caught:
            finished, error = True, caught
        if not finished:
            data = continuation.dump(event, self.progress)
            anew = {ANEW: "yes"} if ANEW in self.message.attributes else {}
            attributes = {**continuation.ATTRIBUTES, **anew}
            self.services.topics.publish(
                settings.uploads_next_topic, data, attributes, self.deadline
            )
            return None
        verdict = continuation.verdict(self.progress, error)
        self.bad = verdict.outcome in ("rejected", "partial")
        return verdict

    def _source(self, one: StoredObject) -> Source:
        return object_source(one.ref, one.size, one.crc32c, self.services.buckets, self.deadline)

    def _quarantine(self, verdict: Outcome) -> None:
        """Copy what is bad; it is deleted once its outcome is out."""
        for one in list(self.inputs):
            identity = outcome_id(STORE, one.ref)
            note = quarantine.Note(
                verdict.reason, verdict.detail, one.ref, identity, tuple(self.progress.failed)
            )
            try:
                quarantine.put(
                    self.services.settings.quarantine_bucket,
                    note,
                    self.services.buckets,
                    self.deadline,
                )
            except SupersededError:
                self.inputs.remove(one)  # the other half of a pair: its own event says so
                if one.ref == self.event.ref:
                    raise

    def _dispose(self, ref: ObjectRef) -> None:
        """Keep, delete or move what was stored."""
        settings, buckets = self.services.settings, self.services.buckets
        disposition = settings.source_disposition.of(ref.name)
        if disposition == "keep":
            return
        if disposition == "move" and settings.move_destination is not None:
            try:
                self._copy_to(settings.move_destination, ref)
            except SupersededError:
                return  # an earlier delivery moved it
            except PermanentError as error:
                raise RetryableError("unavailable") from error  # the place is wrong: that heals
        buckets.delete(ref, self.deadline)

    def _copy_to(self, place: GcsPrefix, ref: ObjectRef) -> None:
        """Copy; with its generation as an ending where an earlier upload (or an earlier delivery)
        took its name."""
        name, buckets = f"{place.prefix}/{ref.name}".lstrip("/"), self.services.buckets
        try:
            buckets.copy(ref, place.bucket, name, self.deadline, if_generation_match=0)
        except PreconditionFailedError:
            buckets.copy(ref, place.bucket, f"{name}~{ref.generation}", self.deadline)


def _done(word: Word, resource: Resource) -> Outcome:
    if word == "conflict":
        return Outcome(word, "conflict", resource=resource, detail=continuation.KEPT)
    return Outcome(word, resource=resource)
