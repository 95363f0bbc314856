"""Which commands a caller may send, and how many in a minute."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from functions.commands.refusals import RefusedError
from functions.common.deadline import Deadline

_MINUTE_S: Final = 60.0
_CALLERS: Final = 10_000


class Limits:
    """What each caller may do; safe to share between threads.

    Args:
        allowed: the commands of each caller; empty: everyone may send all.
        per_minute: commands of one caller, in this process.
    """

    def __init__(self, allowed: Mapping[str, Sequence[str]], per_minute: int) -> None:
        self._allowed = allowed
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()

    def check(self, caller: str, kind: str) -> None:
        """Check that the caller may send a command of this kind now.

        Raises:
            RefusedError: forbidden; rate_limited.
        """
        # If callers are listed, this one is among them: Callers has refused all others.
        if self._allowed and kind not in self._allowed[caller]:
            raise RefusedError("forbidden", f"this caller may not send {kind}")
        minute = self._counted(caller)
        if minute.commands > self._per_minute:
            wait_s = round(minute.ends.remaining_s()) + 1
            raise RefusedError("rate_limited", "too many commands", retry_after_s=wait_s)

    def _counted(self, caller: str) -> "_Minute":
        """The caller's minute, with one command more."""
        with self._lock:
            minute = self._minutes.pop(caller, None)
            if minute is None or minute.is_over:
                minute = _Minute()
            minute.commands += 1
            self._minutes[caller] = minute
            if len(self._minutes) > _CALLERS:
                self._minutes.popitem(last=False)
            return minute


class _Minute:
    """The commands that a caller sent within one minute."""

    def __init__(self) -> None:
        self.ends = Deadline(_MINUTE_S)
        self.commands = 0

    @property
    def is_over(self) -> bool:
        return not self.ends.remaining_s()
