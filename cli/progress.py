"""Counts shown while a command works: one line that changes on a terminal, else only the last
state."""

import sys
from collections import Counter
from typing import Final

from cli.text import amount

_EVERY: Final = 50


class Progress:
    """What a command has done so far.

    Args:
        done: the word for the work itself; its count is shown even when it is 0.
    """

    def __init__(self, done: str) -> None:
        self.done = done
        self.counts: Counter[str] = Counter()
        self._steps = 0

    def count(self, word: str) -> None:
        """Add one to a count."""
        self.counts[word] += 1
        self._steps += 1
        if self._steps % _EVERY == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{self}\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        """Print the counts."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        print(self)

    def __str__(self) -> str:
        counts = {self.done: self.counts[self.done], **self.counts}
        return ", ".join(amount(count, word) for word, count in counts.items())
