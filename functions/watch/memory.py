"""The studies that this process knows to be open: their other records are acknowledged at once."""

import threading
from collections import OrderedDict
from typing import Final

from functions.common.resources import Resource
from functions.watch.markers import Marker, needs_no_write
from functions.watch.stored import Stored

_STUDIES: Final = 10_000


class OpenStudies:
    """Open markers as they were last seen; safe to share between threads; entries may be forgotten.

    A marker that was seen open is closed at the earliest when the quiet time after its last change
    is over. An instance whose record does not need to change the marker was stored before that, so
    it is certain to be counted, and its record needs no work. The record that opened the marker is
    never skipped, nor is its replay: its follow-up message may be missing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Marker] = OrderedDict()

    def covers(self, stored: Stored, quiet_s: float) -> bool:
        """Whether the open marker is certain to count this instance."""
        with self._lock:
            marker = self._open.get(stored.study.study)
        if marker is None or marker.was_opened_by(stored):
            return False
        return needs_no_write(stored, marker.changed, quiet_s)

    def seen_open(self, study: Resource, marker: Marker) -> None:
        """Remember an open marker."""
        with self._lock:
            self._open[study.study] = marker
            self._open.move_to_end(study.study)
            if len(self._open) > _STUDIES:
                self._open.popitem(last=False)
