"""One delivery of one object's event: what is known of it, and what it is handled with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from functions.common.clients.storage import StoredObject
from functions.common.deadline import Deadline, timestamp
from functions.common.events.messages import Message, ObjectFinalized
from functions.common.events.outcomes import Outcomes, Word
from functions.common.events.runtime import Services
from functions.common.settings import STORAGE_CLASSES
from functions.store.instances import Instance
from functions.store.memory import Memory
from functions.store.refusals import rejected
from functions.store.source import Source, object_source
from functions.store.stow import Stow

_CLASS_KEY: Final = "dicom-storage-class"  # of an object's metadata


@dataclass(frozen=True)
class Delivery:
    """An event and its surroundings.

    Args:
        event: that an object was written.
        message: that the event, or a step of its work, came with.
        services: settings and clients.
        outcomes: where records go.
        deadline: of the invocation.
        memory: of the process.
    """

    event: ObjectFinalized
    message: Message
    services: Services
    outcomes: Outcomes
    deadline: Deadline
    memory: Memory

    @property
    def input(self) -> StoredObject:
        """The object."""
        event = self.event
        return StoredObject(
            ref=event.ref,
            size=event.size,
            crc32c=event.crc32c,
            updated=event.created,
            metadata=event.metadata,
        )

    def source_of(self, one: StoredObject) -> Source:
        """An object's bytes."""
        return object_source(one.ref, one.size, one.crc32c, self.services.buckets, self.deadline)

    def store(self, instance: Instance, inputs: Sequence[StoredObject], place: str = "") -> Word:
        """Store one instance.

        Args:
            instance: in these objects.
            inputs: one object, or both halves of a pair.
            place: of the instance in an archive.

        Raises:
            PermanentError, RetryableError: as Stow.run.
        """
        settings = self.services.settings
        name = self.event.ref.name
        written = [timestamp(one.updated) for one in inputs]
        stow = Stow(
            store=self.services.dicom_store,
            storage_class=self._storage_class(inputs),
            policy=settings.conflict_policy.of(name),
            written=max((time for time in written if time is not None), default=None),
            again=self.message.attempt > 1,
            memory=self.memory,
            by=(self.event.ref, place),
            deadline=self.deadline,
        )
        return stow.run(instance)

    def _storage_class(self, inputs: Sequence[StoredObject]) -> str:
        """That of the object's metadata goes before that of its prefix."""
        asked = [one.metadata[_CLASS_KEY] for one in inputs if _CLASS_KEY in one.metadata]
        if not asked:
            return self.services.settings.storage_class.of(self.event.ref.name)
        storage_class = asked[0].upper()
        if storage_class not in STORAGE_CLASSES:
            raise rejected(f"{_CLASS_KEY} is no storage class")
        return storage_class
