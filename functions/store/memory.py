"""What this process has done lately and is doing, to save work and to recognise duplicates.

Nothing is lost without it. A process may forget or die at any time: then an input is processed once
more, its outcome is published again, and a duplicate may be called `stored`.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from functions.common.errors import RetryableError
from functions.common.resources import Resource

_KEPT: Final = 20_000


class Memory:
    """Inputs and instances of this process, the latest of each; safe to share between threads.

    Args:
        limit: of each.
    """

    def __init__(self, limit: int = _KEPT) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._busy: set[Hashable] = set()
        self._done = OrderedDict[Hashable, bool]()
        # The checksum of each instance, and the first input that stored it.
        self._stored = OrderedDict[Resource, tuple[str, Hashable]]()

    @contextmanager
    def working_on(self, key: Hashable) -> Iterator[bool]:
        """Claim an input within the `with` block; leaving it without an error makes the input done.

        Yields:
            Whether it was done before.

        Raises:
            RetryableError: operation_pending, while another thread works on it.
        """
        with self._lock:
            if key in self._busy:
                raise RetryableError("operation_pending")
            self._busy.add(key)
            was_done = key in self._done
        try:
            yield was_done
            with self._lock:
                self._keep(self._done, key, True)
        finally:
            with self._lock:
                self._busy.discard(key)

    def note_stored(self, resource: Resource, crc32c: str, by: Hashable) -> bool:
        """Remember that an input stored these bytes; returns whether another input did lately."""
        if not crc32c:
            return False
        with self._lock:
            known_crc32c, first = self._stored.get(resource, ("", by))
            if known_crc32c != crc32c:
                first = by
            self._keep(self._stored, resource, (crc32c, first))
        return first != by

    def has_stored(self, resource: Resource, by: Hashable) -> bool:
        """Whether an input other than `by` stored this instance lately, with any bytes."""
        with self._lock:
            _, first = self._stored.get(resource, ("", by))
        return first != by

    def forget(self, resource: Resource) -> None:
        """The instance is no longer in the DICOM store."""
        with self._lock:
            self._stored.pop(resource, None)

    def _keep(self, entries: OrderedDict[Any, Any], key: Hashable, value: object) -> None:
        """Adds it as the newest; drops the oldest when full."""
        entries[key] = value
        entries.move_to_end(key)
        if len(entries) > self._limit:
            entries.popitem(last=False)
