"""One delivery of one object's event: what is known of it, and what it is handled with."""

from dataclasses import dataclass

from functions.common.clients.storage import StoredObject
from functions.common.deadline import Deadline
from functions.common.events.messages import Message, ObjectFinalized
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services
from functions.store.memory import Memory
from functions.store.source import Source, object_source


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
