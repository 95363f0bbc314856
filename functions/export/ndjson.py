"""Writes a slice's part of metadata.ndjson, one line for each instance, from the objects in the
bucket."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from functions.common.checksum import crc32c_text
from functions.common.clients import transport
from functions.common.errors import RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.job import Job
from functions.export.parts import SMALL_CHUNK_BYTES, Part, Parts
from functions.export.result import Result

_THREADS: Final = 8
# Of the objects that are read at once, and so many of them; a larger object is read alone.
_AT_ONCE_BYTES: Final = 16 * 1024 * 1024
_AT_ONCE: Final = 4 * _THREADS
_OBJECT_LIMIT_BYTES: Final = 256 * 1024 * 1024


def write_lines(job: Job, parts: Parts, result: Result) -> Part | None:
    """Write the part; None if there are no lines.

    Args:
        parts: of the plan.
        result: of the slice, whose objects are read again.

    Raises:
        RetryableError: as Buckets.write; unavailable also when an object is no longer the written
            one.
    """
    if not result.objects:
        return None
    lines = _lines(job, result.objects)
    stored = parts.write(lines, SMALL_CHUNK_BYTES)
    return Part(stored.ref, stored.size)


def _lines(job: Job, objects: list[dict[str, Any]]) -> Iterator[bytes]:
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for group in _groups(objects):
                for line in pool.map(partial(_line, job), group):
                    yield from line
    except SupersededError:
        raise RetryableError("unavailable") from None


def _groups(objects: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The objects in groups that are in memory together."""
    group: list[dict[str, Any]] = []
    size_bytes = 0
    for entry in objects:
        size_bytes += entry["bytes"]
        if group and (size_bytes > _AT_ONCE_BYTES or len(group) == _AT_ONCE):
            yield group
            group = []
            size_bytes = entry["bytes"]
        group.append(entry)
    if group:
        yield group


def _line(job: Job, entry: dict[str, Any]) -> list[bytes]:
    """One line, in pieces. BigQuery loads it into the columns study, series and instance, and
    metadata of type JSON: a tag cannot be the name of a column.

    The metadata is the object's text, not parsed: half a surrogate or 1e999 would not be the same
    after that, and its values take several times the memory.
    """
    data = _read(job, entry["name"])
    if crc32c_text([data]) != entry["crc32c"]:
        raise RetryableError("unavailable")
    uids = {key: entry[key] for key in ("study", "series", "instance")}
    head = json.dumps(uids, separators=(",", ":")).removesuffix("}")
    # JSON has line breaks only between its tokens: in a string they are escaped.
    text = data.replace(b"\n", b" ").replace(b"\r", b" ")
    return [head.encode(), b',"metadata":', text, b"}\n"]


def _read(job: Job, name: str) -> bytes:
    """The whole object. One cut answer of thousands must not lead to reading all again."""
    place = ObjectRef(job.bucket, name)

    def read() -> bytes:
        with job.buckets.open(place, job.deadline) as response:
            return transport.read_all(response, job.deadline, _OBJECT_LIMIT_BYTES)

    return transport.retried(read, job.deadline, "GET")
