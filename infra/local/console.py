"""The one log stream: every process's lines, each with its name in its colour."""

import contextlib
import sys
import threading
from typing import TextIO

_COLOURS = (36, 33, 35, 32, 34, 96, 93)
_WIDTH = 15


class Console:
    """Writes whole lines, from any thread, once it is shown."""

    def __init__(self, stream: TextIO, coloured: bool) -> None:
        self._stream = stream
        self._coloured = coloured
        self._lock = threading.Lock()
        self.shown = False
        self._known: dict[str, int] = {}

    def line(self, name: str, text: str) -> None:
        """One line of a process; dropped until shown is set."""
        if not self.shown:
            return
        with self._lock:
            colour = self._known.setdefault(name, _COLOURS[len(self._known) % len(_COLOURS)])
            prefix = f"{name:<{_WIDTH}} |"
            if self._coloured:
                prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
            with contextlib.suppress(
                OSError, ValueError
            ):  # nobody reads any more: no reason to stop serving
                self._stream.write(f"{prefix} {text}\n")
                self._stream.flush()


def fail(message: str) -> None:
    """One clear line on stderr."""
    print(f"error: {message}", file=sys.stderr, flush=True)
