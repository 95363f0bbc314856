"""The bytes of one object of an export: in memory where they are few, else a stream."""

from collections.abc import Iterable, Iterator
from typing import Final

SMALL_BYTES: Final = 2 * 1024 * 1024


class Content:
    """The content of one object.

    Args:
        head: the first bytes; all of them where there is no `rest`.
        rest: the others, as they arrive.
    """

    def __init__(
        self,
        head: list[bytes],
        rest: Iterator[bytes] | None = None,
    ) -> None:
        self.head = head
        self._rest = rest

    @classmethod
    def of(cls, stream: Iterable[bytes]) -> "Content":
        """Read up to SMALL_BYTES of a stream."""
        pieces = iter(stream)
        head: list[bytes] = []
        size = 0
        for piece in pieces:
            head.append(piece)
            size += len(piece)
            if size > SMALL_BYTES:
                return cls(head, pieces)
        return cls(head)

    @property
    def is_small(self) -> bool:
        """Whether `head` is all of it."""
        return self._rest is None

    def chunks(self) -> Iterator[bytes]:
        """All bytes, once: what was given is not kept."""
        self.head.reverse()
        while self.head:
            yield self.head.pop()
        if self._rest is not None:
            yield from self._rest
