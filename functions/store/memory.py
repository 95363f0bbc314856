"""What this process has done lately, and is doing: it saves work and recognises duplicates.

Nothing depends on it. A process may forget or die at any time: then an input is handled once more,
and its outcome is published again.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from functions.common.errors import RetryableError
from functions.common.resources import Resource

_INPUTS: Final = 20_000
_INSTANCES: Final = 20_000


class Memory:
    """Inputs and instances of this process, the latest of each; safe to share between threads."""

    def __init__(self, inputs: int = _INPUTS, instances: int = _INSTANCES) -> None:
        self._lock = threading.Lock()
        self._busy: set[Hashable] = set()
        self._done: OrderedDict[Hashable, Hashable] = OrderedDict()
        self._stored: OrderedDict[Hashable, Hashable] = OrderedDict()
        self._inputs = inputs
        self._instances = instances

    @contextmanager
    def working_on(self, key: Hashable) -> Iterator[bool]:
        """Claim an input for the length of a `with`; leaving it without an error makes the input
        done.

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
                _remember(self._done, key, True, self._inputs)
        finally:
            with self._lock:
                self._busy.discard(key)

    def stored(self, resource: Resource, crc32c: str, by: Hashable) -> bool:
        """Whether an input other than `by` stored these bytes lately; remembers `by` if none
        did."""
        if not crc32c:
            return False
        with self._lock:
            first = self._stored.get((resource, crc32c), by)
            _remember(self._stored, (resource, crc32c), first, self._instances)
        return first != by

    def was_stored(self, resource: Resource, crc32c: str, by: Hashable) -> bool:
        """Whether an input other than `by` stored these bytes lately."""
        with self._lock:
            return self._stored.get((resource, crc32c), by) != by

    def forget(self, resource: Resource, crc32c: str) -> None:
        """These bytes are not in the DICOM store any more."""
        with self._lock:
            self._stored.pop((resource, crc32c), None)


def _remember(
    kept: OrderedDict[Hashable, Hashable], key: Hashable, value: Hashable, limit: int
) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > limit:
        kept.popitem(last=False)
