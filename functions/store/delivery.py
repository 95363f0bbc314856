"""One delivery of one object's event: what is known of it, and what it is handled with."""

from collections.abc import Iterator
from dataclasses import dataclass

from functions.common.clients.storage import StoredObject
from functions.common.clients.transport import chunks
from functions.common.deadline import Deadline
from functions.common.events.messages import Message, ObjectFinalized
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services
from functions.store.memory import Memory
from functions.store.source import Source


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
        """An object's bytes: one request for each reading."""

        def read() -> Iterator[bytes]:
            with self.services.buckets.open(one.ref, self.deadline) as response:
                if response.headers.get("x-goog-stored-content-encoding", "identity") != "identity":
                    # Cloud Storage unpacks such an object on the way. Size and checksum in the
                    # event are those of the packed bytes.
                    source.size = None
                    source.crc32c = ""
                yield from chunks(response, self.deadline)

        source = Source(read, one.size, one.crc32c)
        return source
