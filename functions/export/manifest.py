"""manifest.json: the request, the objects, and what is missing and why. Written as a stream, slice
by slice, so that its size does not matter."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from functions.export.job import Job
from functions.export.state import Plan, State

_NAME: Final = "manifest.json"
_CHUNK_BYTES: Final = 1024 * 1024


class Manifest:
    """The manifest of one export.

    Args:
        totals: the numbers of all slices.
    """

    def __init__(
        self,
        job: Job,
        state: State,
        plan: Plan,
        totals: Mapping[str, int],
    ) -> None:
        self._job = job
        self._state = state
        self._plan = plan
        self._totals = totals
        self._reasons: Counter[str] = Counter()

    @property
    def main_reason(self) -> str:
        """The reason of most failures, which are counted when the manifest is written; empty when
        there are none."""
        for reason, _ in self._reasons.most_common(1):
            return reason
        return ""

    def write(self, joined: Mapping[str, Any]) -> None:
        """Write it, replacing an earlier one.

        Args:
            joined: the object made of all slices; empty when there is none.

        Raises:
            RetryableError: as Buckets.write; unavailable when another delivery is cleaning up.
        """
        self._job.buckets.write(
            self._job.bucket,
            self._job.request.below(_NAME),
            self._text(joined),
            self._job.deadline,
            content_type="application/json",
            if_generation_match=None,
            chunk_bytes=_CHUNK_BYTES,
        )

    def _text(self, joined: Mapping[str, Any]) -> Iterator[bytes]:
        head: dict[str, Any] = {
            "version": 1,
            **self._job.request.as_command,
            "complete": not self._totals["failures"],
            "counts": self._totals,
        }
        if joined:
            head["joined"] = joined
        # The object is left open for the lists.
        yield json.dumps(head, indent=1).removesuffix("\n}").encode()
        for key in ("objects", "failures", "skipped"):
            yield f',\n "{key}": ['.encode()
            yield from self._list(key)
        yield b"\n}\n"

    def _list(self, key: str) -> Iterator[bytes]:
        separator = "\n  "
        for entry in self._entries(key):
            yield (separator + json.dumps(entry)).encode()
            separator = ",\n  "
        yield b"\n ]"

    def _entries(self, key: str) -> Iterator[dict[str, Any]]:
        if not self._totals[key]:
            return
        for name in self._plan.slices:
            result = self._state.result(self._plan.run, name)
            if key == "failures":
                self._reasons.update(entry["reason"] for entry in result.failures)
            yield from getattr(result, key)
