"""Objects made of all slices: the zip of a study, and one NDJSON file of all metadata. Each slice
writes its part; at the end Cloud Storage joins them, so that nothing passes through memory or a
temporary file again.
"""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from functions.common.clients import transport
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets, StoredObject
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef
from functions.export.request import ExportRequest
from functions.export.state import TOTALS, Plan, Result, State
from functions.export.write import KIND
from functions.export.zipstream import Member, directory

_JOIN_MAX: Final = 32
_CHUNK_BYTES: Final = 8 * 1024 * 1024
_READ_THREADS: Final = 8
_READS: Final = 3
_OBJECT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_COMPLETE: Final = "dicom-export-complete"


def write_lines(
    result: Result, name: str, request: ExportRequest, buckets: Buckets, deadline: Deadline
) -> None:
    """Write the NDJSON part of a slice, one line an instance, from the objects that are in the
    bucket."""
    if not result.objects:
        return
    stored = buckets.write(
        request.destination.bucket,
        name,
        lambda: _lines(result, request.destination.bucket, buckets, deadline),
        deadline,
        if_generation_match=None,
        chunk_bytes=_CHUNK_BYTES,
    )
    result.part = {"name": name, "generation": stored.ref.generation, "bytes": stored.size}


def _lines(result: Result, bucket: str, buckets: Buckets, deadline: Deadline) -> Iterator[bytes]:
    """BigQuery takes such a line for the columns study, series and instance, and metadata of type
    JSON: a tag cannot be the name of a column."""

    def line(entry: dict[str, Any]) -> bytes:
        metadata = json.loads(_read(ObjectRef(bucket, entry["name"]), buckets, deadline))
        uids = {key: entry[key] for key in ("study", "series", "instance")}
        return (
            json.dumps(
                {**uids, "metadata": metadata}, ensure_ascii=False, separators=(",", ":")
            ).encode()
            + b"\n"
        )

    try:
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            for start in range(0, len(result.objects), 4 * _READ_THREADS):
                yield from pool.map(line, result.objects[start : start + 4 * _READ_THREADS])
    except SupersededError:
        raise RetryableError("unavailable") from None


def _read(ref: ObjectRef, buckets: Buckets, deadline: Deadline) -> bytes:
    """The whole object. One answer that is cut, of thousands, must not mean that all are read
    again."""
    for _ in range(_READS - 1):
        with contextlib.suppress(RetryableError), buckets.open(ref, deadline) as response:
            return transport.read_all(response, deadline, _OBJECT_LIMIT_BYTES)
        deadline.check()
    with buckets.open(ref, deadline) as response:
        return transport.read_all(response, deadline, _OBJECT_LIMIT_BYTES)


def joined_name(request: ExportRequest) -> str:
    """The name of the object that is made of all slices; empty when the format has none."""
    if request.format == "metadata":
        return request.object_name("metadata.ndjson")
    if request.format == "zip" and request.resource:
        resource = request.resource
        return request.object_name(f"{resource.instance or resource.series or resource.study}.zip")
    return ""


def complete_zip(
    state: State, request: ExportRequest, store: DicomStore, buckets: Buckets, deadline: Deadline
) -> dict[str, int] | None:
    """The totals of a zip that this very request has made, while the DICOM store still has as many
    instances.

    Raises:
        PermanentError: conflict, when what the request would join has the name of an object that is
            no such export's.
    """
    name = joined_name(request)
    stored = buckets.stat(ObjectRef(request.destination.bucket, name), deadline) if name else None
    if stored and stored.metadata.get(KIND) != request.kind:
        raise PermanentError("conflict", "the destination has another object of that name")
    if (
        not stored
        or not request.resource
        or stored.metadata.get(_COMPLETE) != _zip_mark(state, request)
    ):
        return None
    totals = {**{key: int(stored.metadata.get(key, 0)) for key in TOTALS}, "written": 0}
    count = store.count(request.resource, totals["objects"] + 1, deadline)
    return totals if count == totals["objects"] else None


def _zip_mark(state: State, request: ExportRequest) -> str:
    return f"{state.key} {request.resource} {request.kind}"


def join_parts(
    state: State, plan: Plan, totals: dict[str, int], buckets: Buckets, deadline: Deadline
) -> dict[str, Any]:
    """Join the parts of all slices; returns the object as the manifest names it, empty when there
    is none.

    Raises:
        RetryableError: a part is gone: another delivery is just cleaning up.
    """
    name, bucket = joined_name(plan.request), plan.request.destination.bucket
    if not name:
        return {}
    parts = [state.result(plan.run, one).part for one in plan.slices]
    sources = [
        ObjectRef(bucket, part["name"], part["generation"])
        for part in parts
        if part and part["bytes"]
    ]
    metadata = {KIND: plan.request.kind}
    if plan.request.format == "zip":
        index = _zip_index(state, plan, buckets, deadline)
        sources.append(index.ref)
        metadata |= {key: str(number) for key, number in totals.items()}
        metadata[_COMPLETE] = "" if totals["failures"] else _zip_mark(state, plan.request)
    if not sources:
        return {}
    content_type = "application/zip" if plan.request.format == "zip" else "application/x-ndjson"
    try:
        while len(sources) > _JOIN_MAX:
            groups = [sources[at : at + _JOIN_MAX] for at in range(0, len(sources), _JOIN_MAX)]
            joined = [
                buckets.compose(bucket, state.part_name(plan.run), group, deadline)
                for group in groups
            ]
            sources = [one.ref for one in joined]
        stored = buckets.compose(
            bucket, name, sources, deadline, content_type=content_type, metadata=metadata
        )
    except SupersededError:
        raise RetryableError("unavailable") from None
    return {"name": name, "bytes": stored.size, "crc32c": stored.crc32c}


def _zip_index(state: State, plan: Plan, buckets: Buckets, deadline: Deadline) -> StoredObject:
    def parts() -> Iterator[tuple[int, list[Member]]]:
        for name in plan.slices:
            part = state.result(plan.run, name).part
            yield part["bytes"], [Member(*member) for member in part["members"]]

    name, bucket = state.part_name(plan.run), plan.request.destination.bucket
    return buckets.write(
        bucket,
        name,
        directory(parts()),
        deadline,
        if_generation_match=None,
        chunk_bytes=_CHUNK_BYTES,
    )
