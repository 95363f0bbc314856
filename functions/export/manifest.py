"""manifest.json: what was asked for, what there is now, and what is missing and why. Written as a
stream, slice by slice, so that its size does not matter."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.export.state import Plan, State

NAME: Final = "manifest.json"
_CHUNK_BYTES: Final = 1024 * 1024


class Manifest:
    """The manifest of one export.

    Args:
        totals: the numbers of all slices.
        joined: the object made of all slices; empty when there is none.
    """

    def __init__(
        self, state: State, plan: Plan, totals: dict[str, int], joined: dict[str, Any]
    ) -> None:
        self._state, self._plan = state, plan
        self._totals, self._joined = totals, joined
        self._reasons: Counter[str] = Counter()

    def write(self, buckets: Buckets, deadline: Deadline) -> str:
        """Write it, in the place of an earlier one.

        Returns:
            The reason that most of the failures have; empty when there are none.

        Raises:
            RetryableError: as Buckets.write; unavailable when another delivery is just cleaning up.
        """
        buckets.write(
            self._plan.request.destination.bucket,
            self._plan.request.below(NAME),
            self._text(),
            deadline,
            content_type="application/json",
            if_generation_match=None,
            chunk_bytes=_CHUNK_BYTES,
        )
        return self._reasons.most_common(1)[0][0] if self._reasons else ""

    def _text(self) -> Iterator[bytes]:
        self._reasons.clear()
        head: dict[str, Any] = {
            "version": 1,
            **self._plan.request.asked,
            "complete": not self._totals["failures"],
            "counts": self._totals,
        }
        if self._joined:
            head["joined"] = self._joined
        yield json.dumps(head, indent=1).removesuffix("\n}").encode()
        for key in ("objects", "failures", "skipped"):
            yield f',\n "{key}": ['.encode()
            yield from self._list(key)
        yield b"\n}\n"

    def _list(self, key: str) -> Iterator[bytes]:
        before, end = "\n  ", b"]"
        for entry in self._entries(key):
            yield (before + json.dumps(entry)).encode()
            before, end = ",\n  ", b"\n ]"
        yield end

    def _entries(self, key: str) -> Iterator[dict[str, Any]]:
        if not self._totals[key]:
            return
        for name in self._plan.slices:
            result = self._state.result(self._plan.run, name)
            if key == "failures":
                self._reasons.update(entry["reason"] for entry in result.failures)
            yield from getattr(result, key)
