"""Writes a slice's part of metadata.ndjson, one line an instance, from the objects that are in the
bucket."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from functions.common.checksum import crc32c_text
from functions.common.clients import transport
from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.state import Part, Result

_CHUNK_BYTES: Final = 8 * 1024 * 1024
_THREADS: Final = 8
_READS: Final = 3
_OBJECT_LIMIT_BYTES: Final = 256 * 1024 * 1024


def write_lines(
    result: Result, place: ObjectRef, buckets: Buckets, deadline: Deadline
) -> Part | None:
    """Write the part; None where there are no lines.

    Args:
        result: of the slice, whose objects are read again.
        place: of the part, in the bucket of the objects.

    Raises:
        RetryableError: as Buckets.write; unavailable also when an object is no longer what was
            written.
    """
    if not result.objects:
        return None
    stored = buckets.write(
        place.bucket,
        place.name,
        _lines(result.objects, place.bucket, buckets, deadline),
        deadline,
        if_generation_match=None,
        chunk_bytes=_CHUNK_BYTES,
    )
    return Part.of(stored)


def _lines(
    objects: list[dict[str, Any]], bucket: str, buckets: Buckets, deadline: Deadline
) -> Iterator[bytes]:
    def line(entry: dict[str, Any]) -> bytes:
        data = _read(ObjectRef(bucket, entry["name"]), buckets, deadline)
        if crc32c_text([data]) != entry["crc32c"]:
            raise RetryableError("unavailable")
        # BigQuery takes such a line for the columns study, series and instance, and metadata of
        # type JSON: a tag cannot be the name of a column.
        uids = {key: entry[key] for key in ("study", "series", "instance")}
        row = {**uids, "metadata": json.loads(data)}
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    at_once = 4 * _THREADS
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(objects), at_once):
                yield from pool.map(line, objects[start : start + at_once])
    except SupersededError:
        raise RetryableError("unavailable") from None


def _read(place: ObjectRef, buckets: Buckets, deadline: Deadline) -> bytes:
    """The whole object. One answer that is cut, of thousands, must not mean that all are read
    again."""
    for _ in range(_READS - 1):
        with contextlib.suppress(RetryableError), buckets.open(place, deadline) as response:
            return transport.read_all(response, deadline, _OBJECT_LIMIT_BYTES)
        deadline.check()
    with buckets.open(place, deadline) as response:
        return transport.read_all(response, deadline, _OBJECT_LIMIT_BYTES)
