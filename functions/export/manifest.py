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
_CHUNK_BYTES: Final = 8 * 1024 * 1024


def write_manifest(
    state: State,
    plan: Plan,
    totals: dict[str, int],
    joined: dict[str, Any],
    buckets: Buckets,
    deadline: Deadline,
) -> str:
    """Write it, in the place of an earlier one.

    Args:
        joined: the object made of all slices, if any.

    Returns:
        The reason that most of the failures have; empty when there are none.

    Raises:
        RetryableError: as Buckets.write; unavailable when another delivery is just cleaning up.
    """
    reasons: Counter[str] = Counter()
    buckets.write(
        plan.request.destination.bucket,
        plan.request.object_name(NAME),
        _text(state, plan, totals, joined, reasons),
        deadline,
        content_type="application/json",
        if_generation_match=None,
        chunk_bytes=_CHUNK_BYTES,
    )
    return reasons.most_common(1)[0][0] if reasons else ""


def _text(
    state: State, plan: Plan, totals: dict[str, int], joined: dict[str, Any], reasons: Counter[str]
) -> Iterator[bytes]:
    head: dict[str, Any] = {
        "version": 1,
        **plan.request.asked,
        "complete": not totals["failures"],
        "counts": totals,
    }
    if joined:
        head["joined"] = joined
    yield json.dumps(head, indent=1).removesuffix("\n}").encode()
    for key in ("objects", "failures", "skipped"):
        yield f',\n "{key}": ['.encode()
        before = "\n  "
        for name in plan.slices if key == "objects" or totals[key] else ():
            entries = getattr(state.result(plan.run, name), key)
            if key == "failures":
                reasons.update(entry["reason"] for entry in entries)
            for entry in entries:
                yield (before + json.dumps(entry)).encode()
                before = ",\n  "
        yield b"\n ]" if before.startswith(",") else b"]"
    yield b"\n}\n"
