"""JSON objects in the state bucket, to which only the functions write.

A change is made on the condition that the generation is the one that was read: of two processes one
succeeds, and the other gets an error.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from functions.common import jsonvalues
from functions.common.clients.storage import Buckets, StoredObject
from functions.common.clients.transport import read_all
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError, SupersededError, correctable
from functions.common.resources import ObjectRef


@dataclass(frozen=True)
class Kept:
    """The contents of an object, and its generation."""

    value: dict[str, Any]
    generation: int


@dataclass(frozen=True)
class JsonObjects:
    """Reads and writes the JSON objects of a bucket.

    Args:
        buckets: the client.
        bucket: that holds them.
        deadline: of the invocation.
        limit_bytes: of one object; a larger one is not read.
    """

    buckets: Buckets
    bucket: str
    deadline: Deadline
    limit_bytes: int

    def read(self, name: str) -> Kept | None:
        """The contents of the object of this name; None if there is none.

        Raises:
            RetryableError: as Transport.send; unavailable also when it is not a JSON object, or the
                bucket refuses, which an operator can correct.
        """
        try:
            with correctable():
                response = self.buckets.open(ObjectRef(self.bucket, name), self.deadline)
        except SupersededError:
            return None
        with response:
            data = read_all(response, self.deadline, self.limit_bytes)
            generation = response.headers.get("x-goog-generation", "")
        value, number = jsonvalues.parsed(data), jsonvalues.int64(generation)
        if not isinstance(value, dict) or number is None:
            raise RetryableError("unavailable")
        return Kept(value, number)

    def write(
        self,
        name: str,
        value: Mapping[str, Any],
        *,
        if_generation_match: int | None,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Write an object; its new generation.

        Args:
            if_generation_match: 0: only if there is none; None: always.
            metadata: that a listing shows.

        Raises:
            PreconditionFailedError: the object is not at that generation.
            RetryableError: as read; unavailable also when there is no such bucket.
        """
        with correctable():
            written = self.buckets.write(
                self.bucket,
                name,
                [json.dumps(value).encode()],
                self.deadline,
                content_type="application/json",
                metadata=metadata,
                if_generation_match=if_generation_match,
            )
        return written.ref.generation

    def list(self, start: str) -> Iterator[StoredObject]:
        """Every object whose name begins with `start`.

        Raises:
            RetryableError: as write.
        """
        with correctable():
            yield from self.buckets.list(self.bucket, start, self.deadline)

    def delete(self, name: str, generation: int = 0) -> None:
        """Delete the object if it is still at this generation; 0: at any.

        Raises:
            RetryableError: as read.
        """
        with correctable():
            self.buckets.delete(ObjectRef(self.bucket, name, generation), self.deadline)
