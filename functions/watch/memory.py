"""The studies that this process knows to be open: their other records are acknowledged at once."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from functions.watch.stored import Stored

_STUDIES: Final = 10_000


@dataclass
class _Open:
    """Which record opened a marker, and when the latest known instance was stored."""

    opened_by: str
    latest: datetime


class OpenStudies:
    """Studies whose marker was seen open; safe to share between threads; entries may be forgotten.

    A study is complete when two counts, `quiet_s` apart, are the same. So while its marker is
    open, it cannot become complete before the latest instance is `quiet_s` old: an instance that
    was stored earlier than that is in the count, and its record needs no work. Half of the time is
    left for differences between clocks. The record that opened the marker is never skipped: its
    follow-up message may be missing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def covers(self, stored: Stored, quiet_s: float) -> bool:
        """Whether the open marker is certain to count this instance."""
        certain = timedelta(seconds=quiet_s / 2)
        with self._lock:
            known = self._open.get(stored.study.study)
            if known is None or known.opened_by == stored.message_id:
                return False
            if stored.before > known.latest + certain:
                return False
            known.latest = max(known.latest, stored.after)
            return True

    def seen_open(self, stored: Stored, opened_by: str) -> None:
        """Remember that the marker was open after this instance was stored."""
        with self._lock:
            study = stored.study.study
            known = self._open.get(study)
            latest = stored.after
            if known is not None and known.opened_by == opened_by:
                latest = max(latest, known.latest)
            self._open[study] = _Open(opened_by, latest)
            self._open.move_to_end(study)
            if len(self._open) > _STUDIES:
                self._open.popitem(last=False)
