"""One delivery of one object's event: what is known about it, and what is needed to process it."""

from collections.abc import Iterator
from dataclasses import dataclass

from functions.common.clients.storage import Buckets, StoredObject
from functions.common.clients.transport import chunks
from functions.common.deadline import Deadline
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services
from functions.common.resources import ObjectRef
from functions.common.settings import Settings
from functions.store.memory import Memory
from functions.store.source import Source, is_unpacked


@dataclass(frozen=True)
class Delivery:
    """An object that was written, and what is needed to process it.

    Args:
        object: from its event.
        message: of the event, or of a later step of its work.
        services: settings and clients.
        outcomes: publishes records.
        deadline: of the invocation.
        memory: of the process.
    """

    object: StoredObject
    message: Message
    services: Services
    outcomes: Outcomes
    deadline: Deadline
    memory: Memory

    @property
    def ref(self) -> ObjectRef:
        """The object's name and generation."""
        return self.object.ref

    @property
    def settings(self) -> Settings:
        """Of the function."""
        return self.services.settings

    @property
    def buckets(self) -> Buckets:
        """The client."""
        return self.services.buckets

    def source_of(self, one: StoredObject) -> Source:
        """An object's bytes: one request for each reading."""

        def read() -> Iterator[bytes]:
            with self.buckets.open(one.ref, self.deadline) as response:
                if is_unpacked(response.headers):
                    # Size and checksum in the event are those of the packed bytes. Everybody
                    # reads the head, and so comes here, before using them.
                    source.size = None
                    source.crc32c = ""
                yield from chunks(response, self.deadline)

        source = Source(read, one.size, one.crc32c)
        return source
